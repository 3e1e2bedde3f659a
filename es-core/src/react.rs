//! From the log, and from other systems, to further commands.

pub mod consumer;
mod inbox;
pub mod policy;
