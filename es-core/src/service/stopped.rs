//! A reader that has stopped at an event starts again when the event is no longer in its way.

use std::{future, time::Duration};

use crate::read::read_model::{Operations, StoppedAt};

/// How often the store is asked.
const EVERY: Duration = Duration::from_secs(1);

/// Returns when `reader` need no longer stop at one of the events at which it has stopped: an operator has skipped it, or a worker
/// with newer code has handled it. It never returns for a reader that has stopped for another reason.
pub(super) async fn until_passed(store: &dyn Operations, reader: &str) {
    let mut stopped_at: Option<Vec<StoppedAt>> = None;
    loop {
        // A store that fails now may answer later.
        if let Ok(now) = store.stops(reader).await {
            let before = stopped_at.get_or_insert_with(|| now.clone());
            if before.is_empty() {
                future::pending::<()>().await;
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
