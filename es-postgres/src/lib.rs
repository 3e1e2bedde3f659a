//! The event store, snapshots and read models on Postgres 15 or newer.
//!
//! ```no_run
//! # async fn example(url: &str) -> Result<(), Box<dyn std::error::Error>> {
//! use es_postgres::PostgresStore;
//!
//! let store = PostgresStore::connect(url).await?;
//! // … hand clones of it to repositories, projectors and queries …
//! store.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! One [`PostgresStore`] implements [`EventStore`](es_core::EventStore),
//! [`SnapshotStore`](es_core::backend::SnapshotStore), [`AggregateStore`](es_core::backend::AggregateStore) and
//! [`ReadModelStore`](es_core::backend::ReadModelStore) in one schema of one database. Appends of a process go through one writer, which sends whatever has
//! queued as one statement (group commit); the server lets one such statement at a time into the
//! schema (the append lock), which makes positions dense and equal to commit order.
//!
//! SQL users find the log in the view `event_log` and the read models in the view `read_models` of
//! the store's schema.

mod connect;
mod connections;
mod error;
mod guard;
mod options;
mod schema;
mod session;
mod store;
mod transaction;

mod write;
mod read;
mod import;
mod read_models;
mod tables;
mod inspect;

pub use connect::ConnectError;
pub use error::{CloseError, InlineModelsMissed, OutcomeUnknown, SchemaMoved, StaleSnapshot, UnexpectedAnswer};
pub use import::{Import, ImportError, ImportFailure, ImportProgress, Imported};
pub use options::PostgresOptions;
pub use store::PostgresStore;
pub use tables::{PgReading, PgTables};

#[doc = include_str!("../README.md")]
pub mod operations {}
