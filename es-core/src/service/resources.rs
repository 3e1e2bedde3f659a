//! What the parts of a service share.

use std::{
    any::{Any, TypeId, type_name},
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
};

use super::{engine::Relay, part::Part, store::ServiceStore};
use crate::{
    react::schedule::{Schedule, Schedules},
    read::{
        live::{Live, LiveProjection},
        projection::Projection,
        query::ReadModel,
        source::{EventSource, LogSource},
        tables::{TableProjection, TableStore, Tables},
        watch::TouchedKeys,
    },
    write::{aggregate::Aggregate, execute::Repository},
};

/// What the parts of a service share: its store, its repositories and the source of its readers. Clones share it.
///
/// A policy is built from it, since its commands go to aggregates of the same store
/// ([`ServiceBuilder::policy`](super::ServiceBuilder::policy)).
#[derive(Clone)]
pub struct Resources(Arc<Shared>);

struct Shared {
    name: String,
    store: Arc<dyn ServiceStore>,
    log: LogSource,
    source: Arc<dyn EventSource>,
    relay: Option<Arc<dyn Relay>>,
    consumed: Vec<Consumed>,
    by_type: ByType,
    /// Of the read models, by their names.
    touched: OnceLock<HashMap<String, Arc<TouchedKeys>>>,
}

/// The name of a consumer, and its topic.
pub(super) type Consumed = (&'static str, Arc<dyn EventSource>);

/// What the parts share, a value of each type: the repository of each kind of aggregate, so that all use its cache, and the tables of
/// each table projection, and the live read model of each projection, so that all use its cache.
#[derive(Debug, Default)]
pub(crate) struct ByType(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl ByType {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.insert(TypeId::of::<T>(), Box::new(value));
    }

    fn get<T: 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

impl Resources {
    pub(crate) fn new(
        name: String,
        store: Arc<dyn ServiceStore>,
        source: Option<Arc<dyn EventSource>>,
        relay: Option<Arc<dyn Relay>>,
        consumed: Vec<Consumed>,
        by_type: ByType,
    ) -> Self {
        let log = LogSource::new(store.clone());
        let source = source.or_else(|| relay.as_ref().map(|relay| relay.source(&name, store.clone())));
        let source = source.unwrap_or_else(|| Arc::new(log.clone()));
        Self(Arc::new(Shared { name, store, log, source, relay, consumed, by_type, touched: OnceLock::new() }))
    }

    /// The name of the service.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The store.
    pub fn store(&self) -> Arc<dyn ServiceStore> {
        self.0.store.clone()
    }

    /// The plans of the schedule `S`.
    ///
    /// # Panics
    /// When the schedule was not registered with [`ServiceBuilder::schedule`](super::ServiceBuilder::schedule).
    pub fn schedules<S: Schedule>(&self) -> Schedules<S> {
        Schedules::new(self.repository(), Arc::new(self.store()))
    }

    /// The repository of the aggregates of one kind. All callers share its cache.
    ///
    /// # Panics
    /// When the aggregate was not registered with [`ServiceBuilder::aggregate`](super::ServiceBuilder::aggregate).
    pub fn repository<A: Aggregate>(&self) -> Repository<A> {
        let found = self.0.by_type.get::<Repository<A>>();
        let Some(repository) = found else {
            let (name, service) = (type_name::<A>(), self.name());
            panic!("the service {service:?} does not know the aggregate {name}: register it with `.aggregate::<…>()`")
        };
        repository.clone()
    }

    /// The tables of `P` on a store `S`, for queries; `None` when `P` was not registered with a store of this type
    /// ([`ServiceBuilder::table_projection`](super::ServiceBuilder::table_projection)).
    pub fn tables<P: TableProjection<S>, S: TableStore>(&self) -> Option<Tables<P, S>> {
        self.0.by_type.get::<Tables<P, S>>().cloned()
    }

    /// The documents of `P`, folded when they are read. All callers share its cache.
    ///
    /// # Panics
    /// When the projection was not registered with [`ServiceBuilder::live`](super::ServiceBuilder::live).
    pub fn live<P: LiveProjection>(&self) -> Live<P> {
        let Some(live) = self.0.by_type.get::<Live<P>>() else {
            let (name, service) = (type_name::<P>(), self.name());
            panic!("the service {service:?} has no live read model {name}: register it with `.live(…)`")
        };
        live.clone()
    }

    /// The read model of `P`, for queries.
    pub fn read_model<P: Projection>(&self) -> ReadModel<P> {
        let touched = self.0.touched.get().and_then(|touched| touched.get(P::NAME));
        ReadModel::new(self.store()).touched(touched.cloned())
    }

    /// Read models that are asked for from now on can be watched through `parts`, which keep them.
    pub(super) fn watch_through(&self, parts: &[Arc<Part>]) {
        let kept = parts.iter().filter(|part| part.projector().is_some());
        let touched = kept.map(|part| {
            let touched = TouchedKeys::new(part.clone(), self.store()).heeding(Arc::new(self.store()));
            (part.name.clone(), Arc::new(touched))
        });
        // It is set once, when the service starts.
        let _ = self.0.touched.set(touched.collect());
    }

    /// The source of the readers of the service: the log, or the topics that the relay fills.
    pub fn source(&self) -> Arc<dyn EventSource> {
        self.0.source.clone()
    }

    /// The relay that copies the log, if there is one.
    pub fn relay(&self) -> Option<Arc<dyn Relay>> {
        self.0.relay.clone()
    }

    /// The topics of the consumers, by the names of these.
    pub(super) fn consumed(&self) -> &[Consumed] {
        &self.0.consumed
    }

    /// The log as a source, also if the readers follow another one. Its readers share what they read.
    pub fn log(&self) -> LogSource {
        self.0.log.clone()
    }
}

impl fmt::Debug for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shared { name, store, source, .. } = &*self.0;
        f.debug_struct("Resources")
            .field("name", name)
            .field("store", store)
            .field("source", source)
            .finish_non_exhaustive()
    }
}
