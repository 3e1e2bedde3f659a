//! Metrics, collected as a service collects them (`evenfold::prometheus`), of one participant only.

use std::{
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Result, ensure};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

/// Whether the participant that is measured now reports. Participants are measured one after the other, and each makes its
/// handles anew.
static REPORTS: AtomicBool = AtomicBool::new(false);

const SECONDS: [f64; 15] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
const COUNTS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 10_000.0];

/// Whether the next participant reports.
pub(crate) fn report(reports: bool) -> Result<()> {
    static INSTALLED: Once = Once::new();
    REPORTS.store(reports, Ordering::Relaxed);
    let mut installed = Ok(());
    if reports {
        INSTALLED.call_once(|| installed = install());
    }
    installed
}

fn install() -> Result<()> {
    let builder = PrometheusBuilder::new().set_buckets(&COUNTS)?;
    let recorder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?.build_recorder();
    let handle = recorder.handle();
    ensure!(metrics::set_global_recorder(Switched(recorder)).is_ok(), "there is a recorder already");
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(5));
            handle.run_upkeep();
        }
    });
    Ok(())
}

struct Switched(PrometheusRecorder);

impl Switched {
    fn now(&self) -> Option<&PrometheusRecorder> {
        REPORTS.load(Ordering::Relaxed).then_some(&self.0)
    }
}

impl Recorder for Switched {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        self.now().map_or_else(Counter::noop, |recorder| recorder.register_counter(key, metadata))
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.now().map_or_else(Gauge::noop, |recorder| recorder.register_gauge(key, metadata))
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        self.now().map_or_else(Histogram::noop, |recorder| recorder.register_histogram(key, metadata))
    }
}
