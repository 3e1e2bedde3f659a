//! What a service on a store in memory reports.

use std::{collections::BTreeMap, time::Duration};

use metrics::Key;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use uuid::Uuid;

use super::{ALL, Kind, LoadMeter, METADATA, ReaderMeter, RelayMeter, describe, part_restarted};
use crate::{
    event::{EventData, NewEvent},
    memory::MemoryStore,
    service::{PartState, Service},
    stream::{Expected, StreamId},
    tag::EventQuery,
    testing::account::{Account, AccountCommand, AccountEvent, Histories, Ledger},
    testing::recorded,
    write::{
        append::{Append, IdempotencyKey},
        decide::{Decision, Decisions, Matching},
        execute::CommandContext,
        store::EventStore,
    },
};

const PATIENCE: Duration = Duration::from_secs(30);

/// What was reported: `name{value of each label}` and how much, for a histogram how often.
struct Reported(BTreeMap<String, f64>);

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn reported(snapshotter: &Snapshotter) -> Reported {
    let all = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let key = key.key();
        let metric = ALL.iter().find(|metric| metric.name == key.name()).expect("it is declared");
        assert!(key.labels().map(metrics::Label::key).eq(metric.labels.iter().copied()), "{key}");
        let labels: Vec<_> = key.labels().map(metrics::Label::value).collect();
        let (kind, number) = match value {
            DebugValue::Counter(count) => (Kind::Counter, count as f64),
            DebugValue::Gauge(value) => (Kind::Gauge, value.0),
            DebugValue::Histogram(values) => {
                assert!(values.iter().all(|value| *value >= 0.0.into()), "{key}");
                (Kind::Histogram, values.len() as f64)
            }
        };
        assert_eq!(kind, metric.kind, "{key}");
        (format!("{}{{{}}}", metric.name, labels.join(",")), number)
    });
    Reported(all.collect())
}

impl Reported {
    #[track_caller]
    fn assert(&self, name: &str, expected: f64) {
        let found = self.0.get(name).copied().unwrap_or_default();
        assert!((found - expected).abs() < f64::EPSILON, "{name} is {found} and not {expected} in {:#?}", self.0);
    }

    fn series(&self, name: &str) -> usize {
        self.0.keys().filter(|key| key.starts_with(&format!("{name}{{"))).count()
    }
}

async fn started(builder: crate::ServiceBuilder) -> Service {
    builder.aggregate::<Account>().start().await.expect("it starts")
}

#[tokio::test]
async fn commands_and_appends_are_reported_by_outcome() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let service = started(Service::builder("accounts", MemoryStore::new())).await;
    let accounts = service.repository::<Account>();
    let key = || IdempotencyKey::new("K-1").expect("a valid key");
    for _ in 0..2 {
        let context = CommandContext::default().idempotent(key(), b"7");
        accounts.execute_with("a", AccountCommand::Deposit(7), context).await.expect("executed");
    }
    accounts.execute("a", AccountCommand::Deposit(0)).await.expect("nothing to do");
    accounts.execute("a", AccountCommand::Withdraw(8)).await.expect_err("refused");
    accounts.execute("b", AccountCommand::Deposit(1)).await.expect("executed");
    // Another process goes on with the account.
    let event = NewEvent::of(&AccountEvent::Deposited { amount: 1 }).expect("a valid event");
    let stream = StreamId::new("account", "b").expect("a valid name");
    service.store().append(Append::new(stream, Expected::Any, vec![event])).await.expect("written");
    accounts.execute("b", AccountCommand::Deposit(1)).await.expect("executed");

    let reported = reported(&recorder.snapshotter());
    for (outcome, times) in [("written", 3.0), ("repeated", 1.0), ("nothing", 1.0), ("rejected", 1.0), ("failed", 0.0)]
    {
        reported.assert(&format!("execute_duration_seconds{{account,{outcome}}}"), times);
    }
    for (outcome, times) in [("written", 4.0), ("repeated", 1.0), ("conflict", 1.0), ("failed", 0.0)] {
        reported.assert(&format!("append_duration_seconds{{{outcome}}}"), times);
    }
    reported.assert("execute_conflicts_total{account}", 1.0);
    // Of `a`: the first one, the nothing after a repetition, and the refusal, before which it is read again. Of `b`: the
    // first one, and after the conflict.
    reported.assert("execute_states_total{account,read}", 5.0);
    reported.assert("execute_states_total{account,known}", 3.0);
    reported.assert("append_batch_events{}", 4.0);
    reported.assert("append_queue_depth{}", 0.0);
    service.shutdown(PATIENCE).await.expect("in good order");
}

