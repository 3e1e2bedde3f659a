//! What a rebuild has to do, and about how long it takes.

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::{
    event::RecordedEvent,
    read::{
        engine_error::EngineError,
        panics::{Panicked, caught},
        projection::Projection,
        projector::{Projector, encode, fold, keys},
        read_model::Documents,
        source::SourceError,
    },
    stream::Position,
    write::store::EventStore,
};

/// From so many places of the log events are tried.
const SAMPLES: u64 = 8;

/// So many events at each.
const EVENTS: usize = 1_000;

/// What a rebuild has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RebuildPlan {
    /// How many events of the log it reads: to the head, from the position that an interrupted rebuild of this version has reached.
    pub events: u64,
    /// About how many bytes the payloads of these events have.
    pub bytes: u64,
    /// About how long it takes if the machine is as busy as it is now.
    pub time: Duration,
}

/// What was measured on some events of the log.
#[derive(Debug, Default)]
struct Measured {
    events: u64,
    bytes: u64,
    took: Duration,
}

impl Measured {
    /// The same for `events`.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "about")]
    fn plan(&self, events: u64) -> RebuildPlan {
        let times = events as f64 / self.events.max(1) as f64;
        RebuildPlan { events, bytes: (self.bytes as f64 * times) as u64, time: self.took.mul_f64(times) }
    }
}

/// What a rebuild of `version` of the read model `name` from `log` has to do, if it does to each event what `fold` does.
pub(crate) async fn plan(
    store: &dyn Documents,
    name: &'static str,
    version: u32,
    log: &dyn EventStore,
    fold: impl Fn(&[RecordedEvent]) + Send + Sync,
) -> Result<RebuildPlan, EngineError> {
    let building = store.generations(name).await?.building;
    let building = building.filter(|building| building.generation.version == version);
    let from = building.map_or(Position::ZERO, |building| building.reached);
    let unread = |error| EngineError::Source(SourceError::Read(error));
    let events = log.head().await.map_err(unread)?.get().saturating_sub(from.get());
    let mut measured = Measured::default();
    let step = (events / SAMPLES).max(EVENTS as u64);
    for sample in (0..events).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let began = Instant::now();
        let page = log.read_log(Position::new(from.get() + sample), EVENTS).await.map_err(unread)?;
        let folded = caught(|| fold(&page));
        measured.took += began.elapsed();
        measured.events += page.len() as u64;
        measured.bytes += page.iter().map(|event| event.data.payload.len() as u64).sum::<u64>();
        if let Err(Panicked) = folded {
            tracing::debug!(projection = name, sample, "an event of the sample cannot be folded");
        }
    }
    Ok(measured.plan(events))
}

impl<P: Projection> Projector<P> {
    /// What a rebuild from `log` has to do: how many events are there is known, since positions are dense; bytes and time are
    /// measured on up to 8,000 events from all over the log. They are read, folded and encoded one after the other. A rebuild does
    /// so at the same time, and writes the documents beside that.
    ///
    /// # Errors
    /// [`EngineError::Source`] or [`EngineError::Store`], if log or store cannot be read. That an event cannot be folded is left to
    /// the rebuild to say.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn plan_rebuild(&self, log: &dyn EventStore) -> Result<RebuildPlan, EngineError> {
        plan(&*self.store, P::NAME, P::VERSION, log, |page| self.try_folding(page)).await
    }

    /// Folds the events as well as that goes without those before them.
    fn try_folding(&self, events: &[RecordedEvent]) {
        let mut documents = std::collections::HashMap::<String, Option<P::Document>>::new();
        for event in events.iter().filter_map(|event| event.decode::<P::Event>().ok().flatten()) {
            for key in keys(&self.projection, &event).unwrap_or_default() {
                let document = documents.entry(key.clone()).or_default();
                // What it cannot do without the events before is no failure.
                let _ = fold(&self.projection, &key, document, &event);
            }
        }
        for (key, document) in &documents {
            let _ = document.as_ref().map(|document| encode::<P>(key, document));
        }
    }
}
