//! HTTP for services built with axum (feature `axum`): what every command and query over HTTP needs. Routes, bodies and refusals
//! are the application's own.
//!
//! | HTTP | Evenfold |
//! |---|---|
//! | `If-Match: "3"`, `Idempotency-Key`, `traceparent`, `X-Correlation-Id` | [`CommandHeaders`], which makes a [`CommandContext`](crate::CommandContext) |
//! | `ETag: "3"` | [`ETag`], from a [`Receipt`](crate::Receipt) or a version |
//! | `?after=p17` | [`ReadAfter`], which waits until a read model holds that write |
//! | `application/problem+json` | [`Problem`], from every error of a command or query |
//! | a body in JSON, or none | [`JsonBody`], [`NoBody`], whose problems name the field |
//! | server-sent events, `Last-Event-ID` | a [`Watch`](crate::Watch): see [below](#changes-as-server-sent-events) |
//! | SIGTERM, Ctrl-C | [`serve`], which answers what has begun and ends the [`Service`](crate::Service) |
//! | `GET /healthz`, `/readyz` | [`health_routes`], from the health of a [`Service`](crate::Service) |
//!
//! It works with axum 0.8. What axum's own extractors refuse (`Json`, `Path`, `Query`) is answered by axum as plain text.
//!
//! # Which error gets which status
//!
//! | error | status |
//! |---|---|
//! | the aggregate or the decision refuses | what the application's `From<…> for Problem` says |
//! | a header, a parameter or a body in JSON cannot be read; an id cannot name a stream; a stream has no such version; a decision gets `If-Match` | 400 |
//! | a decision meets a stream that is not as it expects | 409 |
//! | `If-Match` names another version | 412 |
//! | the read model was replaced after the page before; a watch cannot go on where it was: begin with the current state | 410 |
//! | a body is too large; a body is not JSON | 413; 415 |
//! | a body in JSON has not the fields that the request needs; the key belongs to another request; an append exceeds a limit; an event would be read back as another one (NaN, for example); a tag rule of an event makes no valid tag | 422 |
//! | the store is closed or fails, other commands were faster each time, a read model lags, is being built, or has another version, such as an older one without the field of a search | 503, with the causes of the store's failure in the log |
//! | anything else, for example a stored event that cannot be read | 500, with the causes in the log |
//!
//! The log is `tracing`: without a subscriber in the program the causes are lost. Other errors, such as
//! [`RebuildError`](crate::service::RebuildError), are converted with [`Problem::failed`] or [`Problem::unavailable`].
//!
//! ```
//! use axum::{Json, extract::{Path, State}, http::StatusCode, response::IntoResponse};
//! use evenfold::{http::{CommandHeaders, ETag, Problem, ReadAfter}, prelude::*};
//! # use serde::{Deserialize, Serialize};
//! # #[derive(Debug, Clone, PartialEq, Event)]
//! # #[event(category = "seat")]
//! # enum SeatEvent { #[event(name = "seat.taken")] Taken { by: String } }
//! # #[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
//! # struct Seat { taken_by: Option<String> }
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("the seat is taken")]
//! struct Occupied;
//!
//! // The application converts its own refusals; all other errors are converted by Evenfold.
//! impl From<Occupied> for Problem {
//!     fn from(refusal: Occupied) -> Self {
//!         Problem::new(StatusCode::CONFLICT, "urn:seats:occupied", "The seat is taken").detail(refusal.to_string())
//!     }
//! }
//! # impl Aggregate for Seat {
//! #     type Command = String;
//! #     type Event = SeatEvent;
//! #     type Error = Occupied;
//! #     fn handle(&self, by: &String) -> Result<Vec<SeatEvent>, Occupied> {
//! #         if self.taken_by.is_some() { Err(Occupied) } else { Ok(vec![SeatEvent::Taken { by: by.clone() }]) }
//! #     }
//! #     fn apply(&mut self, event: &SeatEvent) {
//! #         let SeatEvent::Taken { by } = event;
//! #         self.taken_by = Some(by.clone());
//! #     }
//! # }
//!
//! async fn take(
//!     State(seats): State<Repository<Seat>>,
//!     Path(seat): Path<String>,
//!     headers: CommandHeaders,
//!     by: String,
//! ) -> Result<impl IntoResponse, Problem> {
//!     let context = headers.context(Some(&by), by.as_bytes());
//!     let receipt = seats.execute_with(&seat, by, context).await?;
//!     Ok((ETag::from(receipt), Json(receipt)))
//! }
//! # let _: axum::Router = axum::Router::new().route("/seats/{seat}", axum::routing::post(take)).with_state(Repository::new(MemoryStore::new()));
//! ```
//!
//! # Changes as server-sent events
//!
//! A [`Watch`](crate::Watch) becomes a stream, and the token of each change its id. A browser that connects again sends the last id, and
//! gets what has changed since. Changes without a token, in the middle of the current state of a range, have no id.
//!
//! ```
//! use std::convert::Infallible;
//!
//! use axum::{extract::{Path, State}, http::{HeaderMap, StatusCode}, response::sse::{Event, KeepAlive, Sse}};
//! use evenfold::{ChangeToken, KeyRange, Since, Watch, http::Problem, prelude::*};
//! use futures_util::stream::{Stream, unfold};
//! # use evenfold::testing::account::Histories;
//!
//! /// The documents whose keys begin with `prefix`, and each change of them.
//! async fn changes(
//!     State(service): State<Service>,
//!     Path(prefix): Path<String>,
//!     headers: HeaderMap,
//! ) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
//!     let since = match headers.get("last-event-id") {
//!         None => Since::Now,
//!         Some(id) => match id.to_str().ok().and_then(|id| id.parse::<ChangeToken>().ok()) {
//!             Some(token) => token.into(),
//!             None => return Err(Problem::new(StatusCode::BAD_REQUEST, "about:blank", "Last-Event-ID is no token")),
//!         },
//!     };
//!     let watch = service.read_model::<Histories>().watch_range(KeyRange::prefix(prefix), since)?; // or `watch(key, since)`
//!     Ok(Sse::new(unfold(Some(watch), next)).keep_alive(KeepAlive::default()))
//! }
//!
//! /// The next event, and the watch if it goes on.
//! async fn next(watch: Option<Watch<Histories>>) -> Option<(Result<Event, Infallible>, Option<Watch<Histories>>)> {
//!     let mut watch = watch?;
//!     let Ok(change) = watch.next().await else {
//!         // Another generation, for example. An empty id makes the browser forget the last one: it begins with the current state.
//!         return Some((Ok(Event::default().event("ended").id("").data("")), None));
//!     };
//!     let event = Event::default().event("change").json_data((change.key, change.document)).expect("documents are JSON");
//!     let event = match change.token {
//!         Some(token) => event.id(token.to_string()),
//!         None => event,
//!     };
//!     Some((Ok(event), Some(watch)))
//! }
//! # let _: axum::Router<Service> = axum::Router::new().route("/changes/{prefix}", axum::routing::get(changes));
//! ```
//!
//! An open stream holds up the end of [`serve`] for six seconds.
//!
//! # Tests over HTTP
//!
//! A router answers requests without a server: put it together in a function, and call `oneshot` of the crate `tower` (feature
//! `util`) on it.
//!
//! ```
//! use axum::{Router, body::Body, http::{Request, StatusCode}};
//! use evenfold::{http::health_routes, prelude::*};
//! use tower::ServiceExt;
//!
//! fn routes(service: &Service) -> Router {
//!     Router::new().merge(health_routes(service)) // and those of the application
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = Service::builder("seats", MemoryStore::new()).start().await?;
//! let answer = routes(&service).oneshot(Request::get("/readyz").body(Body::empty())?).await?;
//! assert_eq!(answer.status(), StatusCode::OK);
//! # Ok(())
//! # }
//! ```

mod body;
mod command;
mod errors;
mod etag;
mod health;
mod problem;
mod read_after;
mod serve;
mod trace;

pub use crate::stop::stop_signal;
pub use body::{JsonBody, NoBody};
pub use command::CommandHeaders;
pub use etag::ETag;
pub use health::health_routes;
pub use problem::{FieldError, Problem};
pub use read_after::ReadAfter;
pub use serve::{ServeError, serve, serve_until};
pub use trace::trace_request;
