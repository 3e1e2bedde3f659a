//! The causes of failures of a backend.
//!
//! An error that depends on more than its input (a store, a broker, the system, the time) has `is_transient()`: whether doing the
//! same again, unchanged, may help. An error about an input alone has none, because the same input is refused again.

/// The backend's own error, kept as the source of Evenfold's error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The text of `error` and of all its causes.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The store is no longer where it was opened, so waiting does not help: open it again. A backend puts it around its own
/// cause, into [`ReadError::Store`](crate::ReadError::Store), [`AppendError::Store`](crate::AppendError::Store),
/// [`ReadModelError`](crate::backend::ReadModelError) and [`SnapshotError`](crate::backend::SnapshotError); engines stop at it.
#[derive(Debug, thiserror::Error)]
#[error("the store is no longer where it was opened")]
pub struct StoreMoved(#[source] pub BoxError);

impl StoreMoved {
    /// Whether trying again with this store may help: it does not.
    pub fn is_transient(&self) -> bool {
        false
    }

    /// Whether `cause` is this error.
    pub fn is_in(cause: &BoxError) -> bool {
        cause.is::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ActError, AppendError, DecideError, EngineError, ExecuteError, LiveError, LoadError, QueryError, ReadError,
        WatchError,
        backend::{
            CommitError, CommitTablesError, CreateTablesError, EnsureError, PromoteError, ReadModelError,
            SnapshotError, SourceError, WriteError,
        },
        service::{RebuildError, StartError, Unsettled},
    };

    /// The `is_transient` of each error for the same failure of a store.
    fn transient(failure: fn() -> BoxError) -> Vec<bool> {
        type Execute = ExecuteError<std::fmt::Error>;
        type Decide = DecideError<std::fmt::Error>;
        let (read, model) = (|| ReadError::Store(failure()), || ReadModelError(failure()));
        vec![
            read().is_transient(),
            AppendError::Store(failure()).is_transient(),
            SnapshotError(failure()).is_transient(),
            LoadError::from(read()).is_transient(),
            LiveError::from(read()).is_transient(),
            Execute::from(LoadError::from(read())).is_transient(),
            Execute::from(AppendError::Store(failure())).is_transient(),
            Decide::from(read()).is_transient(),
            Decide::from(AppendError::Store(failure())).is_transient(),
            model().is_transient(),
            CommitError::from(model()).is_transient(),
            CommitTablesError::from(CommitError::from(model())).is_transient(),
            CreateTablesError::from(model()).is_transient(),
            EnsureError::from(model()).is_transient(),
            PromoteError::from(model()).is_transient(),
            EngineError::from(model()).is_transient(),
            EngineError::from(SourceError::from(read())).is_transient(),
            EngineError::Promote(model().into()).is_transient(),
            ActError::from(model()).is_transient(),
            RebuildError::from(EngineError::from(model())).is_transient(),
            QueryError::from(model()).is_transient(),
            WatchError::from(QueryError::from(model())).is_transient(),
            WatchError::from(read()).is_transient(),
            StartError::from(model()).is_transient(),
            Unsettled::from(read()).is_transient(),
            Unsettled::from(model()).is_transient(),
        ]
    }

    #[test]
    fn every_error_says_the_same_of_a_failure_of_the_store() {
        let lost = transient(|| "the connection was lost".into());
        assert_eq!(lost, vec![true; lost.len()]);
        let moved = transient(|| StoreMoved("gone".into()).into());
        assert_eq!(moved, vec![false; moved.len()]);
        assert!(!StoreMoved("gone".into()).is_transient());
    }

    #[test]
    fn tables_that_were_not_written_may_be_written_again_where_only_the_moment_was_wrong() {
        assert!(WriteError::Stopped.is_transient());
        assert!(CommitTablesError::from(WriteError::Stopped).is_transient());
        assert!(CreateTablesError::Gone.is_transient());
        assert!(!WriteError::Panicked.is_transient());
        assert!(!CommitTablesError::from(WriteError::Panicked).is_transient());
        assert!(!CreateTablesError::Forbidden("no".into()).is_transient());
    }
}
