//! Tests without a database: [`given`] for aggregates, [`project`] for projections.
//!
//! The suites that a backend has to pass are in the crate `es-testing`.

pub mod account;
mod aggregates;
mod projections;

pub use aggregates::{Given, Outcome, given};
pub use projections::{project, recorded};
