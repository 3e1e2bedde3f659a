//! Rebuilds: a new generation is folded while the old one serves, and then replaces it.

mod builder;
mod drafts;
mod plan;
mod throttle;

pub use plan::RebuildPlan;
pub(crate) use plan::{Trial, plan};
pub use throttle::{Throttle, Throttling};

use std::{ops::ControlFlow, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::read::{
    candidate::{Candidate, Subject},
    engine_error::EngineError,
    projection::Projection,
    projector::Projector,
    read_model::Generation,
    rebuild::builder::Builder,
    source::EventSource,
    standby::waits_while_paused,
    worker::{self, Handler, Step},
};

/// What a build reads of `source`.
pub(crate) fn throttled(throttle: Option<&Throttle>, source: &Arc<dyn EventSource>) -> Arc<dyn EventSource> {
    throttle.map_or_else(|| source.clone(), |throttle| throttle.on(source.clone()))
}

impl<P: Projection> Projector<P> {
    /// Rebuilds the read model from the first event of the source while the old one serves and follows new events. The switch is
    /// atomic and never goes back in time (R12). Returns the generation that now serves, or `None` when `shutdown` came first:
    /// the next call continues from there.
    ///
    /// It also replaces a newer [`Projection::VERSION`]: this is the way back to an older program. The newer version is
    /// withdrawn, so its workers stand by and do not rebuild it. A rebuild by the newer program makes it serve again.
    ///
    /// While an operator has [paused](crate::Operations::pause) the reader it waits, without a lease; what was folded since the last
    /// write, five seconds or for a large model up to one minute, is then folded again.
    ///
    /// # Errors
    /// As [`run`](Self::run), and [`EngineError::Discarded`] when a rebuild of another version was begun
    /// later than this one, or an operator has [cancelled](crate::Operations::cancel_rebuild) it; the old generation keeps serving.
    ///
    /// # Cancel safety
    /// Dropping the future interrupts the rebuild, as `shutdown` does.
    pub async fn rebuild(&self, shutdown: CancellationToken) -> Result<Option<Generation>, EngineError> {
        self.rebuild_from(&*self.building_source(), shutdown).await
    }

    /// As [`rebuild`](Self::rebuild), from another source than the one that the projector follows.
    pub(crate) async fn rebuild_from(
        &self,
        source: &dyn EventSource,
        shutdown: CancellationToken,
    ) -> Result<Option<Generation>, EngineError> {
        // It begins once and not with each attempt, so of two rebuilds of different versions the later one wins.
        let begun = worker::persist(P::NAME, &self.report, &shutdown, || {
            Box::pin(async { Candidate::begin(&*self.store, &Subject::of::<P>()).await.map(Some) })
        });
        let Some(candidate) = begun.await? else { return Ok(None) };
        waits_while_paused(P::NAME, &shutdown, || {
            Box::pin(worker::persist(P::NAME, &self.report, &shutdown, || {
                Box::pin(async {
                    let built = self.build(source, &candidate, &shutdown, |_| {}).await;
                    self.report.built(None);
                    built.map_err(|error| match error {
                        EngineError::Replaced => EngineError::Discarded,
                        other => other,
                    })
                })
            }))
        })
        .await
    }
}

impl<P: Projection> Projector<P> {
    /// Folds the events of `source` into the candidate until it serves; `after_step` sees each step. Documents stay in memory
    /// as far as they fit.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) async fn build(
        &self,
        source: &dyn EventSource,
        candidate: &Candidate<'_>,
        shutdown: &CancellationToken,
        after_step: impl Fn(Step) + Send + Sync,
    ) -> Result<Option<Generation>, EngineError> {
        let builder = Builder::new(self);
        let built = self.build_by(&builder, source, candidate, shutdown, &after_step).await;
        let is_not_unique = matches!(built, Err(EngineError::NotUnique { .. }));
        if is_not_unique || (built.is_err() && builder.has_given_up()) {
            return self.build_by(self, source, candidate, shutdown, &after_step).await;
        }
        built
    }

    async fn build_by(
        &self,
        handler: &dyn Handler,
        source: &dyn EventSource,
        candidate: &Candidate<'_>,
        shutdown: &CancellationToken,
        after_step: &(impl Fn(Step) + Send + Sync),
    ) -> Result<Option<Generation>, EngineError> {
        let candidate = &candidate.again();
        let worker = self.worker(handler, source, &candidate.generation.reader).await?;
        let steps = worker.run(shutdown, |step| {
            Box::pin(async move {
                after_step(step);
                let serves = candidate.after(step).await?;
                Ok(if serves { ControlFlow::Break(candidate.generation.clone()) } else { ControlFlow::Continue(()) })
            })
        });
        steps.await
    }
}
