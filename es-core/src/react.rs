//! From the log, and from other systems, to further commands.

pub mod commands;
pub mod consumer;
pub mod policy;
pub mod saga;
pub mod schedule;
