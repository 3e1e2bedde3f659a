//! The causes behind failures of a backend.

/// The backend's own error, kept as the source of the framework's.
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
/// [`ReadModelError`](crate::ReadModelError) and [`SnapshotError`](crate::SnapshotError); engines stop when they meet it.
#[derive(Debug, thiserror::Error)]
#[error("the store is no longer where it was opened")]
pub struct StoreMoved(#[source] pub BoxError);

impl StoreMoved {
    /// Whether `cause` says so.
    pub fn is_in(cause: &BoxError) -> bool {
        cause.is::<Self>()
    }
}
