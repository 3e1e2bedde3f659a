//! The registration of a service.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use super::{
    LiveModels, Models, Service,
    engine::{AnyProjector, Relay},
    health::Thresholds,
    part::{Body, Part, PartKind},
    resources::{ByType, Consumed, Resources},
    start_error::StartError,
    store::ServiceStore,
};
use crate::{
    backoff::Backoff,
    event::Event,
    react::{
        consumer::{Consumer, ConsumerRunner},
        policy::{Policy, PolicyRunner},
    },
    read::{
        definition,
        failure::FailurePolicy,
        inline::{InlineModel, InlineRegistration},
        live::{Live, LiveProjection},
        projection::Projection,
        projector::Projector,
        source::EventSource,
        tables::{TableProjection, TableProjector, TableStore, Tables},
    },
    write::{aggregate::Aggregate, execute::Repository},
};

/// The name of the part that runs the relay of a service.
pub const RELAY: &str = "relay";

/// Registers the parts of a service; [`start`](Self::start) starts it.
pub struct ServiceBuilder {
    name: String,
    store: Arc<dyn ServiceStore>,
    categories: Vec<&'static str>,
    by_type: ByType,
    live: LiveModels,
    registered: Vec<Registered>,
    source: Option<Arc<dyn EventSource>>,
    relay: Option<Arc<dyn Relay>>,
    consumed: Vec<Consumed>,
    parts: Parts,
    readers: Readers,
    backoff: Backoff,
    thresholds: Thresholds,
}

struct Registered {
    kind: PartKind,
    name: &'static str,
    make: Make,
}

/// Gives the settings of all readers of a service to one of them. Its own settings come after these.
macro_rules! with_settings {
    ($reader:ident, $readers:ident) => {{
        let mut reader = $reader.on_failure($readers.on_failure);
        if let Some(ttl) = $readers.lease {
            reader = reader.lease(ttl);
        }
        if let Some(limit) = $readers.standby_limit {
            reader = reader.standby_limit(limit);
        }
        reader
    }};
}

mod commands;
mod saga;

type Make = Box<dyn FnOnce(&Resources, Readers) -> Result<Body, StartError> + Send>;

/// The settings of all readers; `None` means the default of the engine.
#[derive(Debug, Clone, Copy, Default)]
struct Readers {
    lease: Option<Duration>,
    standby_limit: Option<Duration>,
    on_failure: FailurePolicy,
}

/// Which parts of a service this process runs. It also knows the other parts: their read models can be queried and rebuilt, and
/// their positions are reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Parts {
    /// All of them.
    #[default]
    All,
    /// None: other processes run them.
    None,
    /// Those of one kind.
    Kind(PartKind),
    /// Those of these names.
    Named(Vec<String>),
}

impl Parts {
    /// The parts of these names.
    pub fn named<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        Self::Named(names.into_iter().map(Into::into).collect())
    }

    fn hold(&self, part: &Part) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Kind(kind) => part.kind == *kind,
            Self::Named(names) => names.contains(&part.name),
        }
    }
}

impl ServiceBuilder {
    pub(super) fn new(name: String, store: Arc<dyn ServiceStore>) -> Self {
        Self {
            name,
            store,
            categories: Vec::new(),
            by_type: ByType::default(),
            live: LiveModels::new(),
            registered: Vec::new(),
            source: None,
            relay: None,
            consumed: Vec::new(),
            parts: Parts::All,
            readers: Readers::default(),
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            thresholds: Thresholds::default(),
        }
    }

    /// Adds the aggregates of one kind.
    pub fn aggregate<A: Aggregate>(self) -> Self {
        self.aggregate_with(|repository: Repository<A>| repository)
    }

    /// Adds the aggregates of one kind, with settings of their repository.
    pub fn aggregate_with<A: Aggregate>(mut self, settings: impl FnOnce(Repository<A>) -> Repository<A>) -> Self {
        let repository = settings(Repository::<A>::new(self.store.clone()));
        self.categories.push(<A::Event as Event>::CATEGORY);
        self.by_type.insert(repository);
        self
    }

    /// Adds a read model, which its projector keeps up to date.
    pub fn projection<P: Projection>(self, projection: P) -> Self {
        self.projection_with(projection, |projector| projector)
    }

    /// Adds a read model, with settings of its projector.
    pub fn projection_with<P: Projection>(
        self,
        projection: P,
        settings: impl FnOnce(Projector<P>) -> Projector<P> + Send + 'static,
    ) -> Self {
        self.register(PartKind::Projection, P::NAME, |resources, readers| {
            let projector = Projector::new(projection, resources.source(), resources.store());
            let projector = with_settings!(projector, readers);
            Body::Projector(Box::new(settings(projector)))
        })
    }

