//! The handler of a projector: it folds the first events of a batch and encodes the documents for one commit.

#[cfg(test)]
mod tests;

use std::{
    slice,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{Projector, documents::Documents};
use crate::{
    event::{Recorded, RecordedEvent},
    read::{
        engine_error::{EngineError, Location},
        failure::{FailureSettings, cause_of},
        projection::{EventOrder, Projection},
        read_model::{NewLetter, ReadModelError, Reader, Shard, Treatment},
        source::DecodedEvents,
        touch::{Touch, touch},
        worker::{Course, Events, HANDLE_FOR, Handled, Handler},
    },
};

/// How long events are folded before other tasks of the runtime get a turn.
const SLICE: Duration = Duration::from_millis(1);

/// How long documents are folded before they are encoded to know their size, if the sizes of some are known. An encoded document
/// must be decoded again for its next event.
const UNWRITTEN: Duration = Duration::from_millis(10);

/// Events, and their contents where these are decoded for several readers.
struct List<'d, E> {
    events: &'d [RecordedEvent],
    decoded: Option<&'d DecodedEvents<E>>,
}

impl<E> List<'_, E> {
    /// The first `most` of them.
    fn first(&self, most: usize) -> Self {
        Self { events: &self.events[..most], decoded: self.decoded }
    }
}

/// Why a part has to be folded again, from fewer events.
enum Obstacle {
    /// The event at this index cannot be folded into the document under the key, and some of its documents may hold it already.
    At(usize, String, Box<EngineError>),
    /// The documents cannot be written, and it is not known which event caused that.
    Unwritable(EngineError),
}

#[async_trait]
impl<P: Projection> Handler for Projector<P> {
    async fn handle(&self, reader: &Reader, events: Events<'_>, stop: &CancellationToken) -> Handled {
        let Events { list, course, is_ahead, .. } = events;
        let mut kept = self.kept.take(&events, self.document_bytes);
        if is_ahead && kept.is_new {
            return Handled::default();
        }
        let (documents, decoded) = (&mut kept.documents, events.decoded().await);
        let handled = match list.first() {
            Some(event) if course.gives_up == Some(event.position) => {
                self.give_up(reader, event, &course, stop, documents).await
            }
            _ => {
                let list = List { events: list, decoded: decoded.as_ref() };
                self.fold(reader, list, &course, stop, documents, is_ahead).await
            }
        };
        self.report.handles(None);
        let goes_on = documents.has_all_that_was_folded();
        self.kept.put(&events, kept, &handled);
        Handled { goes_on, ..handled }
    }

    fn failures(&self) -> Option<&FailureSettings> {
        Some(&self.failures)
    }

    fn failed(&self, failure: &EngineError) {
        self.report.failed(failure);
    }

    fn forget(&self, shard: &Shard) {
        self.kept.forget(shard);
    }
}

impl<P: Projection> Projector<P> {
    /// Folds the first of `list`, as many as fit into one commit.
    async fn fold(
        &self,
        reader: &Reader,
        list: List<'_, P::Event>,
        course: &Course<'_>,
        stop: &CancellationToken,
        documents: &mut Documents<P>,
        is_ahead: bool,
    ) -> Handled {
        let (mut most, mut failure) = (list.events.len(), None);
        while most > 0 {
            let part = self.part(reader, list.first(most), course, stop, documents).await;
            if part.is_err() {
                // They may hold half of it.
                documents.clear();
                if is_ahead {
                    // The store does not have yet what they held.
                    return Handled::default();
                }
            }
            match part {
                Ok(part) if part.done == most => return Handled { failure, ..part },
                // It ended before the event that failed. The next part begins with that event.
                Ok(part) => return part,
                Err(Obstacle::At(index, _, error)) => (most, failure) = (index, Some(*error)),
                // Halved until the part is that event alone.
                Err(Obstacle::Unwritable(_)) if most > 1 => (most, failure) = (most / 2, None),
                Err(Obstacle::Unwritable(error)) => (most, failure) = (0, Some(error)),
            }
        }
        Handled { failure, ..Handled::default() }
    }

