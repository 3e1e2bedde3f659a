//! Metrics for Prometheus (feature `prometheus`): what engines and stores report, and what the program itself reports through the
//! crate `metrics`.
//!
//! [`telemetry`](crate::telemetry) declares what there is: names, labels, units.

use std::{io, thread, time::Duration};

use axum::{Router, http::header, routing::get};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// The upper bounds of the buckets for durations, in seconds. (Without bounds the exporter makes summaries, which keep
/// samples of each time series in memory, and which no query can add up over several processes.)
const SECONDS: [f64; 15] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// The same for numbers of events, and for other counts that a program puts into a histogram.
const COUNTS: [f64; 11] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 10_000.0];

/// How often samples are counted into their buckets. Until then each takes up memory, also where nothing ever scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// The metrics of this process. Clones are the same.
///
/// ```
/// use axum::Router;
/// use evenfold::{MemoryStore, prelude::*, prometheus::Metrics};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let metrics = Metrics::install()?; // before the service is built
/// let service = Service::builder("seats", MemoryStore::new()).start().await?;
/// let router: Router = Router::new().merge(metrics.routes());
/// # use evenfold::{Append, EventData, EventStore, NewEvent};
/// # let event = NewEvent::new(EventData { name: "seat.taken".into(), schema_version: 1, payload: "{}".into() });
/// # service.store().append(Append::new(StreamId::new("seat", "1")?, Expected::Any, vec![event])).await?;
/// assert!(metrics.render().contains("# TYPE"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Collects the metrics of this process from now on. What was used before stays silent: install them before the service
    /// is built.
    ///
    /// A thread counts samples into their buckets every five seconds, so that memory does not grow where nothing scrapes.
    ///
    /// # Errors
    /// [`InstallError`] where another recorder is installed, and where no thread can be started.
    pub fn install() -> Result<Self, InstallError> {
        let recorder = recorder()?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| InstallError::Taken)?;
        es_core::telemetry::describe();
        let kept = handle.clone();
        thread::Builder::new().name("metrics-upkeep".into()).spawn(move || {
            loop {
                thread::sleep(UPKEEP);
                kept.run_upkeep();
            }
        })?;
        Ok(Self(handle))
    }

    /// What a scrape gets, in Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// The route `GET /metrics`, to be merged into the router of an application.
    pub fn routes<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let metrics = self.clone();
        let text = "text/plain; version=0.0.4; charset=utf-8";
        Router::new().route("/metrics", get(async move || ([(header::CONTENT_TYPE, text)], metrics.render())))
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn recorder() -> Result<PrometheusRecorder, BuildError> {
    let builder = PrometheusBuilder::new().set_buckets(&COUNTS)?;
    let builder = builder.set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?;
    Ok(builder.build_recorder())
}

/// Why metrics are not collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    /// The process has a recorder already, of this kind or another one.
    #[error("a recorder of metrics is installed already")]
    Taken,
    /// The recorder cannot be built.
    #[error("the recorder of metrics cannot be built")]
    Build(#[from] BuildError),
    /// No thread can be started.
    #[error("no thread can be started for the metrics")]
    Thread(#[from] io::Error),
}

impl InstallError {
    /// Whether installing it again may help: the operating system may have threads again.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Thread(_))
    }
}

#[cfg(test)]
mod tests {
    use es_core::{
        MemoryStore, Service,
        testing::account::{Account, AccountCommand, Histories},
    };

    use super::*;

    /// The numbers of the lines that begin with `start`.
    fn values(text: &str, start: &str) -> Vec<f64> {
        let lines = text.lines().filter(|line| line.starts_with(start));
        lines.map(|line| line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")).collect()
    }

    /// Seen to fail where durations had no buckets.
    #[tokio::test]
    async fn histograms_have_buckets_that_can_be_added_up_and_nothing_is_a_summary() {
        let recorder = recorder().expect("valid buckets");
        let _installed = metrics::set_default_local_recorder(&recorder);
        es_core::telemetry::describe();
        let builder = Service::builder("accounts", MemoryStore::new()).aggregate::<Account>().projection(Histories);
        let service = builder.start().await.expect("started");
        for _ in 0..3 {
            service.repository::<Account>().execute("a", AccountCommand::Deposit(1)).await.expect("executed");
        }
        service.settled(Duration::from_secs(30)).await.expect("in time");
        recorder.handle().run_upkeep();
        let text = recorder.handle().render();
        for (start, expected) in [
            (r#"execute_duration_seconds_bucket{aggregate="account",outcome="written",le="30"}"#, 3.0),
            (r#"append_batch_events_bucket{le="1"}"#, 3.0),
            (r#"events_processed_total{consumer="histories",event_type="account.deposited",status="ok"}"#, 3.0),
            (r#"reader_leases_held{consumer="histories"}"#, 1.0),
        ] {
            assert_eq!(values(&text, start), [expected], "{start} in {text}");
        }
        assert!(text.contains("# TYPE events_processed_total counter\n"), "{text}");
        assert!(!text.contains(" summary\n") && !text.contains("quantile="), "{text}");
        service.shutdown(Duration::from_secs(10)).await.expect("in good order");
    }
}
