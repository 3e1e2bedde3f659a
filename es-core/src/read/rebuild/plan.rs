//! What a rebuild has to do, and about how long it takes.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use crate::{
    codec,
    event::{Recorded, RecordedEvent},
    read::{
        engine_error::EngineError,
        panics::{Panicked, caught},
        projection::Projection,
        projector::{Projector, encode, fold, keys},
        read_model::{Documents, GenerationSet, Reader},
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

/// Does to some events what a rebuild does to them.
#[async_trait]
pub(crate) trait Trial: Send {
    /// Gets what the events need that a rebuild would have in memory, perhaps from the generation that serves. It is not measured.
    async fn prepare(&mut self, serving: Option<&Reader>, events: &[RecordedEvent]) -> Result<(), EngineError>;

    /// Folds them.
    fn fold(&mut self, events: &[RecordedEvent]);
}

/// What a rebuild of `version` of the read model `name` from `log` has to do, if it does to each event what `trial` does.
pub(crate) async fn plan(
    store: &dyn Documents,
    name: &'static str,
    version: u32,
    log: &dyn EventStore,
    mut trial: impl Trial,
) -> Result<RebuildPlan, EngineError> {
    let GenerationSet { serving, building, .. } = store.generations(name).await?;
    let serving = serving.map(|serving| serving.generation.reader);
    let building = building.filter(|building| building.generation.version == version);
    let from = building.map_or(Position::ZERO, |building| building.reached);
    let unread = |error| EngineError::Source(SourceError::Read(error));
    let events = log.head().await.map_err(unread)?.get().saturating_sub(from.get());
    let mut measured = Measured::default();
    let step = (events / SAMPLES).max(EVENTS as u64);
    for sample in (0..events).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        let began = Instant::now();
        let page = log.read_log(Position::new(from.get() + sample), EVENTS).await.map_err(unread)?;
        measured.took += began.elapsed();
        trial.prepare(serving.as_ref(), &page).await?;
        let began = Instant::now();
        let folded = caught(|| trial.fold(&page));
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
    /// measured on up to 8,000 events from all over the log. They are read, folded and encoded one after the other, into the documents
    /// of the generation that serves if there is one: what a rebuild has of them by then is smaller. A rebuild does so at the same
    /// time, and writes the documents beside that.
    ///
    /// # Errors
    /// [`EngineError::Source`] or [`EngineError::Store`], if log or store cannot be read. That an event cannot be folded is left to
    /// the rebuild to say.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn plan_rebuild(&self, log: &dyn EventStore) -> Result<RebuildPlan, EngineError> {
        let trial = FoldTrial { projector: self, documents: HashMap::new() };
        plan(&*self.store, P::NAME, P::VERSION, log, trial).await
    }
}

/// Folds events as well as that goes without those before them.
struct FoldTrial<'a, P: Projection> {
    projector: &'a Projector<P>,
    documents: HashMap<String, Option<P::Document>>,
}

impl<P: Projection> FoldTrial<'_, P> {
    /// The events that can be decoded, with their keys.
    fn touching(&self, events: &[RecordedEvent]) -> Vec<(Recorded<P::Event>, Vec<String>)> {
        let decoded = events.iter().filter_map(|event| event.decode::<P::Event>().ok().flatten());
        let touching = decoded.map(|event| {
            let keys = keys(&self.projector.projection, &event).unwrap_or_default();
            (event, keys)
        });
        touching.collect()
    }
}

#[async_trait]
impl<P: Projection> Trial for FoldTrial<'_, P> {
    async fn prepare(&mut self, serving: Option<&Reader>, events: &[RecordedEvent]) -> Result<(), EngineError> {
        self.documents.clear();
        let Some(serving) = serving else { return Ok(()) };
        let named = caught(|| {
            let touching = self.touching(events).into_iter().flat_map(|(_, keys)| keys);
            touching.collect::<BTreeSet<_>>()
        });
        let named: Vec<_> = named.unwrap_or_default().into_iter().collect();
        let stored = self.projector.store.load(serving, &named, self.projector.document_bytes).await?;
        for (key, stored) in named.into_iter().zip(stored) {
            // That of another version may have another form.
            let document = caught(|| stored.and_then(|stored| codec::decode(&stored).ok()));
            self.documents.insert(key, document.unwrap_or_default());
        }
        Ok(())
    }

    fn fold(&mut self, events: &[RecordedEvent]) {
        let mut folded = BTreeSet::new();
        for (event, keys) in self.touching(events) {
            for key in keys {
                let document = self.documents.entry(key.clone()).or_default();
                // What it cannot do without the events before is no failure.
                let _ = fold(&self.projector.projection, &key, document, &event);
                folded.insert(key);
            }
        }
        for key in &folded {
            if let Some(Some(document)) = self.documents.get(key) {
                let _ = encode::<P>(key, document);
            }
        }
    }
}
