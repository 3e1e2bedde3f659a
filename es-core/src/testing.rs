//! Tests without a database: [`given`] for aggregates, [`history`] for decisions over tags and for policies, [`project`] for
//! projections, [`given_saga`] for sagas. A whole service runs on the [`store`](TestClock::store) of a [`TestClock`].
//!
//! The suites that a backend has to pass are in the crate `es-testing`.

pub mod account;
mod aggregates;
mod clock;
mod decisions;
mod history;
mod policies;
mod projections;
mod sagas;
mod subscribed;
#[cfg(test)]
mod tests;

pub use aggregates::{Given, Outcome, given};
pub use clock::TestClock;
pub use decisions::Decided;
pub use history::{History, history, recorded};
pub use policies::{Reacted, Reacting};
pub use projections::{live_differences, project};
pub use sagas::{GivenSaga, SagaDifference, given_saga, replayed};
pub use subscribed::{Subscribed, subscribe};
