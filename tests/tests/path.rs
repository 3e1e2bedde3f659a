//! The whole path on real Postgres and real Kafka: orders go from HTTP to read models while the processes on the way are
//! killed.

#[path = "path/chaos.rs"]
mod chaos;
#[path = "path/clients.rs"]
mod clients;
#[path = "path/compare.rs"]
mod compare;
#[path = "path/ground.rs"]
mod ground;
#[path = "path/poison.rs"]
mod poison;
#[path = "path/provider.rs"]
mod provider;
#[path = "path/rebuild.rs"]
mod rebuild;
#[path = "path/table_consumer.rs"]
mod table_consumer;
#[path = "path/takeover.rs"]
mod takeover;
#[path = "path/traced.rs"]
mod traced;
#[path = "path/watched.rs"]
mod watched;
