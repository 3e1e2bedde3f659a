//! From the log to a query.

pub mod field;
pub mod projection;
pub(crate) mod definition;
pub mod cursor;
pub mod read_model;
pub(crate) mod known_progress;
pub mod heartbeat;
pub mod source;
pub(crate) mod foreign;
pub(crate) mod inbox;
pub mod engine_error;
pub mod failure;
pub mod worker_state;
pub(crate) mod panics;
pub(crate) mod worker;
pub(crate) mod standby;
mod candidate;
pub(crate) mod touch;
pub mod inline;
pub mod projector;
pub mod rebuild;
pub mod refold;
pub(crate) mod reads;
pub mod query;
pub mod find;
pub mod live;
pub mod watch;
pub mod tables;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
pub(crate) mod scripted;