    /// Adds a read model that the store folds in the transaction of each append: when an append is acknowledged, the read model has
    /// its events, so a read that follows need not wait (R13).
    ///
    /// An append that the read model cannot be folded with is refused with [`AppendError::Unfoldable`](crate::AppendError::Unfoldable),
    /// and no other append with it. So a [unique](crate::Field::unique) field of an inline read model holds for the events
    /// themselves.
    ///
    /// The projection is written as for [`projection`](Self::projection), and its documents are stored, queried, watched, rebuilt and
    /// verified in the same way. It always follows the log, in one shard, also when it is [rebuilt](crate::Service::rebuild). Each
    /// process that appends registers it, whichever [parts](Self::parts) it runs. A process that does not leaves its events to the
    /// projector: this one, of any process, finds them within a second, and the next append of a process that knows the read model
    /// folds them too.
    ///
    /// An append gets slower by the fold, and one append is folded after the other, in all processes: keep documents small, and few to
    /// an event. While a process folds, its writer does nothing else.
    ///
    /// - While the read model is built for the first time it does not serve, and appends do not fold it.
    /// - If more than 1,000 events or 8 MiB are missing in it, or more than one commit may write, appends wait for its projector, as long
    ///   as for a database that is busy, and then fail with [`AppendError::InlineBehind`](crate::AppendError::InlineBehind). They fail
    ///   so at once if the projector has stopped at an event. A retry of an append that was written gets its first outcome.
    /// - Appends leave it out, and its projector follows them as that of an ordinary read model, while it follows another source, as
    ///   before it became inline, and while its next event is one that only newer code knows.
    /// - An operator who [pauses](crate::Operations::pause) it takes it out of the appends: these go on, and it stays as it is. When
    ///   it is resumed its projector catches up.
    pub fn inline<P: Projection>(self, projection: P) -> Self {
        self.inline_with(projection, |projector| projector)
    }

    /// Adds a read model that the store folds in the transaction of each append, with settings of its projector. Of these,
    /// [`document_bytes`](Projector::document_bytes) and [`time_limit`](Projector::time_limit) hold for appends too.
    ///
    /// [`start`](Self::start) refuses more than one [shard](Projector::shards), and a [failure policy](Projector::on_failure) that
    /// parks keys: what cannot be folded is not appended. The [failure policy](Self::on_failure) of all readers does not hold for it.
    pub fn inline_with<P: Projection>(
        self,
        projection: P,
        settings: impl FnOnce(Projector<P>) -> Projector<P> + Send + 'static,
    ) -> Self {
        self.register_with(PartKind::Projection, P::NAME, |resources, readers| {
            let projector = Projector::new(projection, resources.log(), resources.store());
            let readers = Readers { on_failure: FailurePolicy::stop(), ..readers };
            let projector = settings(with_settings!(projector, readers)).inline(resources.store());
            if projector.is_sharded() {
                return Err(StartError::InlineShards { name: P::NAME });
            }
            if projector.failures.policy.parks() {
                return Err(StartError::InlineParks { name: P::NAME });
            }
            let projector = Arc::new(projector);
            Ok(Body::Inline(projector.clone(), projector))
        })
    }

    /// Adds a read model that is folded from the log when it is read. It is no part: all processes have it, and nothing of it is
    /// stored.
    pub fn live<P: LiveProjection>(self, projection: P) -> Self {
        self.live_with(projection, |live| live)
    }

    /// Adds a read model that is folded when it is read, with settings.
    pub fn live_with<P: LiveProjection>(mut self, projection: P, settings: impl FnOnce(Live<P>) -> Live<P>) -> Self {
        let live = settings(Live::new(projection, self.store.clone()));
        self.live.push((P::NAME, Arc::new(live.clone())));
        self.by_type.insert(live);
        self
    }

    /// Adds a read model in tables of its own. `store` is the store of the service, by its own type.
    pub fn table_projection<S: TableStore + Clone, P: TableProjection<S>>(self, projection: P, store: S) -> Self {
        self.table_projection_with(projection, store, |projector| projector)
    }

    /// Adds a read model in tables of its own, with settings of its projector.
    pub fn table_projection_with<S: TableStore + Clone, P: TableProjection<S>>(
        mut self,
        projection: P,
        store: S,
        settings: impl FnOnce(TableProjector<P, S>) -> TableProjector<P, S> + Send + 'static,
    ) -> Self {
        self.by_type.insert(Tables::<P, S>::new(store.clone()));
        self.register(PartKind::Projection, P::NAME, |resources, readers| {
            let projector = TableProjector::new(projection, resources.source(), store);
            let projector = with_settings!(projector, readers);
            Body::Projector(Box::new(settings(projector)))
        })
    }

