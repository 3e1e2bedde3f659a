//! The cause behind a failure of a backend.

/// The backend's own error, kept as the source of the framework's.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