    /// Folds `event` into those of its documents for which that works, and parks the other keys.
    async fn give_up(
        &self,
        reader: &Reader,
        event: &RecordedEvent,
        course: &Course<'_>,
        stop: &CancellationToken,
        documents: &mut Documents<P>,
    ) -> Handled {
        let (mut parked, mut causes) = (course.parked.clone(), course.refused.clone());
        parked.extend(causes.keys().cloned());
        loop {
            let course = Course { parked: &parked, ..*course };
            let alone = List { events: slice::from_ref(event), decoded: None };
            let part = self.part(reader, alone, &course, stop, documents).await;
            if part.is_err() {
                documents.clear();
            }
            let (key, failure) = match part {
                Ok(Handled { failure: Some(failure), .. }) if failure.is_of_event() => (None, failure),
                Ok(mut part) => {
                    for letter in &mut part.letters {
                        if let Some(cause) = causes.remove(&letter.key) {
                            (letter.cause, letter.attempts) = (Some(cause), course.attempts(event.position));
                        }
                    }
                    return part;
                }
                Err(Obstacle::At(_, key, failure)) => (Some(key), *failure),
                Err(Obstacle::Unwritable(failure)) => (failure.key().map(str::to_owned), failure),
            };
            let failed = match key {
                Some(key) => vec![key],
                None => match self.touch(event, None, &course) {
                    Ok(touch) => touch.keys,
                    // Without the event's content, only the order per stream tells the key.
                    Err(_) if P::ORDER == EventOrder::PerStream => vec![event.stream.id().to_owned()],
                    Err(reason) => return unparkable(event, reason),
                },
            };
            let cause = cause_of(&failure);
            let mut is_new = false;
            for key in failed {
                is_new |= parked.insert(key.clone());
                causes.insert(key, cause.clone());
            }
            if !is_new {
                return unparkable(event, failure);
            }
        }
    }

    /// Folds the first of `list` and encodes the documents that they touch.
    ///
    /// The bytes of loaded and of folded documents are limited (R17). The size of a folded document is known only when it is
    /// encoded. So documents are encoded in between: as often as that takes no more time than the folding, and when new
    /// documents as large as the earlier ones would exceed the limit.
    async fn part(
        &self,
        reader: &Reader,
        list: List<'_, P::Event>,
        course: &Course<'_>,
        stop: &CancellationToken,
        documents: &mut Documents<P>,
    ) -> Result<Handled, Obstacle> {
        let events = list.events;
        let (touching, mut failure) = self.touching(&list, course);
        let wanted = documents.missing(touching.iter().flat_map(|touch| &touch.keys));
        if let Err(error) = self.load(reader, wanted, self.document_bytes, documents).await {
            return Ok(Handled { failure: Some(error.into()), ..Handled::default() });
        }
        let first = Location::of(&events[0]);
        let (began, mut pace, mut done, mut letters) = (Instant::now(), Pace::begin(), 0, Vec::new());
        for (touch, raw) in touching.iter().zip(events) {
            let is_enough = began.elapsed() >= HANDLE_FOR || documents.written >= self.document_bytes;
            if stop.is_cancelled() || (done > 0 && is_enough) {
                failure = None;
                break;
            }
            if letters.len() + touch.waiting.len() > course.room {
                let (event, limit) = (Location::of(raw), self.failures.most_letters);
                failure = (done == 0).then_some(EngineError::TooManyLetters { event, limit });
                break;
            }
            if let Some(event) = &touch.event {
                let keys = &touch.keys;
                match self.read(reader, keys, event, done == 0, documents).await {
                    Ok(true) => {}
                    Ok(false) => {
                        failure = None;
                        break;
                    }
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
                // A fold that never returns is seen.
                self.report.handles(Some(event.position));
                for key in keys {
                    documents
                        .fold(&self.projection, key, event, self.failures.time_limit)
                        .map_err(|error| Obstacle::At(done, key.clone(), Box::new(error)))?;
                    if pace.is_over() {
                        if pace.may_write(documents.is_any_size_known()) || documents.expected() >= self.document_bytes
                        {
                            let before = Instant::now();
                            self.write(documents, &first)?;
                            pace.has_written(before);
                        }
                        tokio::task::yield_now().await;
                        pace.slice = Instant::now();
                    }
                }
                let settled = documents.settle(keys, event);
                settled.map_err(|(key, error)| Obstacle::At(done, key, error))?;
            }
            for key in &touch.waiting {
                letters.push(NewLetter { key: key.clone(), event: raw.clone(), cause: None, attempts: 0 });
            }
            done += 1;
        }
        self.write(documents, &first)?;
        Ok(Handled { letters, ..documents.handled(done, failure) })
    }

    /// The events and the keys of their documents, up to the first event whose keys are invalid, and no more keys than would fill
    /// the memory for documents.
    fn touching<'d>(
        &self,
        list: &List<'d, P::Event>,
        course: &Course<'_>,
    ) -> (Vec<Touch<'d, P::Event>>, Option<EngineError>) {
        let (mut touching, mut bytes) = (Vec::with_capacity(list.events.len()), 0);
        for (nth, event) in list.events.iter().enumerate() {
            let known = list.decoded.and_then(|decoded| decoded.get(nth));
            match self.touch(event, known, course) {
                Ok(touch) => {
                    bytes += touch.keys.iter().map(String::len).sum::<usize>();
                    touching.push(touch);
                }
                Err(error) => return (touching, Some(error)),
            }
            if bytes >= self.document_bytes {
                break;
            }
        }
        (touching, None)
    }

