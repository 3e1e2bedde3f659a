//! From the log to further commands.

pub mod policy;
