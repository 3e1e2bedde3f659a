//! Event store, snapshots and read models on one embedded SQLite file.
//!
//! [`SqliteStore`] implements all storage ports of `es_core`. The file may be shared by several
//! processes of one machine; readers never wait for writers.
//!
//! In SQL, the log is the view `event_log`, its tags are in the table `event_tags`, and the documents of read models are
//! in the view `read_models`. Triggers keep every program from changing the log.
//!
//! ```
//! use es_core::{Append, EventData, EventStore, Expected, NewEvent, Position, StreamId};
//! use es_sqlite::SqliteStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = tempfile::tempdir()?;
//! # let path = directory.path().join("events.db");
//! let store = SqliteStore::open(path).await?;
//!
//! let data = EventData { name: "order.placed".into(), schema_version: 1, payload: r#"{"total":"9.99"}"#.into() };
//! let stream = StreamId::new("order", "ORD-1")?;
//! let appended = store.append(Append::new(stream, Expected::NoStream, vec![NewEvent::new(data)])).await?;
//! assert_eq!(appended.position, Position::new(1));
//!
//! store.close().await?;
//! # Ok(())
//! # }
//! ```

#![expect(clippy::doc_markdown, reason = "SQLite is a name, not code")]

// The open file.
mod connections;
mod file;
mod identity;
mod idle;
mod in_place;
mod options;
mod store;

// The way of an append: queue, writer, end, optimistic, batch, verdict, insert, and inline where read models are folded with it.
mod batch;
mod end;
mod inline;
mod insert;
mod optimistic;
mod packed;
mod queue;
mod verdict;
mod writer;

// What is read of the log, and snapshots.
mod log;
mod rows;
mod snapshots;

// Read models.
mod documents;
mod fields;
mod generations;
mod holders;
mod inbox;
mod leases;
mod letters;
mod operations;
mod presence;
mod read_models;
mod tables;

// What operators see.
mod inspect;

mod error;

pub use error::{CloseError, OpenError};
pub use identity::FileReplaced;
pub use options::SqliteOptions;
pub use store::SqliteStore;
pub use tables::{SqliteReading, SqliteTables};
