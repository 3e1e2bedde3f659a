//! An error that ends a reader once the events before it are handed on.

use std::time::{Duration, Instant};

use es_core::backend::SourceError;

/// How long the events before it may take to be handed on.
const LIMIT: Duration = Duration::from_secs(5);

/// Why a record cannot be had, as long as its reader has not been given what comes before it.
#[derive(Debug, Default)]
pub(crate) struct Postponed(Option<(SourceError, Instant)>);

impl Postponed {
    /// Keeps `error`, unless there is one already.
    pub(crate) fn keep(&mut self, error: SourceError) {
        self.0.get_or_insert_with(|| (error, Instant::now()));
    }

    /// Whether there is one.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Goes on unless an error is kept, and all before it was handed on, or has had its time.
    ///
    /// # Errors
    /// That one.
    pub(crate) fn due(&mut self, handed_on: bool) -> Result<(), SourceError> {
        let due = self.0.take_if(|(_, since)| handed_on || since.elapsed() >= LIMIT);
        due.map_or(Ok(()), |(error, _)| Err(error))
    }
}
