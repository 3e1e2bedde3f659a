//! From a command to the log.

pub mod aggregate;
pub mod append;
pub mod rooms;
pub mod store;
pub mod snapshot;
pub mod execute;
pub mod decide;
#[cfg(test)]
pub(crate) mod scripted;
