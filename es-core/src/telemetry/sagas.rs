//! How sagas report what becomes of their instances.

use std::time::Duration;

use super::{SAGA_ACTION_DURATION, SAGA_INSTANCES, SAGA_TIMER_DELAY, as_float};

/// How many instances are in a state.
pub(crate) fn instances(saga: &str, state: &'static str, count: u64) {
    SAGA_INSTANCES.gauge([saga.to_owned().into(), state.into()]).set(as_float(count));
}

/// How an attempt at an action has ended, and how long it took.
pub(crate) fn attempted(saga: &'static str, outcome: &'static str, took: Duration) {
    SAGA_ACTION_DURATION.histogram([saga.into(), outcome.into()]).record(took);
}

/// How much later than its time a timer was found.
pub(crate) fn timer_found(saga: &'static str, late: Duration) {
    SAGA_TIMER_DELAY.histogram([saga.into()]).record(late);
}