    /// What becomes of `event`.
    fn touch<'d>(
        &self,
        event: &RecordedEvent,
        known: Option<&'d Recorded<P::Event>>,
        course: &Course<'_>,
    ) -> Result<Touch<'d, P::Event>, EngineError> {
        let Some(only) = course.only else {
            return touch(&self.projection, event, known, |key| match () {
                () if !course.slice.holds(key) => Treatment::LeaveOut,
                () if !course.parked.is_empty() && course.parked.contains(key) => Treatment::Wait,
                () => Treatment::Handle,
            });
        };
        let mut touch = touch(&self.projection, event, known, |_| Treatment::Handle)?;
        let names_any = !touch.keys.is_empty();
        touch.keys.retain(|key| key == only);
        if names_any && touch.keys.is_empty() {
            return Err(EngineError::OtherKeys { key: only.to_owned(), event: Location::of(event) });
        }
        Ok(touch)
    }

    /// Decodes the documents of an event; `false` if not all of them are loaded. For the first event of a part it loads as much
    /// as one event may touch.
    async fn read(
        &self,
        reader: &Reader,
        keys: &[String],
        event: &Recorded<P::Event>,
        is_first: bool,
        documents: &mut Documents<P>,
    ) -> Result<bool, EngineError> {
        let mut missing = Vec::new();
        for key in keys {
            if !documents.read(key, event)? {
                missing.push(key.clone());
            }
        }
        if !missing.is_empty() && !is_first {
            return Ok(false);
        }
        let wanted = missing.len();
        let limit = self.most_document_bytes();
        let budget = limit.saturating_sub(documents.loaded(keys));
        let loaded = self.load(reader, missing, budget, documents).await?;
        // Only its own documents: a part also holds those of later events.
        let bytes = documents.loaded(keys);
        if loaded < wanted || bytes > limit {
            let documents = keys.len();
            return Err(EngineError::TooLarge { event: Location::of(event), documents, bytes, limit });
        }
        for key in keys {
            documents.read(key, event)?;
        }
        Ok(true)
    }

    /// Loads the first documents under `keys` until they hold `budget` bytes, and returns how many these are.
    async fn load(
        &self,
        reader: &Reader,
        keys: Vec<String>,
        budget: usize,
        documents: &mut Documents<P>,
    ) -> Result<usize, ReadModelError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let stored = self.store.load(reader, &keys, budget).await?;
        let loaded = stored.len();
        for (key, document) in keys.into_iter().zip(stored) {
            documents.add(key, document);
        }
        Ok(loaded)
    }

    /// Encodes what was folded. If that is too much, the part is folded again from fewer events.
    fn write(&self, documents: &mut Documents<P>, first: &Location) -> Result<(), Obstacle> {
        documents.write(first).map_err(Obstacle::Unwritable)?;
        let (bytes, limit) = (documents.written, self.most_document_bytes());
        if bytes > limit {
            let (event, documents) = (first.clone(), documents.folded());
            return Err(Obstacle::Unwritable(EngineError::TooLarge { event, documents, bytes, limit }));
        }
        Ok(())
    }
}

fn unparkable(event: &RecordedEvent, reason: EngineError) -> Handled {
    let failure = EngineError::Unparkable { event: Location::of(event), reason: Box::new(reason) };
    Handled { failure: Some(failure), ..Handled::default() }
}

/// When other tasks get a turn, and when documents are encoded in between.
struct Pace {
    slice: Instant,
    written: Instant,
    writing: Duration,
}

impl Pace {
    fn begin() -> Self {
        Self { slice: Instant::now(), written: Instant::now(), writing: Duration::ZERO }
    }

    fn is_over(&self) -> bool {
        self.slice.elapsed() >= SLICE
    }

    /// Whether the folding since the last encoding has taken as long as that encoding. Most parts take less than [`UNWRITTEN`]
    /// and encode each document once.
    fn may_write(&self, is_any_size_known: bool) -> bool {
        let least = if is_any_size_known { UNWRITTEN } else { Duration::ZERO };
        self.written.elapsed() >= self.writing.max(least)
    }

    fn has_written(&mut self, before: Instant) {
        self.written = Instant::now();
        self.writing = self.written - before;
    }
}
