//! The ports to the engines that a service runs.

use std::{any::Any, fmt, sync::Arc};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::{
    error::BoxError,
    event::RecordedEvent,
    inspect::Inspect,
    react::{
        consumer::{Consumer, ConsumerRunner},
        policy::{Policy, PolicyRunner},
        saga::{Saga, SagaPerformer},
    },
    read::{
        engine_error::EngineError,
        projection::Projection,
        projector::Projector,
        read_model::{Act, Exceptions, Generation, GenerationSet},
        rebuild::RebuildPlan,
        refold::{self, Alternatives, Difference, DocumentAsOf, Moment, RefoldError, Verified, WhatIf},
        source::EventSource,
        tables::{TableProjection, TableProjector, TableStore},
        watch::keys_of,
        worker_state::StateReport,
    },
    stream::Position,
    write::store::EventStore,
};

/// Something that a service runs and supervises: a projector, a policy, a consumer, a relay.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Runs until `shutdown`. It may be called again after it has ended.
    ///
    /// # Errors
    /// [`PartError`]: the service starts it again if that may help.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    async fn run(&self, shutdown: CancellationToken) -> Result<(), PartError>;

    /// Where it reports what it is doing.
    fn report(&self) -> &StateReport;

    /// The position that it has reached; `None` if that is a checkpoint in the service's store, or is not known.
    fn position(&self) -> Option<Position> {
        None
    }

    /// Whether it may go on with a checkpoint in the service's store that was made with the definition `stored`.
    ///
    /// # Errors
    /// [`EngineError::OtherDefinition`].
    fn admits(&self, _stored: &str) -> Result<(), EngineError> {
        Ok(())
    }
}

/// Copies the log of a service to another place where its readers follow it, for example to Kafka.
///
/// It is [`Any`], so that the commands of operators find the relay of a backend that they know ([`Service::relay`](super::Service::relay)).
pub trait Relay: Any + fmt::Debug + Send + Sync {
    /// The engine that copies `log`. Of all processes that run it for the same `service`, one copies at a time.
    fn engine(&self, service: &str, log: Arc<dyn EventStore>) -> Box<dyn Engine>;

    /// The source that the readers of `service` follow. It refuses them if it holds the events of another log.
    fn source(&self, service: &str, log: Arc<dyn EventStore>) -> Arc<dyn EventSource>;
}

/// Why a part of a service ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    /// A projector or a policy failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An engine of a backend failed, and trying again may help.
    #[error(transparent)]
    Transient(BoxError),
    /// An engine of a backend failed, and trying again does not help.
    #[error(transparent)]
    Permanent(BoxError),
    /// It ended before the shutdown.
    #[error("it ended before the shutdown and gave no reason")]
    Ended,
    /// It panicked. The panic hook of the process has printed the message and the place.
    #[error("it panicked")]
    Panicked,
}

impl PartError {
    /// Whether starting it again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Engine(error) => error.is_transient(),
            Self::Transient(_) | Self::Ended => true,
            Self::Permanent(_) | Self::Panicked => false,
        }
    }

    /// Whether a reader has stopped at an event.
    pub(super) fn is_of_event(&self) -> bool {
        matches!(self, Self::Engine(error) if error.is_of_event())
    }
}

/// A projector of any projection, of documents or of tables.
#[async_trait]
pub(super) trait AnyProjector: Engine {
    /// Whether it can run as it is set up.
    fn check(&self) -> Result<(), EngineError>;

    /// Whether it may go on with these generations of its name.
    fn admit(&self, found: &GenerationSet) -> Result<(), EngineError>;

    async fn rebuild_from(
        &self,
        source: Arc<dyn EventSource>,
        shutdown: CancellationToken,
    ) -> Result<Option<Generation>, EngineError>;

    /// The keys of the documents that `event` touches, for a reader that makes these `exceptions`.
    fn touches(&self, event: &RecordedEvent, exceptions: &Exceptions) -> Result<Vec<String>, EngineError>;

    async fn plan_rebuild(&self, log: &dyn EventStore) -> Result<RebuildPlan, EngineError>;

    async fn as_of(&self, log: &dyn EventStore, key: &str, moment: Moment) -> Result<DocumentAsOf, RefoldError>;

    async fn what_if(&self, log: &dyn EventStore, changes: &WhatIf) -> Result<Alternatives, RefoldError>;

    async fn verify(
        &self,
        log: &dyn EventStore,
        share: f64,
        report: &mut (dyn FnMut(Difference) + Send),
    ) -> Result<Verified, RefoldError>;

    async fn heal(
        &self,
        log: &dyn EventStore,
        share: f64,
        readers: &dyn Inspect,
        act: &Act,
        report: &mut (dyn FnMut(Difference) + Send),
    ) -> Result<Verified, RefoldError>;
}

#[async_trait]
impl<P: Projection> AnyProjector for Projector<P> {
    fn check(&self) -> Result<(), EngineError> {
        self.check()
    }

    fn admit(&self, found: &GenerationSet) -> Result<(), EngineError> {
        Self::subject().admit(found)
    }

    async fn rebuild_from(
        &self,
        source: Arc<dyn EventSource>,
        shutdown: CancellationToken,
    ) -> Result<Option<Generation>, EngineError> {
        // The promotion folds the last events into a generation that follows the log, and appends go on with it. One that came from
        // another source would never be as far as the one that serves.
        let source = if self.inline_log().is_some() { self.building_source() } else { source };
        self.rebuild_from(&*source, shutdown).await
    }

