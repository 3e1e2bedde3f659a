//! What engines and stores tell of themselves: metrics, through the facade of the crate `metrics`, and [spans].
//!
//! A program that installs a recorder gets the metrics; without one they cost next to nothing. Install it before the service is built:
//! handles are made when they are used first, and one that was made before there was a recorder stays silent.
//!
//! This is the only place where a metric has a name. Labels are names of the program (aggregates, readers, event types), never
//! ids: their number is bounded.

mod appends;
mod commands;
mod loads;
mod readers;
mod relays;
pub(crate) mod sagas;
pub mod spans;
#[cfg(test)]
mod tests;

use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, Key, Label, Level, Metadata, SharedString, Unit, describe_counter, describe_gauge,
    describe_histogram, with_recorder,
};

pub use self::{appends::AppendMeter, loads::LoadMeter, relays::RelayMeter};
pub(crate) use self::{
    commands::{CommandMeter, DecisionMeter},
    readers::{HeldLease, ReaderMeter},
};

/// A metric: its name, what it counts, and its labels in order.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name, as Prometheus has it.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// In what it counts.
    pub unit: Unit,
    /// What tells its time series apart.
    pub labels: &'static [&'static str],
    /// What it says.
    pub description: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows.
    Counter,
    /// A number as it is now.
    Gauge,
    /// How often a number was in which range.
    Histogram,
}

use Kind::{Counter as C, Gauge as G, Histogram as H};

/// How long commands took, conflicts and loads included.
pub const EXECUTE_DURATION: Metric = Metric::new(
    "execute_duration_seconds",
    (H, Unit::Seconds),
    &["aggregate", "outcome"],
    "How long commands took, from the call to the receipt",
);
/// How often a command was decided again because another one was faster.
pub const EXECUTE_CONFLICTS: Metric = Metric::new(
    "execute_conflicts_total",
    (C, Unit::Count),
    &["aggregate"],
    "How often a command was decided again because another one was faster",
);
/// States on which commands were decided.
pub const EXECUTE_STATES: Metric = Metric::new(
    "execute_states_total",
    (C, Unit::Count),
    &["aggregate", "origin"],
    "States on which commands were decided: known already (the cache) or read from the store",
);
/// How long decisions across streams took.
pub const DECIDE_DURATION: Metric = Metric::new(
    "decide_duration_seconds",
    (H, Unit::Seconds),
    &["decision", "outcome"],
    "How long decisions on events of several streams took, from the call to the receipt",
);
/// How long appends took.
pub const APPEND_DURATION: Metric = Metric::new(
    "append_duration_seconds",
    (H, Unit::Seconds),
    &["outcome"],
    "How long appends took, from the call until they were durable or refused",
);
/// The queue of a store's writer.
pub const APPEND_QUEUE: Metric = Metric::new(
    "append_queue_depth",
    (G, Unit::Count),
    &[],
    "Appends whose outcome is awaited: they wait for room, are in the queue of the writer, or are being written",
);
/// How large commits are.
pub const APPEND_BATCH: Metric =
    Metric::new("append_batch_events", (H, Unit::Count), &[], "How many events were written with one commit");
