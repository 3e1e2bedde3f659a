//! Rebuilds of the read models of a service.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Service, engine::AnyProjector};
use crate::{
    read::{
        engine_error::EngineError,
        projection::Projection,
        read_model::{Act, Generation, Operations},
        source::EventSource,
        worker_state::Failure,
    },
    stream::Position,
};

pub use crate::read::rebuild::RebuildPlan;

impl Service {
    /// Rebuilds the read model of `P` from the first event of `source` while the old one keeps serving, as
    /// [`Projector::rebuild`](crate::Projector::rebuild) does. This process need not run its projector.
    ///
    /// `source` is [`source()`](Self::source), which its projector follows too, or [`log()`](Self::log); a
    /// [`Throttle`](crate::Throttle) makes it give way to appends. Cancelling `shutdown` interrupts the rebuild; where nothing is to
    /// interrupt it, a new token will do. It is the type of the crate `tokio-util`, and also `evenfold::CancellationToken`.
    ///
    /// ```
    /// # use es_core::{MemoryStore, Service, testing::account::{Account, AccountCommand, Ledger}};
    /// use tokio_util::sync::CancellationToken;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let service = Service::builder("accounts", MemoryStore::new())
    /// #     .aggregate::<Account>()
    /// #     .projection(Ledger::<1>::default())
    /// #     .start()
    /// #     .await?;
    /// # let receipt = service.repository::<Account>().execute("a", AccountCommand::Deposit(7)).await?;
    /// # service.read_model::<Ledger<1>>().wait_for(receipt.token, std::time::Duration::from_secs(5)).await?;
    /// let replaced = service.rebuild::<Ledger<1>>(service.log(), CancellationToken::new()).await?;
    /// assert!(replaced.is_some()); // the generation that serves from now on
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// It returns `None` when it was interrupted.
    ///
    /// An [inline](crate::ServiceBuilder::inline) read model is rebuilt from the log of the service, whatever `source` is.
    ///
    /// # Errors
    /// [`RebuildError`]; the old generation keeps serving.
    ///
    /// # Cancel safety
    /// Dropping the future interrupts the rebuild, as `shutdown` and the shutdown of the service do.
    pub async fn rebuild<P: Projection>(
        &self,
        source: impl EventSource,
        shutdown: CancellationToken,
    ) -> Result<Option<Generation>, RebuildError> {
        self.rebuild_named(P::NAME, source, shutdown).await
    }

    /// As [`rebuild_named`](Self::rebuild_named), for an operator: `rebuild` is recorded before it begins, and `promote` when the new
    /// generation serves (R22). Each call records it, also one that continues a rebuild.
    ///
    /// # Errors
    /// [`RebuildError`]; the old generation keeps serving.
    ///
    /// # Cancel safety
    /// As [`rebuild`](Self::rebuild). Between the promotion and its record the record is missing.
    pub async fn rebuild_by(
        &self,
        name: &str,
        source: impl EventSource,
        act: &Act,
        shutdown: CancellationToken,
    ) -> Result<Option<Generation>, RebuildError> {
        self.rebuildable(name)?;
        let store = self.store();
        store.record("rebuild", name, act).await.map_err(EngineError::Store)?;
        let built = self.rebuild_named(name, source, shutdown).await?;
        if built.is_some()
            && let Err(error) = store.record("promote", name, act).await
        {
            // It serves, and the record of the rebuild tells who wanted that.
            tracing::warn!(name, error = &error as &dyn std::error::Error, "the promotion was not recorded");
        }
        Ok(built)
    }

    /// As [`rebuild`](Self::rebuild), by the name of the projection; also for a [table projection](crate::TableProjection).
    ///
    /// # Errors
    /// [`RebuildError`]; the old generation keeps serving.
    ///
    /// # Cancel safety
    /// As [`rebuild`](Self::rebuild).
    pub async fn rebuild_named(
        &self,
        name: &str,
        source: impl EventSource,
        shutdown: CancellationToken,
    ) -> Result<Option<Generation>, RebuildError> {
        let projector = self.rebuildable(name)?;
        let stop = self.stops().child_token();
        let rebuilding = projector.rebuild_from(Arc::new(source), stop.clone());
        tokio::pin!(rebuilding);
        tokio::select! {
            rebuilt = &mut rebuilding => return Ok(rebuilt?),
            () = shutdown.cancelled() => stop.cancel(),
        }
        Ok(rebuilding.await?)
    }

    /// What a rebuild of the read model `name` has to do, and about how long it takes, as
    /// [`Projector::plan_rebuild`](crate::Projector::plan_rebuild) says.
    ///
    /// # Errors
    /// [`RebuildError`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn plan_rebuild(&self, name: &str) -> Result<RebuildPlan, RebuildError> {
        Ok(self.rebuildable(name)?.plan_rebuild(&self.store()).await?)
    }

    /// How far a rebuild of the read model `name` in this process has folded: further than its last commit. `None` when none is at
    /// work, or it is yet to begin.
    ///
    /// # Errors
    /// [`RebuildError::Unknown`].
    pub fn rebuilding(&self, name: &str) -> Result<Option<Position>, RebuildError> {
        Ok(self.rebuildable(name)?.report().building())
    }

    /// How many attempts of the part that keeps the read model `name`, or that rebuilds it, have failed in this process; and how,
    /// those after the first `known` ones. Of many at once the last 16 are told.
    ///
    /// # Errors
    /// [`RebuildError::Unknown`].
    pub fn failures_after(&self, name: &str, known: u64) -> Result<(u64, Vec<Failure>), RebuildError> {
        Ok(self.rebuildable(name)?.report().failures_after(known))
    }

    /// The projector of the read model `name`.
    fn rebuildable(&self, name: &str) -> Result<&dyn AnyProjector, RebuildError> {
        let found = self.parts().iter().find(|part| part.name == name).and_then(|part| part.projector());
        found.ok_or_else(|| match self.live_named(name) {
            Some(name) => RebuildError::Live { name },
            None => RebuildError::Unknown { name: name.to_owned(), known: self.read_model_names() },
        })
    }
}

/// Why a read model was not rebuilt.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// No projection of this name is registered.
    #[error("the service has no read model {name:?}; it has {known:?}")]
    Unknown {
        /// The name that was given.
        name: String,
        /// The names that are registered.
        known: Vec<String>,
    },
    /// The read model is [live](crate::ServiceBuilder::live): there is nothing to rebuild.
    #[error("{name} is a live read model: it is folded from the log at each read, and nothing of it is stored")]
    Live {
        /// The name of the projection.
        name: &'static str,
    },
    /// The rebuild failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl RebuildError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::Live { .. } => false,
            Self::Engine(error) => error.is_transient(),
        }
    }
}
