//! Subscriptions to the documents of a read model, and waiting for several read models, on every store.

use std::{collections::BTreeMap, time::Duration};

use es_core::{
    Change, FoldResult, KeyRange, Keys, Position, Projection, ReadToken, Recorded, Repository, Since, Watch,
    WatchError,
    testing::{
        account::{Account, AccountCommand, Histories, Ledger, Turnover},
        project,
    },
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::booking::BookingEvent;

use super::engines_project::{Funded, PATIENCE, Store, deposit, load, projector, read_model, spawn};

fn watch<P: Projection>(projection: P, store: &impl Store, range: KeyRange, since: impl Into<Since>) -> Watch<P> {
    read_model::<P>(store).watched_with(projection, store.clone()).watch_range(range, since).expect("it is known")
}

async fn next<P: Projection>(watch: &mut Watch<P>) -> Change<P::Document> {
    timeout(PATIENCE, watch.next()).await.expect("in time").expect("it goes on")
}

async fn execute(store: &impl Store, id: &str, command: AccountCommand) -> ReadToken {
    Repository::<Account>::new(store.clone()).execute(id, command).await.expect("executed").token
}

/// The documents of the fold of the log.
async fn truth<P: Projection>(projection: P, store: &impl Store) -> BTreeMap<String, P::Document> {
    let log = store.read_log(Position::ZERO, 100_000).await.expect("the log");
    project(&projection, &log).expect("the fold").into_iter().collect()
}

/// The current state of the key comes first, then each change, also a removal, and nothing of other keys.
pub async fn r13_a_watch_of_a_key_tells_its_state_and_each_change(store: &impl Store) {
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Funded, store), &shutdown);
    let model = read_model::<Funded>(store).patience(PATIENCE).watched_with(Funded, store.clone());
    let token = execute(store, "a", AccountCommand::Deposit(5)).await;
    model.wait_for(token, PATIENCE).await.expect("it is folded");
    let mut watch = model.watch("a", Since::Now).expect("it is known");
    let first = next(&mut watch).await;
    assert_eq!((first.key.as_str(), first.document), ("a", Some(5)));
    assert!(first.position >= token.0);
    for (command, expected) in [
        (AccountCommand::Withdraw(5), None),
        (AccountCommand::Deposit(2), Some(2)),
        (AccountCommand::Deposit(2), Some(4)),
    ] {
        execute(store, "b", AccountCommand::Deposit(1)).await;
        let token = execute(store, "a", command).await;
        let change = next(&mut watch).await;
        assert_eq!((change.key.as_str(), change.document, change.position), ("a", expected, token.0));
        assert!(change.token.is_some_and(|told| told.position >= token.0));
    }
    let quiet = timeout(Duration::from_millis(50), watch.next()).await;
    assert!(quiet.is_err(), "nothing has happened: {quiet:?}");
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
}

/// A watch that begins while ten clients write, and that is dropped in the middle of a step again and again, ends with the fold of
/// the log; no state of a key is older than the one before. The state has more than one page of documents.
pub async fn r13_a_watch_of_a_range_ends_with_the_fold_of_the_log(store: &impl Store) {
    for number in 0..120 {
        execute(store, &format!("b{number:03}"), AccountCommand::Deposit(1)).await;
    }
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Histories, store), &shutdown);
    let writing = tokio::spawn(load(store, 20).join_all());
    let model = read_model::<Histories>(store).patience(PATIENCE).watched_with(Histories, store.clone());
    let mut watch = model.watch_range(KeyRange::default(), Since::Now).expect("it is known");
    let mut seen = BTreeMap::<String, (Vec<u64>, Position)>::new();
    let mut wait = 0;
    let mut settled = false;
    loop {
        wait = (wait + 1) % 7;
        match timeout(Duration::from_micros(wait * 300), watch.next()).await {
            Ok(change) => {
                let change = change.expect("it goes on");
                let document = change.document.expect("no account is closed");
                let before = seen.insert(change.key, (document.clone(), change.position));
                let is_later = |(old, at): (Vec<u64>, Position)| old.len() <= document.len() && at <= change.position;
                assert!(before.is_none_or(is_later), "it never goes back");
            }
            Err(_) if settled => {
                let truth = truth(Histories, store).await;
                if seen.len() == truth.len() && seen.iter().all(|(key, (document, _))| truth.get(key) == Some(document))
                {
                    break;
                }
            }
            Err(_) => settled = writing.is_finished(),
        }
    }
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
}