/// The queue of loads that share a statement.
pub const LOAD_QUEUE: Metric = Metric::new(
    "load_queue_depth",
    (G, Unit::Count),
    &[],
    "Loads of aggregates, and reads of decisions, that wait for a statement which they share with others",
);
/// What readers have processed.
pub const EVENTS_PROCESSED: Metric = Metric::new(
    "events_processed_total",
    (C, Unit::Count),
    &["consumer", "event_type", "status"],
    "Events that a projection or a policy has committed (ok), or at which an attempt ended (failed)",
);
/// How long that took.
pub const EVENT_DURATION: Metric = Metric::new(
    "event_processing_duration_seconds",
    (H, Unit::Seconds),
    &["consumer"],
    "How long an event took until it was committed; events that commit together share the time equally",
);
/// What readers met.
pub const READER_ERRORS: Metric = Metric::new(
    "reader_errors_total",
    (C, Unit::Count),
    &["consumer", "kind"],
    "Errors of projections and policies: transient ones are waited out, permanent ones end the reader",
);
/// The leases of this process.
pub const LEASES_HELD: Metric = Metric::new(
    "reader_leases_held",
    (G, Unit::Count),
    &["consumer"],
    "Shards of which this process holds the lease: of all processes together, one for each shard",
);
/// Leases that others have taken.
pub const LEASES_LOST: Metric = Metric::new(
    "reader_leases_lost_total",
    (C, Unit::Count),
    &["consumer"],
    "Leases that were lost to another process while this one held them",
);
/// Events that readers could not handle.
pub const LETTERS_ADDED: Metric = Metric::new(
    "reader_dead_letters_added_total",
    (C, Unit::Count),
    &["consumer"],
    "Events that a projection or a policy has put into its dead letters, once for each key",
);
/// Events that readers have handed to their sources.
pub const FORWARDED: Metric = Metric::new(
    "reader_forwarded_total",
    (C, Unit::Count),
    &["consumer", "to", "class"],
    "Messages that a consumer could not handle and has forwarded, to a retry topic or to the dead-letter topic",
);
/// What waits in dead-letter topics.
pub const DEAD_TOPIC_RECORDS: Metric = Metric::new(
    "reader_dead_letter_topic_records",
    (G, Unit::Count),
    &["consumer"],
    "Records of a consumer that wait for an operator in the dead-letter topic, whichever process has forwarded them",
);
/// How long that has waited.
pub const DEAD_TOPIC_AGE: Metric = Metric::new(
    "reader_dead_letter_topic_age_seconds",
    (G, Unit::Seconds),
    &["consumer"],
    "How long ago the first of the records failed that wait in the dead-letter topic; 0 where none waits",
);
/// The dead letters that are there.
pub const DEAD_LETTERS: Metric = Metric::new(
    "reader_dead_letters",
    (G, Unit::Count),
    &["consumer"],
    "Dead letters of a projection or a policy that wait for an operator, in whichever process",
);
/// The keys that wait.
pub const PARKED_KEYS: Metric = Metric::new(
    "reader_parked_keys",
    (G, Unit::Count),
    &["consumer"],
    "Parked keys of a projection or a policy: their events go to the dead letters, in whichever process",
);
/// The end of the log.
pub const LOG_HEAD: Metric =
    Metric::new("log_head_position", (G, Unit::Count), &[], "The position of the last event of the log");
/// How far a reader is.
pub const READER_POSITION: Metric = Metric::new(
    "reader_position",
    (G, Unit::Count),
    &["consumer"],
    "Up to which position a projection, a policy or the relay has everything, in whichever process",
);
/// By how much it lags.
pub const LAG_EVENTS: Metric = Metric::new(
    "reader_lag_events",
    (G, Unit::Count),
    &["consumer"],
    "By how many events a projection, a policy or the relay lags behind the log, in any process",
);
/// For how long it lags.
pub const LAG_SECONDS: Metric = Metric::new(
    "reader_lag_seconds",
    (G, Unit::Seconds),
    &["consumer"],
    "How old the first event is that a projection, a policy or the relay has not passed; 0 where it has all",
);
/// Whether a part works.
pub const PART_RUNNING: Metric = Metric::new(
    "part_running",
    (G, Unit::Count),
    &["part"],
    "1 while a part of the service runs in this process, 0 while it stands by, pauses after an error, or has stopped",
);
/// How often a part was started again.
pub const PART_RESTARTS: Metric = Metric::new(
    "part_restarts_total",
    (C, Unit::Count),
    &["part"],
    "How often a part of the service was started again after an error",
);
/// What the relay has published.
pub const RELAY_EVENTS: Metric =
    Metric::new("relay_published_events_total", (C, Unit::Count), &["relay"], "Events that the relay has published");
/// How long its transactions took.
pub const RELAY_DURATION: Metric = Metric::new(
    "relay_transaction_duration_seconds",
    (H, Unit::Seconds),
    &["relay", "outcome"],
    "How long transactions of the relay took",
);
/// What it met.
pub const RELAY_ERRORS: Metric = Metric::new(
    "relay_errors_total",
    (C, Unit::Count),
    &["relay", "kind"],
    "Errors of the relay: transient ones are waited out, at permanent ones it stops",
);
/// How the instances of a saga are.
pub const SAGA_INSTANCES: Metric = Metric::new(
    "saga_instances",
    (G, Unit::Count),
    &["saga", "state"],
    "Instances of a saga that have not ended, in whichever process they are performed",
);
/// How long actions took.
pub const SAGA_ACTION_DURATION: Metric = Metric::new(
    "saga_action_duration_seconds",
    (H, Unit::Seconds),
    &["saga", "outcome"],
    "How long attempts at actions of a saga took",
);
/// How late timers are.
pub const SAGA_TIMER_DELAY: Metric = Metric::new(
    "saga_timer_delay_seconds",
    (H, Unit::Seconds),
    &["saga"],
    "How much later than its time a timer of a saga was found, by the clock of the store",
);

