#![doc = include_str!("../README.md")]

// What stands in Kafka.
mod offsets;
mod progress;
mod record;
mod settings;
mod topics;

// To Kafka: the relay, and what it is made of.
mod relay;

mod create;
mod failure;
mod orphan;
mod pace;
mod partitioner;
mod publisher;
mod refusal;
mod standby;
mod verify;

// From Kafka: the source, and its two ways of reading.
mod source;

mod begin;
mod group;
mod member;
mod merge;

mod feed;
mod follower;
mod horizon;
mod lane;
mod watchdog;

mod client;

pub use client::Settings;
pub use failure::RelayError;
pub use offsets::{Offsets, PerPartition};
pub use progress::Progress;
pub use record::{decode, headers};
#[doc(hidden)]
pub use relay::Step;
pub use relay::{Relay, RelayConfig};
pub use source::{KafkaSource, KafkaSourceConfig};
pub use topics::Topics;