#[tokio::test]
async fn loads_that_share_a_statement_are_counted_while_they_wait() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let meter = LoadMeter::default();
    let abandoned = meter.waiting(std::future::pending::<()>());
    assert!(tokio::time::timeout(Duration::from_millis(1), abandoned).await.is_err());
    let depth = meter.waiting(async { reported(&recorder.snapshotter()) }).await;
    depth.assert("load_queue_depth{}", 1.0);
}

/// A service with a ledger that stops before a deposit of 666.
async fn with_readers() -> Service {
    let poisoned = Ledger::<1> { poison: Some(666) };
    let service = started(Service::builder("accounts", MemoryStore::new()).projection(Histories).projection(poisoned));
    let service = service.await;
    let accounts = service.repository::<Account>();
    accounts.execute("a", AccountCommand::Deposit(7)).await.expect("executed");
    accounts.execute("a", AccountCommand::Withdraw(2)).await.expect("executed");
    service.settled(PATIENCE).await.expect("in time");
    service
}

#[tokio::test]
async fn readers_report_what_they_processed_and_how_far_they_are() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let service = with_readers().await;
    service.report_lag().await;
    let reported = reported(&recorder.snapshotter());
    for event in ["account.deposited", "account.withdrawn"] {
        reported.assert(&format!("events_processed_total{{histories,{event},ok}}"), 1.0);
    }
    reported.assert("event_processing_duration_seconds{histories}", 2.0);
    for (metric, value) in [
        ("reader_leases_held", 1.0),
        ("reader_lag_events", 0.0),
        ("reader_lag_seconds", 0.0),
        ("reader_position", 2.0),
        ("part_running", 1.0),
    ] {
        reported.assert(&format!("{metric}{{ledger}}"), value);
    }
    reported.assert("log_head_position{}", 2.0);
    service.shutdown(PATIENCE).await.expect("in good order");
}

/// Returns when the ledger has stopped.
async fn stopped(service: &Service) {
    let stopped = async {
        while !matches!(service.status().await.part("ledger").expect("a part").state, PartState::Stopped { .. }) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, stopped).await.expect("in time");
}

/// Seen to fail where it was reported only when the store answered, and never after the shutdown.
#[tokio::test]
async fn that_a_part_has_stopped_is_reported_at_once() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let service = with_readers().await;
    service.report_lag().await;
    let deposit = AccountCommand::Deposit(666);
    service.repository::<Account>().execute("b", deposit).await.expect("executed");
    stopped(&service).await;
    let running = reported(&recorder.snapshotter());
    running.assert("part_running{ledger}", 0.0);
    running.assert("part_running{histories}", 1.0);
    service.shutdown(PATIENCE).await.expect("in good order");
    reported(&recorder.snapshotter()).assert("part_running{histories}", 0.0);
}

#[tokio::test]
async fn a_reader_that_has_stopped_is_reported_and_its_lag_grows() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let service = with_readers().await;
    let accounts = service.repository::<Account>();
    accounts.execute("b", AccountCommand::Deposit(666)).await.expect("executed");
    accounts.execute("b", AccountCommand::Deposit(1)).await.expect("executed");
    stopped(&service).await;
    service.report_lag().await;
    service.shutdown(PATIENCE).await.expect("in good order");
    let reported = reported(&recorder.snapshotter());
    reported.assert("events_processed_total{ledger,account.deposited,failed}", 1.0);
    reported.assert("reader_errors_total{ledger,permanent}", 1.0);
    for (metric, value) in [("reader_lag_events", 2.0), ("reader_position", 2.0), ("part_running", 0.0)] {
        reported.assert(&format!("{metric}{{ledger}}"), value);
    }
    assert!(reported.0["reader_lag_seconds{ledger}"] > 0.0);
    // The other one went on until the shutdown, and has given its lease back.
    reported.assert("part_running{histories}", 0.0);
    for reader in ["histories", "ledger"] {
        reported.assert(&format!("reader_leases_held{{{reader}}}"), 0.0);
    }
}

/// Seen to fail where only the caller of `report_lag` reports.
#[tokio::test]
async fn a_service_reports_the_head_of_the_log_by_itself() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let service = with_readers().await;
    let told = async {
        while reported(&recorder.snapshotter()).series("log_head_position") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, told).await.expect("in time");
    service.shutdown(PATIENCE).await.expect("in good order");
}

#[test]
fn restarts_of_a_part_are_counted() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    for _ in 0..2 {
        part_restarted("histories");
    }
    reported(&recorder.snapshotter()).assert("part_restarts_total{histories}", 2.0);
}

