//! Runs a saga: reacts to events, and performs what instances decide.

use std::{fmt, ops::ControlFlow, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Correlation, Heard, Instance, Instances, Saga, SagaCommand, SagaEvent, names::Names, performer::Performer,
};
use crate::{
    event::{Categories, Event, Recorded},
    react::policy::{Policy, PolicyError, PolicyRunner, reaction},
    read::{
        definition,
        engine_error::EngineError,
        failure::{FailurePolicy, FailureSettings},
        projection::EventOrder,
        query::ReadModel,
        read_model::{Leases, Reader, Shard},
        source::{EventSource, LogSource, Split, Subscription},
        standby::Standby,
        worker::{DEFAULT_LEASE, Events, Handled, Handler, Worker},
        worker_state::{StateReport, WorkerState},
    },
    write::{execute::Repository, store::EventStore},
};

/// Runs a saga and keeps its checkpoints.
///
/// It has two readers. `<name>` follows the events that the saga reacts to. `perform-<name>` follows the streams of the instances; the
/// process that holds its lease performs the actions and wakes the timers.
///
/// # Panics
/// Its futures panic outside of a tokio runtime with time enabled.
pub struct SagaRunner<S: Saga> {
    pub(crate) reactor: PolicyRunner<Reactor<S>>,
    performer: Arc<Performer<S>>,
    leases: Arc<dyn Leases>,
    lease: Duration,
    standby: Standby,
    failures: FailureSettings,
    report: StateReport,
}

impl<S: Saga> SagaRunner<S> {
    /// Runs `saga` on the events of `source`. Its instances are in `log`, its checkpoints in `leases`; `overview` is kept by a projector.
    pub fn new(
        saga: S,
        instances: Repository<Instance<S>>,
        overview: ReadModel<Instances<S>>,
        source: impl EventSource,
        log: impl EventStore,
        leases: impl Leases,
    ) -> Self {
        let (leases, log): (Arc<dyn Leases>, Arc<dyn EventStore>) = (Arc::new(leases), Arc::new(log));
        let mut reactor = PolicyRunner::new(Reactor { instances: instances.clone() }, source, leases.clone());
        reactor.kind = "saga";
        let performer = Arc::new(Performer::new(saga, instances, overview, log));
        let (standby, failures, report) = (Standby::default(), FailureSettings::default(), StateReport::default());
        Self { reactor, performer, leases, lease: DEFAULT_LEASE, standby, failures, report }
    }

    /// How long its leases last after its process was killed or stalls, as [`PolicyRunner::lease`].
    pub fn lease(mut self, ttl: Duration) -> Self {
        (self.lease, self.reactor) = (ttl, self.reactor.lease(ttl));
        self
    }

    /// How long it waits for newer code at one event, as [`PolicyRunner::standby_limit`].
    pub fn standby_limit(mut self, limit: Duration) -> Self {
        self.standby.limit = limit;
        self.reactor = self.reactor.standby_limit(limit);
        self
    }

    /// What it does about an event to which the saga cannot react ([stops](FailurePolicy::stop) by default).
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.reactor = self.reactor.on_failure(policy);
        self
    }

    /// At how many instances it works at the same time, in one process (64 by default).
    ///
    /// # Panics
    /// When it is running.
    pub fn concurrency(mut self, instances: usize) -> Self {
        Arc::get_mut(&mut self.performer).expect("it is not running").most = instances.max(1);
        self
    }

    /// What [`run`](Self::run) is doing; the receiver sees each change.
    pub fn state(&self) -> watch::Receiver<WorkerState> {
        self.reactor.state()
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// As [`PolicyRunner::run`]: a permanent error stops it at the event that it concerns (R11).
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing, and may repeat actions that are being performed.
    pub async fn run(&self, shutdown: CancellationToken) -> Result<(), EngineError> {
        let reacts = self.reactor.run(shutdown.clone());
        tokio::try_join!(reacts, self.perform(&shutdown))?;
        Ok(())
    }

    /// Performs until `shutdown`.
    async fn perform(&self, shutdown: &CancellationToken) -> Result<(), EngineError> {
        let name = Names::<S>::PERFORMER;
        let follows =
            self.standby.run(name, &self.report, &self.failures, shutdown, || Box::pin(self.follow(shutdown)));
        tokio::select! {
            ended = follows => ended,
            () = self.performer.clone().run() => Ok(()),
        }
    }

    async fn follow(&self, shutdown: &CancellationToken) -> Result<Option<()>, EngineError> {
        let (name, leases) = (Names::<S>::PERFORMER, self.leases.clone());
        if let Some(pause) = leases.paused(name).await? {
            return Err(EngineError::Paused(pause));
        }
        let (ours, (reader, stored)) = (Self::definition(), leases.ensure_reader(name, &Self::definition()).await?);
        if stored != ours {
            return Err(EngineError::OtherDefinition { name, stored, ours });
        }
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
        let opened = Instant::now();
        let steps = worker.run(shutdown, |step| {
            Box::pin(async move {
                if self.standby.is_over(step, opened.elapsed()) {
                    self.report.set(name, WorkerState::Working);
                }
                Ok(ControlFlow::Continue(()))
            })
        });
        steps.await
    }

    fn definition() -> String {
        format!("performer {}", definition::type_name::<S>())
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
impl<S: Saga> Handler for SagaRunner<S> {
    async fn handle(&self, _: &Reader, events: Events<'_>, _: &CancellationToken) -> Handled {
        let mut handled = Handled::default();
        for event in events.list {
            match event.decode::<SagaEvent<S>>() {
                Ok(Some(heard)) => self.performer.hears(event.stream.id(), &heard.data),
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

impl<S: Saga> fmt::Debug for SagaRunner<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SagaRunner").field("saga", &S::NAME).field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// Tells instances of the events that concern them.
pub(crate) struct Reactor<S: Saga> {
    instances: Repository<Instance<S>>,
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
        definition::type_name::<S>()
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
