//! A projector's handler: the first events of a batch, folded and written out for one commit.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{Projector, documents::Documents, keys};
use crate::{
    error::{EngineError, Location},
    event::{Recorded, RecordedEvent},
    panics::{Panicked, caught},
    projection::Projection,
    read_model::{Generation, ReadModelError},
    worker::{HANDLE_FOR, Handled, Handler},
};

/// How long events are folded before other tasks of the runtime get a turn.
const SLICE: Duration = Duration::from_millis(1);

/// Why a part has to be folded again, from fewer events.
enum Obstacle {
    /// The event at this index cannot be folded, and some of its documents may hold it already.
    At(usize, EngineError),
    /// A document cannot be written, and it is not known which event made it so.
    Unwritable(EngineError),
}

#[async_trait]
impl<P: Projection> Handler for Projector<P> {
    async fn handle(&self, generation: &Generation, events: &[RecordedEvent], stop: &CancellationToken) -> Handled {
        let (mut most, mut failure) = (events.len(), None);
        while most > 0 {
            match self.part(generation, &events[..most], stop).await {
                Ok(part) if part.done == most => return Handled { failure, ..part },
                // It ended before the event that failed, which the next part meets again.
                Ok(part) => return part,
                Err(Obstacle::At(index, error)) => (most, failure) = (index, Some(error)),
                // Halved until that event stands alone.
                Err(Obstacle::Unwritable(_)) if most > 1 => (most, failure) = (most / 2, None),
                Err(Obstacle::Unwritable(error)) => (most, failure) = (0, Some(error)),
            }
        }
        Handled { failure, ..Handled::default() }
    }
}

/// An event and the keys of its documents; `None` where the projection does not know it.
type Touch<E> = Option<(Vec<String>, Recorded<E>)>;

impl<P: Projection> Projector<P> {
    /// Folds the first of `events` and writes out the documents that they touch.
    async fn part(
        &self,
        generation: &Generation,
        events: &[RecordedEvent],
        stop: &CancellationToken,
    ) -> Result<Handled, Obstacle> {
        let (touching, mut failure) = self.touching(events);
        let mut documents = match self.load(generation, &touching).await {
            Ok(documents) => documents,
            Err(error) => return Ok(Handled { failure: Some(error.into()), ..Handled::default() }),
        };
        let (began, mut slice, mut done) = (Instant::now(), Instant::now(), 0);
        for touch in &touching {
            if stop.is_cancelled() || (done > 0 && began.elapsed() >= HANDLE_FOR) {
                failure = None;
                break;
            }
            if let Some((keys, event)) = touch {
                if let Err(error) = keys.iter().try_for_each(|key| documents.read(key, event)) {
                    failure = Some(error);
                    break;
                }
                for key in keys {
                    documents.fold(&self.projection, key, event).map_err(|error| Obstacle::At(done, error))?;
                    if slice.elapsed() >= SLICE {
                        tokio::task::yield_now().await;
                        slice = Instant::now();
                    }
                }
            }
            done += 1;
        }
        let handled = documents.write(&Location::of(&events[0])).map_err(Obstacle::Unwritable)?;
        Ok(Handled { done, failure, ..handled })
    }

    /// The events and the keys of their documents, up to one for which they cannot be told.
    fn touching(&self, events: &[RecordedEvent]) -> (Vec<Touch<P::Event>>, Option<EngineError>) {
        let mut touching = Vec::with_capacity(events.len());
        for event in events {
            let touch = caught(|| -> Result<Touch<P::Event>, EngineError> {
                let Some(event) = event.decode::<P::Event>()? else { return Ok(None) };
                Ok(Some((keys(&self.projection, &event)?, event)))
            });
            match touch {
                Ok(Ok(touch)) => touching.push(touch),
                Ok(Err(error)) => return (touching, Some(error)),
                Err(Panicked) => return (touching, Some(EngineError::Panicked { event: Location::of(event) })),
            }
        }
        (touching, None)
    }

    async fn load(
        &self,
        generation: &Generation,
        touching: &[Touch<P::Event>],
    ) -> Result<Documents<P>, ReadModelError> {
        let wanted: BTreeSet<&String> = touching.iter().flatten().flat_map(|(keys, _)| keys).collect();
        let wanted: Vec<String> = wanted.into_iter().cloned().collect();
        let stored = if wanted.is_empty() { Vec::new() } else { self.store.load(generation, &wanted).await? };
        Ok(Documents::new(wanted.into_iter().zip(stored)))
    }
}