    fn touches(&self, event: &RecordedEvent, exceptions: &Exceptions) -> Result<Vec<String>, EngineError> {
        keys_of(&self.projection, event, exceptions)
    }

    async fn plan_rebuild(&self, log: &dyn EventStore) -> Result<RebuildPlan, EngineError> {
        self.plan_rebuild(log).await
    }

    async fn as_of(&self, log: &dyn EventStore, key: &str, moment: Moment) -> Result<DocumentAsOf, RefoldError> {
        refold::as_of(&self.projection, log, &*self.store, key, moment).await
    }

    async fn what_if(&self, log: &dyn EventStore, changes: &WhatIf) -> Result<Alternatives, RefoldError> {
        refold::what_if(&self.projection, log, &*self.store, changes).await
    }

    async fn verify(
        &self,
        log: &dyn EventStore,
        share: f64,
        report: &mut (dyn FnMut(Difference) + Send),
    ) -> Result<Verified, RefoldError> {
        refold::verify(&self.projection, place(self, log, share), report).await
    }

    async fn heal(
        &self,
        log: &dyn EventStore,
        share: f64,
        readers: &dyn Inspect,
        act: &Act,
        report: &mut (dyn FnMut(Difference) + Send),
    ) -> Result<Verified, RefoldError> {
        refold::heal(&self.projection, place(self, log, share), readers, act, report).await
    }
}

/// The documents of `projector` whose keys are in the `share`.
fn place<'a, P: Projection>(projector: &'a Projector<P>, log: &'a dyn EventStore, share: f64) -> refold::Place<'a> {
    refold::Place { log, store: &*projector.store, share, limit: projector.most_document_bytes() }
}

#[async_trait]
impl<P: Projection> Engine for Projector<P> {
    async fn run(&self, shutdown: CancellationToken) -> Result<(), PartError> {
        Ok(self.run(shutdown).await?)
    }

    fn report(&self) -> &StateReport {
        &self.report
    }
}

#[async_trait]
impl<S: TableStore, P: TableProjection<S>> AnyProjector for TableProjector<P, S> {
    fn check(&self) -> Result<(), EngineError> {
        self.check()
    }

    fn admit(&self, found: &GenerationSet) -> Result<(), EngineError> {
        self.subject().admit(found)
    }

    async fn rebuild_from(
        &self,
        source: Arc<dyn EventSource>,
        shutdown: CancellationToken,
    ) -> Result<Option<Generation>, EngineError> {
        self.rebuild_from(&*source, shutdown).await
    }

    fn touches(&self, _: &RecordedEvent, _: &Exceptions) -> Result<Vec<String>, EngineError> {
        Ok(Vec::new())
    }

    async fn plan_rebuild(&self, log: &dyn EventStore) -> Result<RebuildPlan, EngineError> {
        self.plan_rebuild(log).await
    }

    async fn as_of(&self, _: &dyn EventStore, _: &str, _: Moment) -> Result<DocumentAsOf, RefoldError> {
        Err(RefoldError::NoDocuments { name: P::NAME })
    }

    async fn what_if(&self, _: &dyn EventStore, _: &WhatIf) -> Result<Alternatives, RefoldError> {
        Err(RefoldError::NoDocuments { name: P::NAME })
    }

    async fn verify(
        &self,
        _: &dyn EventStore,
        _: f64,
        _: &mut (dyn FnMut(Difference) + Send),
    ) -> Result<Verified, RefoldError> {
        Err(RefoldError::NoDocuments { name: P::NAME })
    }

    async fn heal(
        &self,
        _: &dyn EventStore,
        _: f64,
        _: &dyn Inspect,
        _: &Act,
        _: &mut (dyn FnMut(Difference) + Send),
    ) -> Result<Verified, RefoldError> {
        Err(RefoldError::NoDocuments { name: P::NAME })
    }
}

#[async_trait]
impl<S: TableStore, P: TableProjection<S>> Engine for TableProjector<P, S> {
    async fn run(&self, shutdown: CancellationToken) -> Result<(), PartError> {
        Ok(self.run(shutdown).await?)
    }

    fn report(&self) -> &StateReport {
        &self.report
    }
}

#[async_trait]
impl<P: Policy> Engine for PolicyRunner<P> {
    async fn run(&self, shutdown: CancellationToken) -> Result<(), PartError> {
        Ok(self.run(shutdown).await?)
    }

    fn admits(&self, stored: &str) -> Result<(), EngineError> {
        self.admit(stored)
    }

    fn report(&self) -> &StateReport {
        &self.report
    }
}

#[async_trait]
impl<S: Saga> Engine for SagaPerformer<S> {
    async fn run(&self, shutdown: CancellationToken) -> Result<(), PartError> {
        Ok(self.run(shutdown).await?)
    }

    fn admits(&self, stored: &str) -> Result<(), EngineError> {
        Self::admit(stored)
    }

    fn report(&self) -> &StateReport {
        &self.report
    }
}

#[async_trait]
impl<C: Consumer> Engine for ConsumerRunner<C> {
    async fn run(&self, shutdown: CancellationToken) -> Result<(), PartError> {
        Ok(self.run(shutdown).await?)
    }

    fn admits(&self, stored: &str) -> Result<(), EngineError> {
        self.runner.admit(stored)
    }

    fn report(&self) -> &StateReport {
        &self.runner.report
    }
}
