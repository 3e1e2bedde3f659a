//! Engines make way for newer code, and go on when it has left.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    error::EngineError,
    worker::{self, Pending},
    worker_state::{StateReport, WorkerState},
};

/// Makes attempts until the shutdown or an error that waiting cannot mend. Where only newer code
/// can do the work, it stands by and tries again after each `retry`.
pub(crate) async fn run<'a>(
    name: &'static str,
    report: &StateReport,
    retry: Duration,
    shutdown: &CancellationToken,
    attempt: impl Fn() -> Pending<'a, Option<()>>,
) -> Result<(), EngineError> {
    loop {
        match worker::persist(name, shutdown, &attempt).await {
            Ok(_) => return Ok(()),
            Err(error) if error.awaits_newer_code() => report.set(name, WorkerState::standing_by(&error)),
            Err(error) => {
                report.set(name, WorkerState::stopped(&error));
                return Err(error);
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(retry) => {}
        }
    }
}
