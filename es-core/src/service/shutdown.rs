//! The end of a service, in bounded time.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Service;
use crate::error::BoxError;

/// Until when the parts may take, and until when the store. A quarter, but no more than a second, is left for the store to close.
fn deadlines(begun: Instant, within: Duration) -> (Instant, Instant) {
    let for_the_parts = within.saturating_sub(Duration::from_secs(1).min(within / 4));
    (begun + for_the_parts, begun + within)
}

impl Service {
    /// Ends the service in good order (R16): parts finish what they have begun, commit and release their leases; then the store is
    /// closed. A part that has not ended `within` that time is dropped, which loses nothing.
    ///
    /// # Errors
    /// [`ShutdownError::Late`] names what did not end in time, [`ShutdownError::Close`] says that the store was not closed in good
    /// order. In both cases the service has ended.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the end of the parts, but the store is not closed. Call it again to wait for the rest.
    pub async fn shutdown(&self, within: Duration) -> Result<(), ShutdownError> {
        // A longer time could overflow the deadline.
        let within = within.min(Duration::from_hours(365 * 24));
        let (parts_until, deadline) = deadlines(Instant::now(), within);
        self.stops().cancel();
        let mut late = Vec::new();
        let mut running = self.running().await;
        for (part, task) in running.iter_mut() {
            if !task.is_finished() && timeout_at(parts_until, &mut *task).await.is_err() {
                tracing::warn!(part = part.name, ?within, "did not end in time and is dropped");
                task.abort();
                part.dropped();
                late.push(part.name.clone());
            }
        }
        running.clear();
        let closed = timeout_at(deadline, self.store().close()).await;
        self.is_now_over();
        match closed {
            Ok(Err(error)) => return Err(ShutdownError::Close(error)),
            Ok(Ok(())) => {}
            Err(_) => late.push("the store".to_owned()),
        }
        if late.is_empty() { Ok(()) } else { Err(ShutdownError::Late { late }) }
    }
}

/// Why a service did not end in good order.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// These did not end in time and were dropped: parts by their names, or the store.
    #[error("did not end in time: {}", late.join(", "))]
    Late {
        /// What did not end in time.
        late: Vec<String>,
    },
    /// The store was not closed in good order.
    #[error("the store was not closed in good order")]
    Close(#[source] BoxError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_time_and_no_more_than_a_second_is_for_the_store() {
        let begun = Instant::now();
        for (within, parts) in [(400, 300), (4_000, 3_000), (60_000, 59_000), (0, 0)] {
            let [within, parts] = [within, parts].map(Duration::from_millis);
            assert_eq!(deadlines(begun, within), (begun + parts, begun + within));
        }
    }
}
