//! Handles Ctrl-C and other terminating signals, so that the servers are stopped before the command ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

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
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT])
            .map_err(|error| Failure::cannot("handle signals", error))?;
        let Self { last, count } = interrupt.clone();
        thread::spawn(move || {
            for signal in signals.forever() {
                last.store(signal, Ordering::SeqCst);
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Ok(interrupt)
    }

    /// The last signal, if any has arrived.
    pub(crate) fn signal(&self) -> Option<Signal> {
        Signal::from_named_raw(self.last.load(Ordering::SeqCst))
    }

    /// How many signals have arrived.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Fails once a signal has arrived.
    pub(crate) fn check(&self) -> Result<()> {
        self.signal().map_or(Ok(()), |signal| Err(Failure::Interrupted(signal)))
    }
}
