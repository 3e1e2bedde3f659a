//! The engines of a saga: one reacts to events, the other performs what instances decide.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::{
    Correlation, Heard, Instance, Instances, Saga, SagaCommand, SagaEvent, names::Names, performer::Performer,
};
use crate::{
    event::{Categories, Event, Recorded},
    react::policy::{Policy, PolicyError, PolicyRunner, reaction},
    read::{
        engine_error::EngineError,
        failure::FailureSettings,
        projection::EventOrder,
        query::ReadModel,
        read_model::{Leases, Reader, Shard},
        source::{EventSource, LogSource, Split, Subscription},
        standby::Standby,
        worker::{DEFAULT_LEASE, Events, Handled, Handler, Pending, Worker},
        worker_state::StateReport,
    },
    write::{execute::Repository, store::EventStore},
};

/// How many instances are told of events at the same time, unless set otherwise.
const INSTANCES: usize = 64;
/// What operators are told that a performer is.
pub(super) const PERFORMER: &str = "performer";

/// Performs what the instances of a saga decide, and wakes their timers, while it holds the lease of its reader, `perform-<name>`.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
pub struct SagaPerformer<S: Saga> {
    performer: Arc<Performer<S>>,
    leases: Arc<dyn Leases>,
    lease: Duration,
    standby: Standby,
    failures: FailureSettings,
    pub(crate) report: StateReport,
}

impl<S: Saga> SagaPerformer<S> {
    /// The name of its reader.
    pub(crate) const NAME: &'static str = Names::<S>::PERFORMER;

    /// Performs for the instances in `log`. Its checkpoint is in `leases`, and `overview` is kept by a projector.
    pub fn new(
        saga: S,
        instances: Repository<Instance<S>>,
        overview: ReadModel<Instances<S>>,
        log: impl EventStore,
        leases: impl Leases,
    ) -> Self {
        let performer = Arc::new(Performer::new(saga, instances, overview, Arc::new(log)));
        let (standby, failures, report) = (Standby::default(), FailureSettings::default(), StateReport::default());
        Self { performer, leases: Arc::new(leases), lease: DEFAULT_LEASE, standby, failures, report }
    }

    /// How long its lease lasts after its process was killed or stalls, as [`PolicyRunner::lease`].
    pub fn lease(self, ttl: Duration) -> Self {
        Self { lease: ttl, ..self }
    }

    /// How long it waits for newer code at one event, as [`PolicyRunner::standby_limit`].
    pub fn standby_limit(mut self, limit: Duration) -> Self {
        self.standby.limit = limit;
        self
    }

    /// How many actions it performs at the same time (64 by default).
    ///
    /// # Panics
    /// When it is running.
    pub fn concurrency(mut self, actions: usize) -> Self {
        let performer = Arc::get_mut(&mut self.performer).expect("it is not running");
        performer.performs = Semaphore::new(actions.clamp(1, Semaphore::MAX_PERMITS));
        self
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// A permanent error of the store, or of an event in the streams of instances that cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing. Actions that are being performed are performed again later.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        let attempt = || -> Pending<'_, Option<()>> { Box::pin(self.follow(&shutdown)) };
        let follows = self.standby.run(Self::NAME, &self.report, &self.failures, &shutdown, attempt);
        tokio::select! {
            ended = follows => ended,
            () = self.performer.clone().run() => Ok(()),
        }
    }

    /// Refuses to continue with the checkpoint of another definition of the same name.
    pub(crate) fn admit(stored: &str) -> Result<(), EngineError> {
        let (name, ours) = (Self::NAME, Self::definition());
        if stored == ours {
            Ok(())
        } else {
            Err(EngineError::OtherDefinition { name, stored: stored.to_owned(), ours })
        }
    }

