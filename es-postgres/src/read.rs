//! From the log to what is asked for.

mod copied;
pub(crate) mod log;
pub(crate) mod head;
pub(crate) mod loader;
pub(crate) mod matching;
pub(crate) mod snapshots;
pub(crate) mod sealed;
pub(crate) mod shared;
pub(crate) mod sizes;