/// All of them.
pub const ALL: &[Metric] = &[
    EXECUTE_DURATION,
    EXECUTE_CONFLICTS,
    EXECUTE_STATES,
    DECIDE_DURATION,
    APPEND_DURATION,
    APPEND_QUEUE,
    APPEND_BATCH,
    LOAD_QUEUE,
    EVENTS_PROCESSED,
    EVENT_DURATION,
    READER_ERRORS,
    LEASES_HELD,
    LEASES_LOST,
    LETTERS_ADDED,
    FORWARDED,
    DEAD_TOPIC_RECORDS,
    DEAD_TOPIC_AGE,
    DEAD_LETTERS,
    PARKED_KEYS,
    LOG_HEAD,
    READER_POSITION,
    LAG_EVENTS,
    LAG_SECONDS,
    PART_RUNNING,
    PART_RESTARTS,
    RELAY_EVENTS,
    RELAY_DURATION,
    RELAY_ERRORS,
    SAGA_INSTANCES,
    SAGA_ACTION_DURATION,
    SAGA_TIMER_DELAY,
];

/// Tells the recorder what the metrics are and in which units they count. Call it once, after the recorder was installed.
pub fn describe() {
    for Metric { name, kind, unit, description, .. } in ALL.iter().copied() {
        match kind {
            Kind::Counter => describe_counter!(name, unit, description),
            Kind::Gauge => describe_gauge!(name, unit, description),
            Kind::Histogram => describe_histogram!(name, unit, description),
        }
    }
}

static METADATA: Metadata<'_> = Metadata::new("evenfold", Level::INFO, None);

impl Metric {
    const fn new(
        name: &'static str,
        (kind, unit): (Kind, Unit),
        labels: &'static [&'static str],
        description: &'static str,
    ) -> Self {
        Self { name, kind, unit, labels, description }
    }

    fn key<const N: usize>(&self, values: [SharedString; N]) -> Key {
        debug_assert_eq!(values.len(), self.labels.len(), "{} has a value for each label", self.name);
        let labels = self.labels.iter().zip(values).map(|(label, value)| Label::new(*label, value));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }

    fn counter<const N: usize>(&self, values: [SharedString; N]) -> Counter {
        with_recorder(|recorder| recorder.register_counter(&self.key(values), &METADATA))
    }

    fn gauge<const N: usize>(&self, values: [SharedString; N]) -> Gauge {
        with_recorder(|recorder| recorder.register_gauge(&self.key(values), &METADATA))
    }

    fn histogram<const N: usize>(&self, values: [SharedString; N]) -> Histogram {
        with_recorder(|recorder| recorder.register_histogram(&self.key(values), &METADATA))
    }
}

/// The label of an error.
fn kind(is_transient: bool) -> SharedString {
    if is_transient { "transient".into() } else { "permanent".into() }
}

/// An attempt of the reader `consumer` has failed.
pub(crate) fn reader_failed(consumer: &str, is_transient: bool) {
    READER_ERRORS.counter([consumer.to_owned().into(), kind(is_transient)]).increment(1);
}

/// The reader `consumer` has forwarded an event.
pub(crate) fn forwarded(consumer: &str, to: &'static str, class: &'static str) {
    FORWARDED.counter([consumer.to_owned().into(), to.into(), class.into()]).increment(1);
}

/// In the dead-letter topic of the reader `consumer` wait so many records, the first of them for `oldest`.
pub fn dead_letter_topic(consumer: &str, records: usize, oldest: Option<Duration>) {
    let label = || [SharedString::from(consumer.to_owned())];
    DEAD_TOPIC_AGE.gauge(label()).set(oldest.unwrap_or_default().as_secs_f64());
    DEAD_TOPIC_RECORDS.gauge(label()).set(as_float(records as u64));
}

/// The part `name` is started again.
pub(crate) fn part_restarted(name: &str) {
    PART_RESTARTS.counter([name.to_owned().into()]).increment(1);
}

/// Whether the part `name` runs.
pub(crate) fn part_runs(name: &str, runs: bool) {
    PART_RUNNING.gauge([name.to_owned().into()]).set(if runs { 1.0 } else { 0.0 });
}

/// The log ends at `head`.
pub(crate) fn head(head: u64) {
    LOG_HEAD.gauge([]).set(as_float(head));
}

/// How far the part `name` is, and what it lacks.
pub(crate) fn lag(name: &str, position: u64, events: u64, seconds: f64) {
    let label = || [SharedString::from(name.to_owned())];
    READER_POSITION.gauge(label()).set(as_float(position));
    LAG_EVENTS.gauge(label()).set(as_float(events));
    LAG_SECONDS.gauge(label()).set(seconds);
}

/// What the reader `name` has parked.
pub(crate) fn parked(name: &str, keys: u64, letters: u64) {
    PARKED_KEYS.gauge([name.to_owned().into()]).set(as_float(keys));
    DEAD_LETTERS.gauge([name.to_owned().into()]).set(as_float(letters));
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float, exact up to 2^53")]
fn as_float(number: u64) -> f64 {
    number as f64
}
