//! Conformance suites for stores: every backend of Evenfold passes them, and you can run them on a store of your own.
//!
//! - [`event_store_suite!`], [`snapshot_store_suite!`] and [`read_model_store_suite!`], one for each port,
//!   and [`inspect_suite!`] for what operators see;
//! - [`engine_suite!`] for the engines on a store that implements all three, [`service_suite!`] for services on it;
//! - [`table_suite!`] for table projections on an SQL store;
//! - `wire` (feature `wire`): a wire to a server that a test can cut;
//! - [`checker`], which runs random clients against an event store and checks every promise afterwards.
//!
//! An application tests its aggregates and projections with `es_core::testing`, which needs none of this.

pub mod booking;
pub mod checker;
pub mod suites;
#[cfg(feature = "wire")]
pub mod wire;

/// Turns the functions of a suite into tests.
#[doc(hidden)]
#[macro_export]
macro_rules! __suite {
    ($suite:ident, $make:expr, $($claim:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                $crate::suites::$suite::$claim(&($make).await).await;
            }
        )*
    };
}
