//! A service: aggregates, read models, policies and a relay on one store. They are started, supervised, reported and ended
//! together.

mod builder;
mod engine;
mod health;
mod lag;
mod part;
mod rebuild;
mod refold;
mod resources;
mod settled;
mod shutdown;
mod start_error;
mod status;
mod stopped;
mod store;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::part::Part;
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::resources::ByType;
pub use self::{
    builder::{Parts, RELAY, ServiceBuilder},
    engine::{Engine, PartError, Relay},
    health::{Health, Thresholds},
    part::{PartKind, PartState},
    rebuild::{RebuildError, RebuildPlan},
    resources::Resources,
    settled::Unsettled,
    shutdown::ShutdownError,
    start_error::StartError,
    status::{PartStatus, Status},
    store::ServiceStore,
};
use crate::{
    backoff::Backoff,
    react::{
        saga::{Saga, Sagas},
        schedule::{Schedule, Schedules},
    },
    read::{
        inline::InlineRegistration,
        live::{AnyLive, Live, LiveProjection},
        projection::Projection,
        query::ReadModel,
        source::{EventSource, LogSource},
        tables::{TableProjection, TableStore, Tables},
    },
    write::{aggregate::Aggregate, execute::Repository},
};

/// A running service: aggregates, read models, policies and a relay on one store.
///
/// A process runs all of its parts or [chosen](ServiceBuilder::parts) ones. Each part is supervised. After a transient error it
/// starts again, after a pause that grows with each failure. A permanent error or a panic ends it for good: it is reported
/// ([`status`](Self::status), [`health`](Self::health)), and the other parts continue.
///
/// Clones are the same service. When the last one is dropped without a [`shutdown`](Self::shutdown), the parts get the signal to
/// end, and nothing waits for them.
///
/// ```
/// # use es_core::testing::account::{Account, AccountCommand, Ledger};
/// use std::time::Duration;
///
/// use es_core::{MemoryStore, Service};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = Service::builder("accounts", MemoryStore::new()) // or SqliteStore, or PostgresStore
///     .aggregate::<Account>()
///     .projection(Ledger::<1>::default())
///     .start()
///     .await?;
///
/// let receipt = service.repository::<Account>().execute("a", AccountCommand::Deposit(7)).await?;
/// let ledger = service.read_model::<Ledger<1>>();
/// ledger.wait_for(receipt.token, Duration::from_secs(5)).await?;
/// assert!(ledger.get("all").await?.is_some());
///
/// assert!(service.health().await.ready);
/// service.shutdown(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    resources: Resources,
    categories: Vec<&'static str>,
    live: LiveModels,
    /// As long as they are here, the store folds the inline read models.
    _inline: Vec<InlineRegistration>,
    parts: Vec<Arc<Part>>,
    running: Mutex<Vec<Running>>,
    thresholds: Thresholds,
    began: Instant,
    stops: CancellationToken,
    over: AtomicBool,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stops.cancel();
    }
}