    async fn follow(&self, shutdown: &CancellationToken) -> Result<Option<()>, EngineError> {
        let (name, leases) = (Self::NAME, self.leases.clone());
        if let Some(pause) = leases.paused(name).await? {
            return Err(EngineError::Paused(pause));
        }
        let (reader, stored) = leases.ensure_reader(name, &Self::definition()).await?;
        Self::admit(&stored)?;
        self.performer.admit_versions().await?;
        let subscription = Subscription {
            reader: name.to_owned(),
            store: leases.id().await?,
            categories: Categories::Only(vec![SagaEvent::<S>::CATEGORY]),
            order: EventOrder::PerKey,
            split: Split { shards: 1, by_stream: true },
            forwards: false,
        };
        let source = LogSource::new(self.performer.log.clone());
        let worker = Worker::open(self, &source, &subscription, leases, reader, self.lease).await?;
        // Without a worker it holds nothing.
        let _holds = Holds(&self.performer.holds);
        self.standby.work(worker, name, &self.report, shutdown).await
    }

    fn definition() -> String {
        format!("{PERFORMER} {}", S::identity())
    }
}

/// Gives up the right to perform when it is dropped.
struct Holds<'a>(&'a watch::Sender<bool>);

impl Drop for Holds<'_> {
    fn drop(&mut self) {
        self.0.send_replace(false);
    }
}

/// It only notices at which instances there is something to do: these find out by themselves what that is.
#[async_trait]
impl<S: Saga> Handler for SagaPerformer<S> {
    async fn handle(&self, _: &Reader, events: Events<'_>, _: &CancellationToken) -> Handled {
        let mut handled = Handled::default();
        for event in events.list {
            match event.decode::<SagaEvent<S>>() {
                Ok(Some(heard)) => self.performer.hears(event.stream.id(), event.version, &heard.data),
                Ok(None) => {}
                Err(error) => {
                    handled.failure = Some(error.into());
                    break;
                }
            }
            handled.done += 1;
        }
        handled
    }

    fn takes(&self, _: &Shard) {
        self.performer.holds.send_replace(true);
    }

    fn forget(&self, _: &Shard) {
        self.performer.holds.send_replace(false);
    }

    fn failed(&self, failure: &EngineError) {
        self.report.failed(failure);
    }
}

impl<S: Saga> fmt::Debug for SagaPerformer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaPerformer").field("saga", &S::NAME).field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// The policy that tells instances of the events that concern them. It is run by a [`PolicyRunner`].
pub struct Reactor<S: Saga> {
    instances: Repository<Instance<S>>,
}

impl<S: Saga> Reactor<S> {
    /// Runs it on the events of `source` and keeps its checkpoint in `leases`.
    pub fn runner(
        instances: Repository<Instance<S>>,
        source: impl EventSource,
        leases: impl Leases,
    ) -> PolicyRunner<Self> {
        let mut runner = PolicyRunner::new(Self { instances }, source, leases).concurrency(INSTANCES);
        runner.kind = "saga";
        runner
    }
}

impl<S: Saga> fmt::Debug for Reactor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reactor({})", S::NAME)
    }
}

#[async_trait]
impl<S: Saga> Policy for Reactor<S> {
    const NAME: &'static str = S::NAME;
    type Event = Heard<S::Event>;

    fn identity() -> &'static str {
        S::identity()
    }

    /// Instances decide at the same time.
    fn lane(event: &Recorded<Heard<S::Event>>) -> String {
        match S::correlate(event.data.decoded()) {
            Correlation::Starts(id) | Correlation::Continues(id) => id,
            Correlation::None => String::new(),
        }
    }

    async fn react(&self, event: &Recorded<Heard<S::Event>>) -> Result<(), PolicyError> {
        let (Correlation::Starts(id) | Correlation::Continues(id)) = S::correlate(event.data.decoded()) else {
            return Ok(());
        };
        let context = reaction(event, S::NAME, "")?;
        self.instances.execute_with(id, SagaCommand::Event(event.data.clone()), context).await?;
        Ok(())
    }
}
