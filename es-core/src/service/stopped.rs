//! A reader that has stopped at an event starts again when the event is no longer in its way.

use std::{future, time::Duration};

use crate::read::read_model::{Operations, StoppedAt};

/// How often the store is asked.
const EVERY: Duration = Duration::from_secs(1);

/// Returns when `reader` need no longer stop at one of the events at which it has stopped: an operator has skipped it, or a worker
/// with newer code has handled it, perhaps before the first look if `is_of_event` tells that it has stopped at one. It never returns
/// for a reader that has stopped for another reason.
pub(super) async fn until_passed(store: &dyn Operations, reader: &str, is_of_event: bool) {
    let mut stopped_at: Option<Vec<StoppedAt>> = None;
    loop {
        // A store that fails now may answer later.
        if let Ok(now) = store.stops(reader).await {
            let before = stopped_at.get_or_insert_with(|| now.clone());
            if before.is_empty() {
                if !is_of_event {
                    future::pending::<()>().await;
                }
                // If it cannot be recorded where the reader stops, that is tried again, and not at once.
                return tokio::time::sleep(EVERY).await;
            }
            let is_there =
                |stop: &StoppedAt| now.iter().any(|at| at.event_id == stop.event_id && at.shard == stop.shard);
            if !before.iter().all(is_there) {
                return;
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{
        memory::MemoryStore,
        read::read_model::{Leases, Shard, Takeover},
        testing::{account::AccountEvent, recorded},
    };

    /// The reader has stopped again, at a later event of the shard.
    #[tokio::test(start_paused = true)]
    async fn a_reader_that_has_stopped_at_the_next_event_since_has_passed_the_former_one() {
        let (store, shard) = (MemoryStore::new(), Shard::whole("log"));
        let events = recorded([1, 2].map(|amount| ("a", AccountEvent::Deposited { amount })));
        let (reader, _) = store.ensure_reader("ledger", "projection").await.expect("made");
        store.ensure_shards(&reader, std::slice::from_ref(&shard)).await.expect("ensured");
        let lease = store.acquire(&reader, &shard, Uuid::nil(), Takeover::Always, EVERY).await;
        let lease = lease.expect("asked").expect("taken");
        store.stopped(&lease, &events[0], "a cause").await.expect("recorded");
        let mut passed = std::pin::pin!(until_passed(&store, "ledger", true));
        assert!(tokio::time::timeout(EVERY * 3, &mut passed).await.is_err(), "it is still there");
        store.stopped(&lease, &events[1], "a cause").await.expect("recorded");
        tokio::time::timeout(EVERY * 3, passed).await.expect("it returns");
    }

    /// It was skipped before the first look. (Seen to fail: the reader stopped for good.)
    #[tokio::test]
    async fn r22_an_event_that_is_skipped_at_once_stops_no_reader() {
        let store = MemoryStore::new();
        let within = |is_of_event| tokio::time::timeout(EVERY * 3, until_passed(&store, "ledger", is_of_event));
        within(true).await.expect("it returns");
        within(false).await.expect_err("the reader has stopped for another reason");
    }
}
