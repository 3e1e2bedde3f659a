//! The causes of failures of a backend.
//!
//! An error that depends on more than its input (a store, a broker, the system, the time) has `is_transient()`: whether doing the
//! same again, unchanged, may help. An error about an input alone has none, because the same input is refused again.

/// The backend's own error, kept as the source of Evenfold's error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The text of `error` and of all its causes, each of them once: errors of other crates often end with the text of their cause, and
/// have it as their source too.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut outer = error.to_string();
    let mut text = outer.clone();
    let mut next = error.source();
    while let Some(cause) = next {
        let inner = cause.to_string();
        let is_told = outer.strip_suffix(&inner).is_some_and(|before| before.is_empty() || before.ends_with(": "));
        if !is_told {
            text.push_str(": ");
            text.push_str(&inner);
        }
        (outer, next) = (inner, cause.source());
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

    /// An error as those of other crates: with its cause in its text or without, and as its source.
    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        #[source]
        cause: Option<Box<Self>>,
    }

    /// It would fail where each text was added: "connect: refused: refused".
    #[test]
    fn a_cause_that_the_error_around_it_tells_is_told_once() {
        for (texts, told) in [
            (&["cannot open", "connect: refused", "refused"][..], "cannot open: connect: refused"),
            (&["refused", "refused", "by a rule"], "refused: by a rule"),
            (&["cannot connect", "no route"], "cannot connect: no route"),
            (&["it is unknown", "known"], "it is unknown: known"),
            (&["connect: refused", "refused", "no: refused"], "connect: refused: no: refused"),
        ] {
            let layers = texts.iter().rev().fold(None, |cause, text| Some(Box::new(Layer { text, cause })));
            assert_eq!(with_causes(&*layers.expect("a layer")), told);
        }
    }

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