    /// Adds tables that are filled from `topic`, which another system writes, as [`TableProjector::of_topic`] says. The part is a
    /// [consumer](PartKind::Consumer). `store` is the store of the service, by its own type.
    pub fn table_consumer<S: TableStore + Clone, P: TableProjection<S>>(
        self,
        topic: impl EventSource,
        projection: P,
        store: S,
    ) -> Self {
        self.table_consumer_with(topic, projection, store, |projector| projector)
    }

    /// Adds tables that are filled from a topic, with settings of their projector.
    pub fn table_consumer_with<S: TableStore + Clone, P: TableProjection<S>>(
        mut self,
        topic: impl EventSource,
        projection: P,
        store: S,
        settings: impl FnOnce(TableProjector<P, S>) -> TableProjector<P, S> + Send + 'static,
    ) -> Self {
        self.by_type.insert(Tables::<P, S>::of_topic(store.clone()));
        self.register(PartKind::Consumer, P::NAME, |_, readers| {
            let projector = TableProjector::of_topic(projection, topic, store);
            let projector = with_settings!(projector, readers);
            Body::Other(Box::new(settings(projector)))
        })
    }

    /// Adds the policy that `make` returns. `make` gets the repositories and the store that the parts share.
    pub fn policy<P: Policy>(self, make: impl FnOnce(&Resources) -> P + Send + 'static) -> Self {
        self.policy_with(make, |runner| runner)
    }

    /// Adds a policy, with settings of its runner.
    pub fn policy_with<P: Policy>(
        self,
        make: impl FnOnce(&Resources) -> P + Send + 'static,
        settings: impl FnOnce(PolicyRunner<P>) -> PolicyRunner<P> + Send + 'static,
    ) -> Self {
        self.register(PartKind::Policy, P::NAME, |resources, readers| {
            let runner = PolicyRunner::new(make(resources), resources.source(), resources.store());
            let runner = with_settings!(runner, readers);
            Body::Other(Box::new(settings(runner)))
        })
    }

    /// Adds the consumer that `make` returns, for the messages of `topic`, which another system writes. `make` gets the repositories
    /// and the store that the parts share.
    pub fn consumer<C: Consumer>(
        self,
        topic: impl EventSource,
        make: impl FnOnce(&Resources) -> C + Send + 'static,
    ) -> Self {
        self.consumer_with(topic, make, |runner| runner)
    }

    /// Adds a consumer, with settings of its runner.
    pub fn consumer_with<C: Consumer>(
        mut self,
        topic: impl EventSource,
        make: impl FnOnce(&Resources) -> C + Send + 'static,
        settings: impl FnOnce(ConsumerRunner<C>) -> ConsumerRunner<C> + Send + 'static,
    ) -> Self {
        let topic: Arc<dyn EventSource> = Arc::new(topic);
        self.consumed.push((C::NAME, topic.clone()));
        self.register(PartKind::Consumer, C::NAME, |resources, readers| {
            let runner = ConsumerRunner::new(make(resources), topic, resources.store());
            let runner = with_settings!(runner, readers);
            Body::Other(Box::new(settings(runner)))
        })
    }

    /// Adds a relay, as the part [`RELAY`]. The readers of the service follow the topics that it fills, unless a
    /// [`source`](Self::source) is set.
    pub fn relay(mut self, relay: impl Relay) -> Self {
        let relay: Arc<dyn Relay> = Arc::new(relay);
        self.relay = Some(relay.clone());
        self.register(PartKind::Relay, RELAY, move |resources, _| {
            Body::Other(relay.engine(resources.name(), resources.store()))
        })
    }

    /// The source of the readers, instead of the log or of the topics that a relay fills.
    pub fn source(self, source: impl EventSource) -> Self {
        Self { source: Some(Arc::new(source)), ..self }
    }

    /// Which parts this process runs (all by default).
    pub fn parts(self, parts: Parts) -> Self {
        Self { parts, ..self }
    }

    /// How long the lease of a reader lasts after its process was killed or stalls ([`Projector::lease`]).
    pub fn lease(mut self, ttl: Duration) -> Self {
        self.readers.lease = Some(ttl);
        self
    }

    /// How long a reader waits for newer code at one event before it stops ([`Projector::standby_limit`]).
    pub fn standby_limit(mut self, limit: Duration) -> Self {
        self.readers.standby_limit = Some(limit);
        self
    }

