//! Event sourcing and CQRS for Rust: one dependency, one import.
//!
//! # A service from end to end
//!
//! An aggregate, a read model and HTTP on one `SQLite` file. `MemoryStore` takes the place of the file in tests,
//! `PostgresStore` in larger deployments; nothing else changes.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use axum::{Json, Router, extract::{Path, State}, http::StatusCode, routing::{get, post}};
//! use evenfold::{http::{CommandHeaders, ETag, Problem, ReadAfter, health_routes, serve}, prelude::*};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Clone, PartialEq, Event)]
//! #[event(category = "seat")]
//! enum SeatEvent {
//!     #[event(name = "seat.taken")]
//!     Taken { by: String },
//! }
//!
//! #[derive(Debug, PartialEq, thiserror::Error)]
//! #[error("the seat is taken")]
//! struct Occupied;
//!
//! #[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
//! struct Seat {
//!     taken: bool,
//! }
//!
//! impl Aggregate for Seat {
//!     type Command = String;
//!     type Event = SeatEvent;
//!     type Error = Occupied;
//!
//!     fn handle(&self, by: &String) -> Result<Vec<SeatEvent>, Occupied> {
//!         if self.taken { Err(Occupied) } else { Ok(vec![SeatEvent::Taken { by: by.clone() }]) }
//!     }
//!
//!     fn apply(&mut self, SeatEvent::Taken { .. }: &SeatEvent) {
//!         self.taken = true;
//!     }
//! }
//!
//! /// The seats of each person.
//! struct SeatsOf;
//!
//! impl Projection for SeatsOf {
//!     const NAME: &'static str = "seats-of";
//!     type Event = SeatEvent;
//!     type Document = Vec<String>;
//!
//!     fn keys(&self, event: &Recorded<SeatEvent>) -> Keys {
//!         let SeatEvent::Taken { by } = &event.data;
//!         Keys::one(by)
//!     }
//!
//!     fn fold(&self, seats: &mut Option<Vec<String>>, event: &Recorded<SeatEvent>) -> FoldResult {
//!         seats.get_or_insert_default().push(event.stream.id().to_owned());
//!         Ok(())
//!     }
//! }
//!
//! /// The application's own refusals as HTTP. All other errors are problems already, so `?` is enough.
//! impl From<Occupied> for Problem {
//!     fn from(refusal: Occupied) -> Self {
//!         Problem::new(StatusCode::CONFLICT, "urn:seats:occupied", "The seat is taken").detail(refusal.to_string())
//!     }
//! }
//!
//! async fn take(
//!     State(service): State<Service>,
//!     Path(seat): Path<String>,
//!     headers: CommandHeaders, // If-Match, Idempotency-Key, traceparent, X-Correlation-Id
//!     by: String,
//! ) -> Result<(ETag, Json<Receipt>), Problem> {
//!     let context = headers.context(Some(&by), by.as_bytes());
//!     let receipt = service.repository::<Seat>().execute_with(&seat, by, context).await?;
//!     Ok((ETag::from(receipt), Json(receipt)))
//! }
//!
//! async fn seats_of(
//!     State(service): State<Service>,
//!     Path(person): Path<String>,
//!     after: ReadAfter, // ?after=<token of a receipt>
//! ) -> Result<Json<Vec<String>>, Problem> {
//!     let seats = service.read_model::<SeatsOf>();
//!     after.wait(&seats, Duration::from_secs(5)).await?;
//!     Ok(Json(seats.get(&person).await?.unwrap_or_default()))
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let store = SqliteStore::open("seats.db").await?;
//!     let service = Service::builder("seats", store).aggregate::<Seat>().projection(SeatsOf).start().await?;
//!
//!     let routes = Router::new()
//!         .route("/seats/{seat}", post(take))
//!         .route("/people/{person}/seats", get(seats_of))
//!         .merge(health_routes(&service))
//!         .with_state(service.clone());
//!     let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//!     serve(&service, listener, routes).await?; // until SIGTERM or Ctrl-C; then both end in good order
//!     Ok(())
//! }
//! ```
//!
//! # Other dependencies
//!
//! | crate | for |
//! |---|---|
//! | `serde` 1 with `derive`, `tokio` 1 with `full`, `thiserror` 2 | every service |
//! | `axum` 0.8 | the feature `axum` |
//! | `clap` 4 with `derive` | the feature `cli` |
//! | `chrono` 0.4 with `serde` | documents and [fields](Field) that hold a `DateTime<Utc>`, such as [`Recorded::recorded_at`] |
//! | `sqlx` 0.9 with `runtime-tokio`, and `sqlite` or `postgres` | the SQL of a [`TableProjection`]; with another version it does not compile |
//! | `tracing-subscriber` | logs: what a 500 or 503 hides from clients goes to `tracing`, and without a subscriber it is lost |
//!
//! # Where to find what
//!
//! The [`prelude`] holds what nearly every application names. What is written less often is at the root of this crate, for example
//! `use evenfold::{CancellationToken, ServiceStore, reaction}`, or in a module:
//!
//! | module | has |
//! |---|---|
//! | [`service`] | [`Parts`](service::Parts), [`Thresholds`](service::Thresholds), and errors such as [`StartError`](service::StartError) and [`RebuildError`](service::RebuildError) |
//! | [`read::refold`] | [`Moment`](read::refold::Moment), [`WhatIf`](read::refold::WhatIf) |
//! | [`backend`] | [`BoxError`](backend::BoxError), and what stores are made of |
//! | `sqlite`, `postgres`, `kafka` (features) | the stores and the relay, with their options and errors |
//! | `http`, `cli`, `prometheus`, `testing` (features) | see below |
//!
//! | to | see |
//! |---|---|
//! | decide on commands | [`Aggregate`], [`Repository`] |
//! | decide on events of several aggregates | [`Decisions`], [`DecisionModel`] |
//! | change the shape of an event | [`Event`](derive@Event): `version`, `upcast` |
//! | keep read models | [`Projection`], [`ReadModel`] |
//! | have a write in a read model when it is acknowledged | [`ServiceBuilder::inline`] |
//! | fold a document when it is read, never behind | [`LiveProjection`], [`Live`] |
//! | keep a read model in SQL tables, and query them | [`TableProjection`], [`Tables`] |
//! | find documents by values, in pages, and count them | [`Field`], [`Projection::FIELDS`], [`ReadModel::find`] |
//! | see each change of a document, or of a range of keys | [`ReadModel::watch`], [`Since`]; as server-sent events: `http` |
//! | see a document as it was or would be | [`Service::as_of_named`], [`Service::what_if_named`] |
//! | fold a read model in several processes at once | [`Projector::shards`], by [`ServiceBuilder::projection_with`] |
//! | keep one bad event from holding up the others | [`FailurePolicy`], [`DeadLetters`], [`Operations`] |
//! | react to events | [`Policy`], [`reaction`] |
//! | handle messages of other systems | [`Consumer`], and `kafka::KafkaTopic` (feature `kafka`) |
//! | start, watch, rebuild, end | [`Service`]; [`Throttle`] keeps appends fast while a read model is rebuilt |
//! | serve HTTP | `http` (feature `axum`) |
//! | look into a store, verify and rebuild from a command line | `cli` (feature `cli`) |
//! | monitor | `prometheus` (feature `prometheus`): the route `/metrics`; [`telemetry`] lists the metrics |
//! | test | `testing` (feature `testing`): `given` for aggregates, `history` for decisions and policies, `project` for projections; a whole service on the store of a `TestClock`, with [`Service::settled`] |
//!
//! # When something is wrong
//!
//! | what | what you see | what to do |
//! |---|---|---|
//! | an event holds NaN, or another value that JSON would change | the command fails ([`EncodeError`]) and names event and field; nothing is written; 422 over HTTP | refuse the value before it gets into an event |
//! | a schema version has no upcaster | the program does not compile; the first error says why, and others say that the enum is no `Event` | add the upcaster |
//! | fields of an event changed and its `version` did not | stored events do not fit: commands on these aggregates fail (500), readers stop before the event, `/readyz` is 503 and names the position. A reader that has passed these events continues, `/readyz` stays 200, and the next rebuild fails | increase `version`, add an upcaster, deploy |
//! | the log holds an event that only newer code knows | readers stand by, `/readyz` stays 200 and says why; after 15 minutes they stop, and it is 503 | deploy the newer code |
//! | an idempotency key is used again with other content | [`AppendError::KeyReused`], 422; nothing is written | the client takes a new key |
//! | a policy's command is refused permanently, for example because a text in an event is no valid id | the policy stops before this event, `/readyz` is 503 and names it; the other parts continue | correct the policy and deploy; check ids before they get into events |
//! | an event cannot be folded, or a reaction panics | the reader stops before this event, `/readyz` is 503 and names it. With [`FailurePolicy::park`] only the document or stream waits: `/readyz` tells `parkedKeys` and `deadLetters` | mend the code or the letter, and ask for a retry |
//! | an inline read model cannot be folded with an event | [`AppendError::Unfoldable`], 409; nothing is written, and other commands go on | refuse the command, or mend the fold |
//! | an inline read model lacks events, since its projector has stopped or is late | [`AppendError::InlineBehind`], 503; nothing is written | skip the event, or pause the read model ([`Operations`]): then appends go on without it. If it is late, run its projector |
//! | `kill -9` | every acknowledged write is there after the restart; on `SQLite` readers continue within a second | nothing |
//! | the `SQLite` file is removed or replaced while it is open | reads and writes fail with [`FileReplaced`](sqlite::FileReplaced), 503, and so does `/readyz`; `serve` returns this error when the process is stopped | stop every process that has the file open; delete the files that end in `-wal` and `-shm`; restore the file; start the processes. **With an old `-wal` beside it the restored file is damaged**: see [`SqliteStore`](sqlite::SqliteStore#backups) |
//! | a fold was wrong | wrong documents | increase [`Projection::VERSION`], or [`Service::rebuild`] after the deploy |
//!
//! **Ids from clients.** An aggregate's id must not be empty or hold control characters, and the whole stream name has at
//! most 255 bytes ([`StreamId`]). This is checked for the aggregate that a command is for. It is not checked for an id in
//! a field of an event, which a policy may use as an id later and a projection as a key. Check it in the HTTP handler, for
//! example with [`StreamId::new`].
//!
//! A part that has stopped for good starts again when the process is started again.