#[test]
fn event_types_that_no_program_has_share_one_time_series() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let mut meter = ReaderMeter::of("audit");
    let mut event = recorded([("a", AccountEvent::Deposited { amount: 1 })]).remove(0);
    for number in 0..3_000 {
        event.data = EventData { name: format!("foreign.{number}-{}", Uuid::now_v7()).into(), ..event.data };
        meter.processed(std::slice::from_ref(&event), Duration::ZERO);
        meter.failed(&event);
    }
    let reported = reported(&recorder.snapshotter());
    assert_eq!(reported.series("events_processed_total"), 2 * 1_001);
    reported.assert("events_processed_total{audit,other,ok}", 2_000.0);
}

#[test]
fn each_metric_has_a_name_as_prometheus_has_it_a_unit_and_a_description() {
    let recorder = DebuggingRecorder::new();
    metrics::with_local_recorder(&recorder, || {
        describe();
        // What was never counted has no description yet.
        for metric in ALL {
            let key = Key::from_name(metric.name);
            metrics::with_recorder(|recorder| match metric.kind {
                Kind::Counter => drop(recorder.register_counter(&key, &METADATA)),
                Kind::Gauge => drop(recorder.register_gauge(&key, &METADATA)),
                Kind::Histogram => drop(recorder.register_histogram(&key, &METADATA)),
            });
        }
    });
    let described = recorder.snapshotter().snapshot().into_vec();
    for metric in ALL {
        let (_, unit, text, _) =
            described.iter().find(|(key, ..)| key.key().name() == metric.name).expect("it was registered");
        assert_eq!((*unit, text.as_deref()), (Some(metric.unit), Some(metric.description)), "{}", metric.name);
        let name = metric.name;
        assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert_eq!(metric.unit == metrics::Unit::Seconds, name.ends_with("_seconds"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(!metric.description.is_empty(), "{name}");
        assert_eq!(ALL.iter().filter(|other| other.name == name).count(), 1, "{name}");
    }
}

#[test]
fn the_time_of_a_batch_is_shared_among_its_events() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let events = recorded([1, 2].map(|amount| ("a", AccountEvent::Deposited { amount })));
    ReaderMeter::of("audit").processed(&events, Duration::from_secs(3));
    let all = recorder.snapshotter().snapshot().into_vec();
    let (.., durations) = all.into_iter().find(|(key, ..)| key.key().name().ends_with("_seconds")).expect("recorded");
    assert_eq!(durations, DebugValue::Histogram(vec![1.5.into(), 1.5.into()]));
}

#[test]
fn leases_that_are_lost_are_counted() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    ReaderMeter::of("audit").lost(2);
    reported(&recorder.snapshotter()).assert("reader_leases_lost_total{audit}", 2.0);
}

#[test]
fn a_relay_reports_what_it_published_and_how_often_it_failed() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let meter = RelayMeter::of("accounts");
    meter.committed(7, Duration::from_secs(1));
    meter.failed(Duration::from_secs(1));
    meter.error(true);
    meter.error(false);
    let reported = reported(&recorder.snapshotter());
    reported.assert("relay_published_events_total{accounts}", 7.0);
    for outcome in ["committed", "failed"] {
        reported.assert(&format!("relay_transaction_duration_seconds{{accounts,{outcome}}}"), 1.0);
    }
    for kind in ["transient", "permanent"] {
        reported.assert(&format!("relay_errors_total{{accounts,{kind}}}"), 1.0);
    }
}

#[tokio::test]
async fn decisions_are_reported_by_outcome() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let decisions = Decisions::new(MemoryStore::new(), "open");
    let accounts = || Matching::<AccountEvent>::new(EventQuery::named_only(["account.deposited"]));
    let opened = decisions.decide(accounts(), |_| {
        let stream = StreamId::new("account", "a").expect("a valid name");
        Ok::<_, std::fmt::Error>(Decision::append(stream, Expected::NoStream, [AccountEvent::Deposited { amount: 1 }]))
    });
    opened.await.expect("decided");
    decisions.decide(accounts(), |_| Err::<Decision, _>(std::fmt::Error)).await.expect_err("refused");
    let reported = reported(&recorder.snapshotter());
    for (outcome, times) in [("written", 1.0), ("rejected", 1.0), ("failed", 0.0)] {
        reported.assert(&format!("decide_duration_seconds{{open,{outcome}}}"), times);
    }
}

#[test]
fn letters_are_counted_when_they_are_added_and_those_that_are_there_are_told() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let snapshotter = recorder.snapshotter();
    let meter = ReaderMeter::of("ledger");
    meter.parked(0);
    assert_eq!(
        reported(&snapshotter).series("reader_dead_letters_added_total"),
        0,
        "no series for a reader without letters"
    );
    meter.parked(1);
    meter.parked(2);
    super::parked("ledger", 2, 3);
    let reported = reported(&snapshotter);
    reported.assert("reader_dead_letters_added_total{ledger}", 3.0);
    reported.assert("reader_parked_keys{ledger}", 2.0);
    reported.assert("reader_dead_letters{ledger}", 3.0);
}
