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
    use super::*;
    use crate::memory::MemoryStore;

    /// It was skipped before the first look. (Seen to fail: the reader stopped for good.)
    #[tokio::test]
    async fn r22_an_event_that_is_skipped_at_once_stops_no_reader() {
        let store = MemoryStore::new();
        let within = |is_of_event| tokio::time::timeout(EVERY * 3, until_passed(&store, "ledger", is_of_event));
        within(true).await.expect("it returns");
        within(false).await.expect_err("the reader has stopped for another reason");
    }
}
