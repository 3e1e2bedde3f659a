use serde::{Deserialize, Serialize};

use super::*;
use crate::{
    Event, EventSet,
    event::{NewEvent, Recorded},
    memory::MemoryStore,
    read::projection::{FoldResult, Keys},
    stream::Expected,
    testing::account::{AccountEvent, Histories},
    write::append::Append,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(category = "door")]
enum DoorEvent {
    #[event(name = "door.opened")]
    Opened,
}

#[derive(EventSet)]
enum Either {
    Account(AccountEvent),
    Door(DoorEvent),
}

/// Sums up the events of all streams with one id. (A projector refuses it, since two streams may feed one document.)
struct Both;

impl Projection for Both {
    const NAME: &'static str = "both";
    const ORDER: EventOrder = EventOrder::PerStream;
    type Event = Either;
    type Document = u64;

    fn keys(&self, event: &Recorded<Either>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, count: &mut Option<u64>, event: &Recorded<Either>) -> FoldResult {
        *count.get_or_insert_default() += match event.data {
            Either::Account(AccountEvent::Deposited { amount } | AccountEvent::Withdrawn { amount }) => amount,
            Either::Door(DoorEvent::Opened) => 10,
        };
        Ok(())
    }
}

async fn log() -> MemoryStore {
    let store = MemoryStore::new();
    let deposit = || NewEvent::of(&AccountEvent::Deposited { amount: 7 }).expect("an event");
    let opened = NewEvent::of(&DoorEvent::Opened).expect("an event");
    for (category, event) in [("account", deposit()), ("door", opened), ("account", deposit())] {
        let stream = StreamId::new(category, "a").expect("an id");
        store.append(Append::new(stream, Expected::Any, vec![event])).await.expect("appended");
    }
    store
}

/// Seen to fail where the number of categories does not matter.
#[tokio::test]
async fn a_document_is_the_fold_of_one_stream_only_if_one_category_feeds_it() {
    let log = log().await;
    let both = as_of(&Both, &log, &log, "a", Moment::Now).await.expect("folded");
    assert_eq!((both.document.as_deref(), both.events), (Some(&b"24"[..]), 3));
    let version = Moment::Version(Version::new(1));
    assert!(matches!(as_of(&Both, &log, &log, "a", version).await, Err(RefoldError::NoVersions { .. })));
    let first = as_of(&Histories, &log, &log, "a", version).await.expect("folded");
    assert_eq!((first.events, first.position), (1, Position::new(1)));
}

#[tokio::test]
async fn the_last_position_of_the_log_is_a_moment_and_the_next_one_is_not() {
    let log = log().await;
    let at = async |position| {
        let moment = Moment::Position(Position::new(position));
        as_of(&Both, &log, &log, "a", moment).await.map(|found| found.events)
    };
    assert_eq!(at(3).await.expect("folded"), 3);
    let refused = at(4).await;
    assert!(
        matches!(refused, Err(RefoldError::NoSuchPosition { head, .. }) if head == Position::new(3)),
        "{refused:?}"
    );
}
