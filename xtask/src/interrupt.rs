//! Handles Ctrl-C and other terminating signals, so that the servers are stopped before the command ends.

use std::future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{Failure, Result};

/// The signals that have arrived. Without this the first signal would end the command and leave the servers running.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt {
    last: Arc<AtomicI32>,
    count: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Handles every signal that ends a command and can be handled.
    pub(crate) fn listen() -> Result<Self> {
        let interrupt = Self::default();
        let failed = |error| Failure::cannot("handle signals", error);
        let runtime = Builder::new_current_thread().enable_io().build().map_err(failed)?;
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
            let _context = runtime.enter();
            let signals = signal(kind).map_err(failed)?;
            runtime.spawn(interrupt.clone().record(signals, kind.as_raw_value()));
        }
        thread::spawn(move || runtime.block_on(future::pending::<()>()));
        Ok(interrupt)
    }

    /// The last signal, if any has arrived.
    pub(crate) fn signal(&self) -> Option<i32> {
        Some(self.last.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }

    /// How many signals have arrived.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Fails once a signal has arrived.
    pub(crate) fn check(&self) -> Result<()> {
        self.signal().map_or(Ok(()), |signal| Err(Failure::Interrupted(signal)))
    }

    async fn record(self, mut signals: Signal, number: i32) {
        while signals.recv().await.is_some() {
            self.last.store(number, Ordering::SeqCst);
            self.count.fetch_add(1, Ordering::SeqCst);
        }
    }
}
