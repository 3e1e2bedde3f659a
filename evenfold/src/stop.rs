//! The signals that end a process.

use std::{future::Future, io};

/// Waits for SIGTERM or SIGINT (Ctrl-C). The process listens from the moment of this call.
///
/// # Errors
/// The operating system's own, when it refuses to deliver signals.
///
/// # Panics
/// Outside of a tokio runtime with I/O enabled.
pub fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        tokio::signal::ctrl_c().await.ok();
    })
}