// So that the paths of the derives are also right in this crate's own examples.
extern crate self as evenfold;

#[doc(no_inline)]
pub use async_trait::async_trait;
pub use es_core::*;
#[doc(no_inline)]
pub use tokio_util::sync::CancellationToken;

/// The store on one embedded file.
#[cfg(feature = "sqlite")]
pub mod sqlite {
    pub use es_sqlite::*;
}

/// The store on a Postgres server.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use es_postgres::*;
}

/// The relay to Kafka, and readers that follow it.
#[cfg(feature = "kafka")]
pub mod kafka {
    pub use es_kafka::*;
}

#[cfg(feature = "axum")]
pub mod http;

#[cfg(any(feature = "axum", feature = "cli"))]
mod stop;

#[cfg(feature = "cli")]
pub mod cli;

#[cfg(feature = "prometheus")]
pub mod prometheus;

pub mod prelude {
    //! What nearly every application names.

    #[doc(no_inline)]
    pub use async_trait::async_trait;
    pub use es_core::{
        Aggregate, CommandContext, Decision, DecisionModel, Decisions, Event, EventQuery, EventSet, Expected,
        FoldResult, IdempotencyKey, InvalidTag, Keys, MemoryStore, Policy, PolicyError, Projection, ReadModel, Receipt,
        Recorded, Repository, Service, StreamId, Tag,
    };
    #[cfg(feature = "kafka")]
    pub use es_kafka::KafkaRelay;
    #[cfg(feature = "postgres")]
    pub use es_postgres::PostgresStore;
    #[cfg(feature = "sqlite")]
    pub use es_sqlite::SqliteStore;
}