    /// What readers do when they cannot handle an event ([stop](FailurePolicy::stop) by default). The settings of one reader
    /// ([`Projector::on_failure`], [`PolicyRunner::on_failure`]) come before this.
    pub fn on_failure(mut self, policy: FailurePolicy) -> Self {
        self.readers.on_failure = policy;
        self
    }

    /// The pauses before a part starts again after a transient error (by default up to 100 ms at first, and up to 10 s later).
    pub fn backoff(self, backoff: Backoff) -> Self {
        Self { backoff, ..self }
    }

    /// The limits within which the service is ready.
    pub fn thresholds(self, thresholds: Thresholds) -> Self {
        Self { thresholds, ..self }
    }

    fn register(
        self,
        kind: PartKind,
        name: &'static str,
        make: impl FnOnce(&Resources, Readers) -> Body + Send + 'static,
    ) -> Self {
        self.register_with(kind, name, |resources, readers| Ok(make(resources, readers)))
    }

    fn register_with(
        mut self,
        kind: PartKind,
        name: &'static str,
        make: impl FnOnce(&Resources, Readers) -> Result<Body, StartError> + Send + 'static,
    ) -> Self {
        self.registered.push(Registered { kind, name, make: Box::new(make) });
        self
    }

    /// Starts the parts that this process runs.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs then.
    ///
    /// # Panics
    /// When a policy is made from a repository of an aggregate that was not registered, and outside of a tokio
    /// runtime with time enabled.
    ///
    /// # Cancel safety
    /// Dropping the future starts nothing.
    pub async fn start(self) -> Result<Service, StartError> {
        self.check()?;
        self.store.id().await?;
        let Self { name, store, categories, by_type, live, registered, source, relay, parts: chosen, .. } = self;
        let resources = Resources::new(name, store, source, relay, self.consumed, by_type);
        let make = |Registered { kind, name, make }| {
            Ok(Arc::new(Part::new(kind, name.to_owned(), make(&resources, self.readers)?)))
        };
        let parts = registered.into_iter().map(make).collect::<Result<Vec<_>, StartError>>()?;
        for part in &parts {
            let checked = part.projector().map_or(Ok(()), AnyProjector::check);
            checked.map_err(|cause| StartError::Projection { name: part.name.clone(), cause: Box::new(cause) })?;
        }
        resources.watch_through(&parts);
        let inline = register_inline(&*resources.store(), &parts)?;
        let here = parts.iter().filter(|part| chosen.hold(part)).cloned().collect();
        Ok(Service::run(resources, categories, Models { live, inline }, parts, here, self.backoff, self.thresholds))
    }

    fn check(&self) -> Result<(), StartError> {
        if !definition::is_name(&self.name) {
            return Err(StartError::Name(self.name.clone()));
        }
        let mut seen = BTreeSet::new();
        for category in &self.categories {
            if !seen.insert(category) {
                return Err(StartError::DuplicateAggregate { category });
            }
        }
        let mut known = Vec::new();
        for part in &self.registered {
            if known.contains(&part.name) {
                return Err(StartError::Duplicate { name: part.name });
            }
            known.push(part.name);
        }
        let mut live = BTreeSet::new();
        if let Some((name, _)) = self.live.iter().find(|(name, _)| !live.insert(name)) {
            return Err(StartError::DuplicateLive { name });
        }
        if let Parts::Named(names) = &self.parts
            && let Some(name) = names.iter().find(|name| !known.contains(&name.as_str()))
        {
            let known = known.into_iter().map(str::to_owned).collect();
            return Err(StartError::Unknown { name: name.clone(), known });
        }
        Ok(())
    }
}

/// Lets `store` fold the inline read models among `parts`.
fn register_inline(store: &dyn ServiceStore, parts: &[Arc<Part>]) -> Result<Vec<InlineRegistration>, StartError> {
    let inline = parts.iter().filter_map(|part| part.inline());
    let register = |model: &Arc<dyn InlineModel>| {
        let models = store.inline_models().ok_or(StartError::InlineUnsupported { name: model.name() })?;
        Ok(models.register(model.clone()))
    };
    inline.map(register).collect()
}

impl fmt::Debug for ServiceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.registered.iter().map(|part| part.name).collect();
        f.debug_struct("ServiceBuilder")
            .field("name", &self.name)
            .field("store", &self.store)
            .field("aggregates", &self.categories)
            .field("registered", &names)
            .field("parts", &self.parts)
            .finish_non_exhaustive()
    }
}