/// Only what has changed since comes, whatever the number of events in between, and a write is such a moment too.
pub async fn r13_a_watch_continues_where_another_one_was(store: &impl Store) {
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Turnover, store), &shutdown);
    let model = read_model::<Turnover>(store).patience(PATIENCE);
    model.wait_for(execute(store, "a", AccountCommand::Deposit(1)).await, PATIENCE).await.expect("it is folded");
    let accounts = KeyRange::default().before("all");
    let mut first = watch(Turnover, store, accounts.clone(), Since::Now);
    let told = next(&mut first).await;
    assert_eq!((told.key.as_str(), told.document), ("a", Some(1)));
    let token = told.token.expect("the state is complete");
    let text = token.to_string();
    drop(first);

    let written = execute(store, "a", AccountCommand::Deposit(1)).await;
    for number in 0..30 {
        execute(store, &format!("a{}", number % 3), AccountCommand::Deposit(1)).await;
    }
    let last = execute(store, "b", AccountCommand::Deposit(1)).await;
    model.wait_for(last, PATIENCE).await.expect("it is folded");

    let mut second = watch(Turnover, store, accounts.clone(), text.parse::<es_core::ChangeToken>().expect("a token"));
    let mut changed = BTreeMap::new();
    while changed.len() < 4 {
        let change = next(&mut second).await;
        changed.insert(change.key, change.document);
    }
    let expected = [("a", 2), ("a0", 10), ("a1", 10), ("a2", 10)];
    assert_eq!(changed, expected.map(|(key, sum)| (key.to_owned(), Some(sum))).into());

    let mut third = watch(Turnover, store, accounts, written);
    let keys = [next(&mut third).await.key, next(&mut third).await.key, next(&mut third).await.key];
    assert!(!keys.contains(&"a".to_owned()), "its own write is known: {keys:?}");
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
}

/// Documents of two generations are not mixed: the watch ends, and so does one that would continue it.
pub async fn r12_a_watch_ends_when_another_generation_is_promoted(store: &impl Store) {
    let shutdown = CancellationToken::new();
    let worker = spawn(projector(Ledger::<1>::default(), store), &shutdown);
    let model = read_model::<Ledger<1>>(store).watched_with(Ledger::<1>::default(), store.clone());
    model.wait_for(deposit(store, 1).await, PATIENCE).await.expect("it is folded");
    let mut watch = model.watch("all", Since::Now).expect("it is known");
    let token = next(&mut watch).await.token.expect("the state is complete");
    projector(Ledger::<1>::default(), store).rebuild(CancellationToken::new()).await.expect("rebuilt").expect("whole");
    let ended = timeout(PATIENCE, watch.next()).await.expect("in time");
    assert!(matches!(ended, Err(WatchError::Replaced { .. })), "{ended:?}");
    let again = timeout(PATIENCE, model.watch("all", token).expect("it is known").next()).await.expect("in time");
    assert!(matches!(again, Err(WatchError::Replaced { .. })), "{again:?}");
    let mut anew = model.watch("all", Since::Now).expect("it is known");
    assert!(next(&mut anew).await.document.is_some());
    shutdown.cancel();
    worker.await.expect("no panic").expect("it stops in order");
}

/// It listens to nothing that is written here.
struct Elsewhere;

impl Projection for Elsewhere {
    const NAME: &'static str = "elsewhere";
    type Event = BookingEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<BookingEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, count: &mut Option<u64>, _event: &Recorded<BookingEvent>) -> FoldResult {
        *count.get_or_insert_default() += 1;
        Ok(())
    }
}

/// A read that waits for several read models: one that is fed by few events, and one whose events are all skipped. Both reach the
/// write's position.
pub async fn r13_a_read_waits_for_several_read_models(store: &impl Store) {
    let shutdown = CancellationToken::new();
    let workers = [spawn(projector(Histories, store), &shutdown), spawn(projector(Elsewhere, store), &shutdown)];
    let (histories, elsewhere) = (read_model::<Histories>(store), read_model::<Elsewhere>(store));
    for amount in 1..50 {
        let token = deposit(store, amount).await;
        let waited = tokio::try_join!(histories.wait_for(token, PATIENCE), elsewhere.wait_for(token, PATIENCE));
        waited.expect("both are there");
        let versions = histories.get("a").await.expect("a read").expect("it is there");
        assert_eq!(versions.last(), Some(&amount));
    }
    assert_eq!(elsewhere.get("a").await.expect("a read"), None);
    shutdown.cancel();
    for worker in workers {
        worker.await.expect("no panic").expect("it stops in order");
    }
}
