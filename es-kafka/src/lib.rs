#![doc = include_str!("../README.md")]

// What stands in Kafka, and beside it.
mod claim;
mod claim_check;
mod headers;
mod offsets;
mod partitioner;
mod payloads;
mod progress;
mod record;
mod routes;
mod topic_settings;
mod topics;
mod weight;

// How it is reached.
mod aside;
mod client;
mod config;
mod follower;
mod refusal;
mod undecided;

// To Kafka, and from it.
mod relay;
mod source;

// From topics that others fill.
mod foreign;

// To aggregates of other services, and from other services to those of this one.
mod commands;

// Both, for a service.
mod service;

// What operators ask.
mod dead_letter_topic;
mod reconcile;
mod status;
mod topic_status;

pub use claim_check::{ClaimCheck, ClaimError};
pub use client::{InvalidSettings, Settings, UnusableSettings};
pub use commands::{KafkaCommandError, KafkaCommandTopic, KafkaCommands, RemoteCommands};
#[doc(hidden)]
pub use config::Step;
pub use config::{KafkaSourceConfig, RelayConfig};
pub use dead_letter_topic::{DeadLetterError, DeadLetterTopic, DeadRecord, DeadRecordFilter, ReplayTo};
pub use foreign::{KafkaTopic, RecordField, TopicStart};
pub use offsets::{Offsets, PerPartition};
pub use payloads::decode;
pub use progress::Progress;
pub use reconcile::{ComparedObjects, Cursor, Reconcile, ReconcileError, Reconciled, Violation};
pub use record::headers;
pub use relay::{Relay, RelayError, SizeLimit};
pub use routes::{InvalidRoute, Route, Routes};
pub use service::KafkaRelay;
pub use source::KafkaSource;
pub use status::{RelayStatus, StatusError};
pub use topic_settings::TopicSettings;
pub use topic_status::TopicStatus;
pub use topics::Topics;
