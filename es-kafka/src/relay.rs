//! The relay: carries the log to Kafka. The log itself is the outbox.

mod claims;
mod create;
mod deliveries;
mod failure;
mod forecast;
mod look;
mod orphan;
mod pace;
mod producer;
mod publisher;
mod recess;
mod rerouted;
mod session;
mod size;
mod standby;
mod transactions;
mod verify;

use std::{
    fmt,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{
    Backoff, EventStore, Position, WorkerState, backend::StateReport, error::BoxError, telemetry::RelayMeter,
};
use rdkafka::error::KafkaError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::failure::{RelayError, SizeLimit};
use self::{
    failure::{Failure, Fenced},
    pace::Pace,
    standby::Standby,
};
use crate::{
    config::{RelayConfig, Step, StepHook},
    refusal::Refusal,
};

/// Carries the log of a store to Kafka.
///
/// # Delivery
/// Every event reaches its topic once for `read_committed` readers, in version order for each
/// stream (R10). Events and the relay's own progress commit in one Kafka transaction, so a crash
/// leaves both or neither, and a restart continues exactly after the last one.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
pub struct Relay {
    store: Arc<dyn EventStore>,
    config: Arc<RelayConfig>,
    hook: Option<StepHook>,
    published: watch::Sender<Position>,
    report: StateReport,
    meter: RelayMeter,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Relay {
    /// A relay of the log of `store`.
    pub fn new(store: impl EventStore, config: RelayConfig) -> Self {
        Self {
            store: Arc::new(store),
            meter: RelayMeter::of(&config.name),
            config: Arc::new(config),
            hook: None,
            published: watch::Sender::new(Position::ZERO),
            report: StateReport::default(),
        }
    }

    /// Calls `hook` at every step of every transaction; `Break` ends the relay there as a crash
    /// would: the transaction stays open.
    #[doc(hidden)]
    pub fn at_each_step(self, hook: impl Fn(Step) -> ControlFlow<()> + Send + Sync + 'static) -> Self {
        Self { hook: Some(StepHook(Arc::new(hook))), ..self }
    }

    /// Follows how far the relay has come.
    pub fn published(&self) -> watch::Receiver<Position> {
        self.published.subscribe()
    }

    pub(crate) fn report(&self) -> &StateReport {
        &self.report
    }

    /// Follows whether the relay publishes, stands by because another one of its name does, or has stopped.
    pub fn state(&self) -> watch::Receiver<WorkerState> {
        self.report.watch()
    }

    /// Publishes until `shutdown`; then it finishes the open transaction, or aborts it when Kafka does
    /// not answer within seconds, and returns (R16). What is transient (a broker or the store away) it waits out.
    ///
    /// # Cancel safety
    /// Dropping the future loses and repeats nothing: a transaction in flight is finished whole in
    /// the background, or aborted by the next relay of this name.
    ///
    /// # Standby
    /// Of several relays of one name the one that started last publishes; the others stand by
    /// ([`state`](Self::state)). One that stands by looks at log and progress twice a second, and takes over when there
    /// has been news for three seconds and the other one has published none of it: after a `kill -9` events are in Kafka
    /// again within some five seconds (R18: ten, with their readers). Takeovers that bring
    /// no progress are each followed by twice the time, so that two relays do not fence each other for ever.
    ///
    /// # Errors
    /// [`RelayError`]: waiting does not help, and each variant says what does.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), RelayError> {
        self.report.set(&self.config.name, WorkerState::Working);
        let ended = self.publish_or_stand_by(shutdown).await;
        if let Err(error) = &ended {
            self.meter.error(false);
            self.report.set(&self.config.name, WorkerState::stopped(error));
        }
        ended
    }

    async fn publish_or_stand_by(&self, shutdown: CancellationToken) -> Result<(), RelayError> {
        let mut pace = Pace::new(self.config.batch_events);
        let mut standby = Standby::new();
        let mut missing_since = None;
        let mut failures = 0;
        loop {
            let before = *self.published.borrow();
            let failure = match self.session(&mut pace, &shutdown).await {
                Ok(()) => return Ok(()),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Again) => continue,
                Err(Failure::Fenced) => {
                    let fenced = Fenced { name: self.config.name.clone() };
                    self.report.set(&self.config.name, WorkerState::standing_by(&fenced));
                    if !standby.wait(&self.store, &self.config, &shutdown).await {
                        return Ok(());
                    }
                    self.report.set(&self.config.name, WorkerState::Working);
                    continue;
                }
                Err(Failure::Missing(error)) => self.missing(error, &mut missing_since)?,
                Err(Failure::Transient(error)) => {
                    missing_since = None;
                    error
                }
            };
            failures = if *self.published.borrow() > before { 0 } else { failures + 1 };
            self.report.failed(&*failure);
            self.meter.error(true);
            let pause = BACKOFF.pause(failures);
            tracing::warn!(
                relay = self.config.name,
                error = &*failure as &dyn std::error::Error,
                ?pause,
                "relay starts again"
            );
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// A topic that is missing may be too new for the broker that was asked, and brokers that are missing may be about to start. A topic
    /// that is still missing after a while, and that this relay may not create, waits for an operator, and so does one for which there
    /// are too few brokers.
    fn missing(&self, error: KafkaError, since: &mut Option<Instant>) -> Result<BoxError, RelayError> {
        let is_late = since.get_or_insert_with(Instant::now).elapsed() >= MISSING;
        match Refusal::of(error) {
            Ok(refusal) if is_late => Err(refusal.into()),
            Ok(Refusal { source, .. }) => Ok(source.into()),
            Err(source) if is_late && !self.config.create_topics => {
                let remedy = "create the topic, or let the relay do so with `create_topics`".to_owned();
                Err(RelayError::Refused { remedy, source })
            }
            Err(error) => Ok(error.into()),
        }
    }
}

/// How long a relay waits for a missing topic that it may not create, and for brokers that a new topic needs.
const MISSING: Duration = Duration::from_secs(30);

/// The pauses between sessions that failed.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
