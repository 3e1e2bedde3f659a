use uuid::Uuid;

use super::{AggregateStore, Folded, Snapshot, SnapshotStore};
use crate::{
    event::{Event, EventData},
    memory::MemoryStore,
    stream::{StreamId, Version},
    testing::account::{Account, AccountEvent},
    witness::Ending,
};

#[test]
fn r8_a_state_is_bound_to_the_program_from_the_first_event_on_that_was_upcast() {
    let event = AccountEvent::Deposited { amount: 1 };
    let written = EventData::of(&event).expect("an event");
    let renamed = EventData { name: "account.paid_in".into(), ..written.clone() };
    let older = EventData { schema_version: event.schema().version + 1, ..written.clone() };
    assert_eq!(Folded::AsWritten.with(&event, &written), Folded::AsWritten);
    assert_eq!(Folded::AsWritten.with(&event, &renamed), Folded::Upcast);
    assert_eq!(Folded::AsWritten.with(&event, &older), Folded::Upcast);
    assert_eq!(Folded::Upcast.with(&event, &written), Folded::Upcast);
}

#[tokio::test]
async fn r8_a_snapshot_of_no_events_is_ignored() {
    let (store, stream) = (MemoryStore::new(), StreamId::new("account", "a").expect("a valid name"));
    let last = Ending::sent(Uuid::from_u128(1));
    let snapshot = Snapshot::of(stream.clone(), Version::ZERO, last, &Account::default(), Folded::AsWritten);
    store.save_snapshot(snapshot.expect("it is read as it was written")).await.expect("saved");
    let loaded = store.load_stream(&stream, true, 10).await.expect("loaded");
    assert_eq!((loaded.snapshot, loaded.events.len(), loaded.more), (None, 0, false));
}