/// The live read models, by their names.
type LiveModels = Vec<(&'static str, Arc<dyn AnyLive>)>;

/// The read models for which something is kept beside their parts.
struct Models {
    live: LiveModels,
    inline: Vec<InlineRegistration>,
}

type Running = (Arc<Part>, JoinHandle<()>);

impl Service {
    /// A service `name` on `store`. The name is stable: the relay, and consumer groups, are named after it.
    pub fn builder(name: impl Into<String>, store: impl ServiceStore) -> ServiceBuilder {
        ServiceBuilder::new(name.into(), Arc::new(store))
    }

    fn run(
        resources: Resources,
        categories: Vec<&'static str>,
        Models { live, inline }: Models,
        parts: Vec<Arc<Part>>,
        here: Vec<Arc<Part>>,
        backoff: Backoff,
        thresholds: Thresholds,
    ) -> Self {
        let stops = CancellationToken::new();
        let start = |part: Arc<Part>| {
            part.begins();
            (part.clone(), tokio::spawn(part.supervise(resources.store(), stops.clone(), backoff)))
        };
        let running = Mutex::new(here.into_iter().map(start).collect());
        let over = AtomicBool::new(false);
        let reports = stops.clone();
        let began = Instant::now();
        let inner =
            Inner { resources, categories, live, _inline: inline, parts, running, thresholds, began, stops, over };
        let inner = Arc::new(inner);
        tokio::spawn(lag::report(Arc::downgrade(&inner), reports));
        Self(inner)
    }

    /// The name of the service.
    pub fn name(&self) -> &str {
        self.resources().name()
    }

    /// The repository of the aggregates of one kind. All callers share its cache.
    ///
    /// # Panics
    /// When the aggregate was not registered with [`ServiceBuilder::aggregate`].
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        self.resources().repository()
    }

    /// The tables of `P` on a store `S`, for queries; `None` when `P` was not registered with a store of this type
    /// ([`ServiceBuilder::table_projection`]).
    pub fn tables<P: TableProjection<S>, S: TableStore>(&self) -> Option<Tables<P, S>> {
        self.resources().tables()
    }

    /// The documents of `P`, folded when they are read. All callers share its cache.
    ///
    /// # Panics
    /// When the projection was not registered with [`ServiceBuilder::live`].
    pub fn live<P: LiveProjection>(&self) -> Live<P> {
        self.resources().live()
    }

    /// The read model of `P`, for queries.
    ///
    /// `P` need not be registered here: another program on the store may keep the read model. If none does, queries end with
    /// [`QueryError::Building`](crate::QueryError::Building), and what waits for it waits as long as it may. Without its registration
    /// here it cannot be watched ([`WatchError::Unregistered`](crate::WatchError::Unregistered)).
    pub fn read_model<P: Projection>(&self) -> ReadModel<P> {
        self.resources().read_model()
    }

    /// The plans of the schedule `S`.
    ///
    /// # Panics
    /// When the schedule was not registered with [`ServiceBuilder::schedule`].
    pub fn schedules<S: Schedule>(&self) -> Schedules<S> {
        self.resources().schedules()
    }

    /// The instances of the saga `S`.
    ///
    /// # Panics
    /// When the saga was not registered with [`ServiceBuilder::saga`].
    pub fn sagas<S: Saga>(&self) -> Sagas<S> {
        Sagas::new(self.repository(), self.read_model())
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn ServiceStore> {
        self.resources().store()
    }

    /// The source of the readers of the service: the log, or the topics that the relay fills.
    pub fn source(&self) -> Arc<dyn EventSource> {
        self.resources().source()
    }

    /// The relay that copies the log, if one is registered. (A backend's own relay is found by its type: `&*relay as &dyn Any`.)
    pub fn relay(&self) -> Option<Arc<dyn Relay>> {
        self.resources().relay()
    }

    /// The topics that the registered consumers read, each with the name of its consumer. (A backend's own topic is found by its type:
    /// `&**topic as &dyn Any`.) Those of [table consumers](ServiceBuilder::table_consumer), which forward nothing, are not among them.
    pub fn consumed(&self) -> impl Iterator<Item = (&'static str, &Arc<dyn EventSource>)> {
        self.resources().consumed().iter().map(|(consumer, topic)| (*consumer, topic))
    }

    /// The log as a source, also if the readers follow another one.
    pub fn log(&self) -> LogSource {
        self.resources().log()
    }

    /// What its parts share.
    pub fn resources(&self) -> &Resources {
        &self.0.resources
    }

    /// The categories of its aggregates, in the order of their registration.
    pub fn categories(&self) -> &[&'static str] {
        &self.0.categories
    }

    /// Returns when no part runs in this process any more: all have stopped for good, or have ended at the shutdown. It returns at
    /// once if this process runs no parts.
    pub async fn ended(&self) {
        for part in self.parts().iter().filter(|part| part.is_here()) {
            part.over().await;
        }
    }

    fn parts(&self) -> &[Arc<Part>] {
        &self.0.parts
    }

    fn thresholds(&self) -> &Thresholds {
        &self.0.thresholds
    }

    fn stops(&self) -> &CancellationToken {
        &self.0.stops
    }

    fn is_shutting_down(&self) -> bool {
        self.stops().is_cancelled()
    }

    fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Relaxed)
    }

    fn is_now_over(&self) {
        self.0.over.store(true, Ordering::Relaxed);
    }

    async fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        self.0.running.lock().await
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parts().iter().map(|part| (&part.name, part.state()));
        f.debug_struct("Service")
            .field("resources", self.resources())
            .field("parts", &parts.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
