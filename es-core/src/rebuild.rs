//! Replay: a new generation is folded beside the one that serves and then takes its place.

use std::ops::ControlFlow;

use tokio_util::sync::CancellationToken;

use crate::{
    projection::Projection,
    projector::{Projector, ProjectorError},
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
    pub async fn rebuild(&self, shutdown: CancellationToken) -> Result<Option<Generation>, ProjectorError> {
        worker::persist(P::NAME, &shutdown, || Box::pin(rebuild_once(self, &shutdown))).await
    }
}

/// Resumes the building generation, or begins one, and sees it through to its promotion.
pub(crate) async fn rebuild_once<P: Projection>(
    projector: &Projector<P>,
    shutdown: &CancellationToken,
) -> Result<Option<Generation>, ProjectorError> {
    let building = building(projector).await?;
    let worker = projector.worker(&building).await?;
    worker.run(shutdown, |step| Box::pin(take_its_place(projector, &building, step))).await
}

async fn take_its_place<P: Projection>(
    projector: &Projector<P>,
    building: &Generation,
    step: Step,
) -> Result<ControlFlow<Generation>, ProjectorError> {
    let serves = match step {
        Step::Worked => false,
        Step::AtEnd => match projector.store.promote(building).await {
            Ok(()) => true,
            // By what the old one has folded since: catch up and try again.
            Err(PromoteError::Behind { .. }) => false,
            Err(error) => return Err(ProjectorError::Promote(error)),
        },
        // Another process rebuilds the same generation: wait until it serves.
        Step::Standby => projector.store.serving(P::NAME).await?.as_ref() == Some(building),
    };
    Ok(if serves { ControlFlow::Break(building.clone()) } else { ControlFlow::Continue(()) })
}

async fn building<P: Projection>(projector: &Projector<P>) -> Result<Generation, ProjectorError> {
    loop {
        let found = projector.store.ensure_generation(P::NAME, P::VERSION, GenerationState::Building).await?;
        if found.version == P::VERSION {
            return Ok(found);
        }
        // Left behind by other code: its documents are of no use.
        projector.store.discard(&found).await?;
    }
}
