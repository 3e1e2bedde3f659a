//! Read model stores: the messages of other systems that readers have handled.

use std::time::Duration;

use es_core::{
    Act,
    backend::{Changes, Inbox, NewLetter, ReadModelStore, Reader, Redemption, Takeover},
    testing::{account::AccountEvent, recorded},
};
use uuid::Uuid;

use super::read_model_store::{changes, commit, fenced, lease_of};

const WEEK: Duration = Duration::from_hours(7 * 24);

fn handling(position: u64, messages: &[u128], keep_for: Duration) -> Changes {
    let handled = messages.iter().copied().map(Uuid::from_u128).collect();
    Changes { inbox: Some(Inbox { handled, keep_for }), ..changes(position, &[], &[]) }
}

async fn known(store: &impl ReadModelStore, reader: &Reader, messages: &[u128]) -> Vec<u128> {
    let messages: Vec<_> = messages.iter().copied().map(Uuid::from_u128).collect();
    let known = store.handled(reader, &messages).await.expect("asked");
    let mut known: Vec<_> = known.into_iter().map(|message| message.as_u128()).collect();
    known.sort_unstable();
    known
}

/// What is handled is known with the checkpoint, in every shard of the reader and to no other reader.
pub async fn r9_messages_that_were_handled_are_known_with_the_checkpoint(store: &impl ReadModelStore) {
    let (reader, _) = store.ensure_reader("payments", "consumer").await.expect("made");
    let (other, _) = store.ensure_reader("shipments", "consumer").await.expect("made");
    let mut lease = lease_of(store, &reader, "payments").await;
    commit(store, &mut lease, handling(2, &[1, 2], WEEK)).await.expect("committed");
    commit(store, &mut lease, handling(3, &[2, 3, u128::MAX], WEEK)).await.expect("one of them was known");
    assert_eq!(known(store, &reader, &[4, 3, 2, 1, u128::MAX]).await, [1, 2, 3, u128::MAX]);
    assert_eq!(known(store, &reader, &[]).await, [0; 0]);
    assert_eq!(known(store, &other, &[1, 2, 3]).await, [0; 0]);
    let fenced_lease = lease.clone();
    let owner = Uuid::now_v7();
    let taken = store.acquire(&reader, &lease.shard, owner, Takeover::Always, WEEK).await.expect("asked");
    assert!(taken.is_some());
    fenced(store.commit(&fenced_lease, handling(4, &[4], WEEK)).await);
    assert_eq!(known(store, &reader, &[4]).await, [0; 0], "a fenced worker notes nothing");
}

/// Letters that are added and that are handled again commit with it.
pub async fn r9_an_inbox_commits_with_letters(store: &impl ReadModelStore) {
    let (reader, _) = store.ensure_reader("payments", "consumer").await.expect("made");
    let mut lease = lease_of(store, &reader, "payments").await;
    let event = recorded([("a", AccountEvent::Deposited { amount: 1 })]).remove(0);
    let (key, position) = ("payments/0/account-a".to_owned(), event.position);
    let letters = vec![NewLetter { key: key.clone(), event, cause: Some("no".to_owned()), attempts: 1 }];
    commit(store, &mut lease, Changes { letters, ..handling(2, &[2], WEEK) }).await.expect("committed");
    let act = Act::new("ada", "ticket 7").expect("valid");
    store.request_retry("payments", &key, &act).await.expect("parked");
    let letters = store.letters(&lease, &key).await.expect("read");
    let handled = vec![(position, letters[0].revision)];
    let redemption = Redemption { key: key.clone(), handled, failed: None, is_whole: true };
    let checkpoint = lease.checkpoint.clone();
    let again = Changes { checkpoint, redemption: Some(redemption.clone()), ..handling(0, &[1], WEEK) };
    commit(store, &mut lease, again).await.expect("committed");
    assert_eq!(known(store, &reader, &[1, 2]).await, [1, 2]);
    assert!(store.parked_keys("payments").await.expect("read").is_empty());
    // A letter that is gone refuses the commit, and with it the inbox.
    let checkpoint = lease.checkpoint.clone();
    let stale = Changes { checkpoint, redemption: Some(redemption), ..handling(0, &[3], WEEK) };
    store.commit(&lease, stale).await.expect_err("the letter is gone");
    assert_eq!(known(store, &reader, &[3]).await, [0; 0]);
}

/// Retention: a commit forgets what is older.
pub async fn handled_messages_are_forgotten_after_their_time(store: &impl ReadModelStore) {
    let (reader, _) = store.ensure_reader("payments", "consumer").await.expect("made");
    let (other, _) = store.ensure_reader("shipments", "consumer").await.expect("made");
    let mut lease = lease_of(store, &reader, "payments").await;
    let mut of_other = lease_of(store, &other, "shipments").await;
    commit(store, &mut of_other, handling(1, &[1], WEEK)).await.expect("committed");
    commit(store, &mut lease, handling(1, &[1, 2], WEEK)).await.expect("committed");
    commit(store, &mut lease, handling(2, &[3], WEEK)).await.expect("committed");
    assert_eq!(known(store, &reader, &[1, 2, 3]).await, [1, 2, 3], "they are young");
    commit(store, &mut lease, handling(3, &[4], Duration::ZERO)).await.expect("committed");
    assert_eq!(known(store, &reader, &[1, 2, 3, 4]).await, [4]);
    assert_eq!(known(store, &other, &[1]).await, [1]);
    commit(store, &mut lease, handling(4, &[5], Duration::MAX)).await.expect("for ever");
    assert_eq!(known(store, &reader, &[4, 5]).await, [4, 5]);
}
