//! Replay: a new generation is folded beside the one that serves and then takes its place.

use std::{cmp::Ordering, ops::ControlFlow};

use tokio_util::sync::CancellationToken;

use crate::{
    error::EngineError,
    projection::Projection,
    projector::Projector,
    read_model::{Generation, GenerationState, PromoteError},
    worker::{self, Step},
};

impl<P: Projection> Projector<P> {
    /// Rebuilds the read model from the source's first event while the old one keeps serving and
    /// keeps up; the switch is atomic and never goes back in time (R12). Returns the generation
    /// that now serves, or `None` when `shutdown` came first: calling it again goes on where it was
    /// interrupted.
    ///
    /// # Errors
    /// As [`run`](Self::run); the old generation keeps serving.
    ///
    /// # Cancel safety
    /// Dropping the future interrupts the rebuild, as `shutdown` does.
    pub async fn rebuild(&self, shutdown: CancellationToken) -> Result<Option<Generation>, EngineError> {
        worker::persist(P::NAME, &shutdown, || Box::pin(rebuild_once(self, &shutdown))).await
    }
}

/// Resumes the building generation, or begins one, and sees it through to its promotion.
pub(crate) async fn rebuild_once<P: Projection>(
    projector: &Projector<P>,
    shutdown: &CancellationToken,
) -> Result<Option<Generation>, EngineError> {
    let building = building(projector).await?;
    let worker = projector.worker(&building).await?;
    worker.run(shutdown, |step| Box::pin(take_its_place(projector, &building, step))).await
}

async fn take_its_place<P: Projection>(
    projector: &Projector<P>,
    building: &Generation,
    step: Step,
) -> Result<ControlFlow<Generation>, EngineError> {
    if step == Step::AtEnd {
        match projector.store.promote(building).await {
            Ok(()) => return Ok(ControlFlow::Break(building.clone())),
            // By what the old one has folded since: catch up and try again.
            Err(PromoteError::Behind { .. }) => return Ok(ControlFlow::Continue(())),
            // Another worker of the same rebuild was faster, or discarded it.
            Err(PromoteError::NotBuilding) => {}
            Err(error) => return Err(EngineError::Promote(error)),
        }
    } else if step == Step::Worked {
        return Ok(ControlFlow::Continue(()));
    }
    match projector.store.state(building).await? {
        Some(GenerationState::Building) => Ok(ControlFlow::Continue(())),
        Some(GenerationState::Serving) => Ok(ControlFlow::Break(building.clone())),
        None => Err(EngineError::Replaced),
    }
}

async fn building<P: Projection>(projector: &Projector<P>) -> Result<Generation, EngineError> {
    let outdated = |newer: u32| EngineError::Outdated { serving: newer, ours: P::VERSION };
    if let Some(serving) = projector.store.serving(P::NAME).await?.filter(|serving| serving.version > P::VERSION) {
        return Err(outdated(serving.version));
    }
    loop {
        let found = projector.store.ensure_generation(P::NAME, P::VERSION, GenerationState::Building).await?;
        match found.version.cmp(&P::VERSION) {
            Ordering::Equal => return Ok(found),
            Ordering::Greater => return Err(outdated(found.version)),
            // Left behind by older code: its documents are of no use.
            Ordering::Less => projector.store.discard(&found).await?,
        }
    }
}
