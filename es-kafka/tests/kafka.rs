//! Claims about the relay and the source, against a real broker at `KAFKA_BROKERS`.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

#[path = "kafka/setup.rs"]
mod setup;

#[path = "kafka/raw.rs"]
mod raw;

#[path = "kafka/relay.rs"]
mod relay;

#[path = "kafka/standby.rs"]
mod standby;

#[path = "kafka/refusals.rs"]
mod refusals;

#[path = "kafka/reader.rs"]
mod reader;

#[path = "kafka/merge.rs"]
mod merge;

#[path = "kafka/group.rs"]
mod group;

#[path = "kafka/guard.rs"]
mod guard;

#[path = "kafka/parts.rs"]
mod parts;

#[path = "kafka/integrity.rs"]
mod integrity;

#[path = "kafka/building.rs"]
mod building;

#[path = "kafka/denied.rs"]
mod denied;

#[path = "kafka/wire.rs"]
mod wire;

#[path = "kafka/reconcile.rs"]
mod reconcile;

#[path = "kafka/status.rs"]
mod status;

#[path = "kafka/memory.rs"]
mod memory;

#[path = "kafka/group_offsets.rs"]
mod group_offsets;

#[path = "kafka/foreign.rs"]
mod foreign;

#[path = "kafka/commands.rs"]
mod commands;

#[path = "kafka/topics.rs"]
mod topics;

#[path = "kafka/protocol.rs"]
mod protocol;

#[path = "kafka/storage.rs"]
mod storage;

#[path = "kafka/claim_check.rs"]
mod claim_check;

#[path = "kafka/claimed.rs"]
mod claimed;

#[path = "kafka/routes.rs"]
mod routes;
