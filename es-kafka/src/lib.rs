#![doc = include_str!("../README.md")]

// What stands in Kafka.
mod offsets;
mod progress;
mod record;
mod settings;
mod topics;

// How it is reached.
mod client;
mod config;
mod follower;
mod refusal;

// To Kafka, and from it.
mod relay;
mod source;

// Both, for a service.
mod service;

pub use client::Settings;
#[doc(hidden)]
pub use config::Step;
pub use config::{KafkaSourceConfig, RelayConfig};
pub use offsets::{Offsets, PerPartition};
pub use progress::Progress;
pub use record::{decode, headers};
pub use relay::{Relay, RelayError};
pub use service::KafkaRelay;
pub use source::KafkaSource;
pub use topics::Topics;
