//! Brokers of the tests' own, which are killed.

#[path = "chaos/cluster.rs"]
mod cluster;
