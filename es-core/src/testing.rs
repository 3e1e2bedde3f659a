//! Tests without a database, and the conformance suites that every backend passes.
//!
//! - [`given`] for aggregates, [`project`] for projections;
//! - [`event_store_suite!`](crate::event_store_suite), [`snapshot_store_suite!`](crate::snapshot_store_suite) and
//!   [`read_model_store_suite!`](crate::read_model_store_suite), one for each port;
//! - [`engine_suite!`](crate::engine_suite) for the engines on a store that implements all three;
//! - [`checker`], which lets random clients loose on an event store and checks every promise afterwards.

pub mod account;
mod aggregates;
pub mod booking;
pub mod checker;
pub mod engines_codec;
pub mod engines_decide;
pub mod engines_evolve;
pub mod engines_execute;
pub mod engines_project;
pub mod engines_stop;
pub mod event_store;
pub mod event_store_boundary;
pub mod event_store_input;
pub mod event_store_together;
mod projections;
pub mod read_model_store;
pub mod snapshot_store;

pub use aggregates::{Given, Outcome, given};
pub use projections::{project, recorded};

/// Turns the functions of a suite into tests.
#[doc(hidden)]
#[macro_export]
macro_rules! __suite {
    ($suite:ident, $make:expr, $($claim:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                $crate::testing::$suite::$claim(&($make).await).await;
            }
        )*
    };
}
