//! Connections that wait for their next query.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Connections without a query and without a transaction, until they are closed together.
#[derive(Debug)]
pub(crate) struct Idle<C>(Mutex<Option<Vec<C>>>);

impl<C> Idle<C> {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }

    pub(crate) fn take(&self) -> Option<C> {
        self.lock().as_mut()?.pop()
    }

    /// Keeps `connection` for the next query, which gets the one that was kept last. If the others have been closed, it is dropped, and
    /// the answer is `false`.
    pub(crate) fn keep(&self, connection: C) -> bool {
        self.lock().as_mut().map(|idle| idle.push(connection)).is_some()
    }

    /// All of them, to be closed. From now on none is kept.
    pub(crate) fn close(&self) -> Vec<C> {
        self.lock().take().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<C>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
