//! The handler of a projector: it folds the first events of a batch and encodes the documents for one commit.

use std::{
    collections::{BTreeMap, HashSet},
    slice,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{Projector, documents::Documents, keys};
use crate::{
    event::{Recorded, RecordedEvent},
    read::{
        engine_error::{EngineError, Location},
        failure::{FailureSettings, cause_of},
        panics::{Panicked, caught},
        projection::{EventOrder, Projection},
        read_model::{Generation, NewLetter, ReadModelError},
        worker::{Course, Events, HANDLE_FOR, Handled, Handler},
    },
};

/// How long events are folded before other tasks of the runtime get a turn.
const SLICE: Duration = Duration::from_millis(1);

/// How long documents are folded before they are encoded to know their size, if the sizes of some are known. An encoded document
/// must be decoded again for its next event.
const UNWRITTEN: Duration = Duration::from_millis(10);

/// Why a part has to be folded again, from fewer events.
enum Obstacle {
    /// The event at this index cannot be folded into the document under the key, and some of its documents may hold it already.
    At(usize, String, Box<EngineError>),
    /// The documents cannot be written, and it is not known which event caused that.
    Unwritable(EngineError),
}

#[async_trait]
impl<P: Projection> Handler for Projector<P> {
    async fn handle(&self, generation: &Generation, events: Events<'_>, stop: &CancellationToken) -> Handled {
        let Events { list: events, course, .. } = events;
        let handled = match events.first() {
            Some(event) if course.gives_up == Some(event.position) => {
                self.give_up(generation, event, &course, stop).await
            }
            _ => self.fold(generation, events, &course, stop).await,
        };
        self.report.handles(None);
        handled
    }

    fn failures(&self) -> Option<&FailureSettings> {
        Some(&self.failures)
    }

    fn failed(&self, failure: &EngineError) {
        self.report.failed(failure);
    }
}

/// An event and what becomes of it.
struct Touch<E> {
    /// `None` where the projection does not know the event, or where all of it is parked.
    event: Option<Recorded<E>>,
    /// The documents that it is folded into.
    keys: Vec<String>,
    /// The keys for which it goes to the dead letters.
    parked: Vec<String>,
}

impl<P: Projection> Projector<P> {
    /// Folds the first of `events`, as many as fit into one commit.
    async fn fold(
        &self,
        generation: &Generation,
        events: &[RecordedEvent],
        course: &Course<'_>,
        stop: &CancellationToken,
    ) -> Handled {
        let (mut most, mut failure) = (events.len(), None);
        while most > 0 {
            match self.part(generation, &events[..most], course, stop).await {
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
        generation: &Generation,
        event: &RecordedEvent,
        course: &Course<'_>,
        stop: &CancellationToken,
    ) -> Handled {
        let (mut parked, mut causes) = (course.parked.clone(), BTreeMap::new());
        loop {
            let course = Course { parked: &parked, ..*course };
            let (key, failure) = match self.part(generation, slice::from_ref(event), &course, stop).await {
                Ok(Handled { failure: Some(failure), .. }) if failure.is_of_event() => (None, failure),
                Ok(mut part) => {
                    for letter in &mut part.letters {
                        if let Some(cause) = causes.remove(&letter.key) {
                            (letter.cause, letter.attempts) = (Some(cause), course.attempts);
                        }
                    }
                    return part;
                }
                Err(Obstacle::At(_, key, failure)) => (Some(key), *failure),
                Err(Obstacle::Unwritable(failure)) => (failure.key().map(str::to_owned), failure),
            };
            let failed = match key {
                Some(key) => vec![key],
                None => match self.touch(event, &course) {
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

    /// Folds the first of `events` and encodes the documents that they touch.
    ///
    /// The bytes of loaded and of folded documents are limited (R17). The size of a folded document is known only when it is
    /// encoded. So documents are encoded in between: as often as that takes no more time than the folding, and when new
    /// documents as large as the earlier ones would exceed the limit.
    async fn part(
        &self,
        generation: &Generation,
        events: &[RecordedEvent],
        course: &Course<'_>,
        stop: &CancellationToken,
    ) -> Result<Handled, Obstacle> {
        let (touching, mut failure) = self.touching(events, course);
        let mut documents = Documents::new();
        if let Err(error) = self.load(generation, wanted(&touching), self.document_bytes, &mut documents).await {
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
            if letters.len() + touch.parked.len() > course.room {
                let (event, limit) = (Location::of(raw), self.failures.most_letters);
                failure = (done == 0).then_some(EngineError::TooManyLetters { event, limit });
                break;
            }
            if let Some(event) = &touch.event {
                let keys = &touch.keys;
                match self.read(generation, keys, event, done == 0, &mut documents).await {
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
                            self.write(&mut documents, &first)?;
                            pace.has_written(before);
                        }
                        tokio::task::yield_now().await;
                        pace.slice = Instant::now();
                    }
                }
            }
            for key in &touch.parked {
                letters.push(NewLetter { key: key.clone(), event: raw.clone(), cause: None, attempts: 0 });
            }
            done += 1;
        }
        self.write(&mut documents, &first)?;
        Ok(Handled { letters, ..documents.into_handled(done, failure) })
    }

    /// The events and the keys of their documents, up to the first event whose keys are invalid, and no more keys than would fill
    /// the memory for documents.
    fn touching(&self, events: &[RecordedEvent], course: &Course<'_>) -> (Vec<Touch<P::Event>>, Option<EngineError>) {
        let (mut touching, mut bytes) = (Vec::with_capacity(events.len()), 0);
        for event in events {
            match self.touch(event, course) {
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
    fn touch(&self, event: &RecordedEvent, course: &Course<'_>) -> Result<Touch<P::Event>, EngineError> {
        let is_parked = |key: &str| !course.parked.is_empty() && course.parked.contains(key);
        if P::ORDER == EventOrder::PerStream && is_parked(event.stream.id()) {
            // The stream is parked, perhaps because its events cannot be decoded.
            return Ok(Touch { event: None, keys: Vec::new(), parked: vec![event.stream.id().to_owned()] });
        }
        let touch = caught(|| -> Result<Touch<P::Event>, EngineError> {
            let event = event.decode::<P::Event>()?;
            let keys = event.as_ref().map_or(Ok(Vec::new()), |event| keys(&self.projection, event))?;
            Ok(Touch { event, keys, parked: Vec::new() })
        });
        let mut touch = touch.map_err(|Panicked| EngineError::Panicked { event: Location::of(event) })??;
        if let Some(only) = course.only {
            let names_any = !touch.keys.is_empty();
            touch.keys.retain(|key| key == only);
            if names_any && touch.keys.is_empty() {
                return Err(EngineError::OtherKeys { key: only.to_owned(), event: Location::of(event) });
            }
        } else if !course.parked.is_empty() {
            touch.parked = touch.keys.extract_if(.., |key| is_parked(key)).collect();
        }
        Ok(touch)
    }

    /// Decodes the documents of an event; `false` if not all of them are loaded. For the first event of a part it loads as much
    /// as one event may touch.
    async fn read(
        &self,
        generation: &Generation,
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
        let loaded = self.load(generation, missing, budget, documents).await?;
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
        generation: &Generation,
        keys: Vec<String>,
        budget: usize,
        documents: &mut Documents<P>,
    ) -> Result<usize, ReadModelError> {
        if keys.is_empty() {
            return Ok(0);
        }
        let stored = self.store.load(generation, &keys, budget).await?;
        let loaded = stored.len();
        documents.add(keys.into_iter().zip(stored));
        Ok(loaded)
    }

    /// Encodes what was folded. If that is too much, the part is folded again from fewer events.
    fn write(&self, documents: &mut Documents<P>, first: &Location) -> Result<(), Obstacle> {
        documents.write(first).map_err(Obstacle::Unwritable)?;
        let (bytes, limit) = (documents.written, self.most_document_bytes());
        if bytes > limit {
            let (event, documents) = (first.clone(), documents.count());
            return Err(Obstacle::Unwritable(EngineError::TooLarge { event, documents, bytes, limit }));
        }
        Ok(())
    }
}

/// All keys, each once, those of the first events first.
fn wanted<E>(touching: &[Touch<E>]) -> Vec<String> {
    let mut seen = HashSet::new();
    let keys = touching.iter().flat_map(|touch| &touch.keys);
    keys.filter(|key| seen.insert(key.as_str())).cloned().collect()
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

#[cfg(test)]
mod tests {

    use uuid::Uuid;

    use super::*;
    use crate::{
        memory::MemoryStore,
        read::{
            projection::{FoldResult, Keys},
            read_model::{Changes, GenerationState, Generations, Leases, Takeover},
            source::LogSource,
        },
        testing::{account::AccountEvent, recorded},
    };

    /// Gives each account a document of as many bytes as are deposited, and `width` of them.
    struct Bulky {
        width: usize,
    }

    impl Projection for Bulky {
        const NAME: &'static str = "bulky";
        type Event = AccountEvent;
        type Document = String;

        fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
            Keys::many((0..self.width).map(|number| format!("{}-{number:05}", event.stream.id())))
        }

        fn fold(&self, text: &mut Option<String>, event: &Recorded<AccountEvent>) -> FoldResult {
            let AccountEvent::Deposited { amount } = event.data else { return Ok(()) };
            text.get_or_insert_default().extend(std::iter::repeat_n('x', usize::try_from(amount).unwrap_or_default()));
            Ok(())
        }
    }

    async fn bulky(width: usize, budget: usize) -> (Projector<Bulky>, Generation, MemoryStore) {
        let store = MemoryStore::new();
        let generation = store.ensure_generation("bulky", 1, GenerationState::Serving).await.expect("made");
        let source = LogSource::new(store.clone());
        let projector = Projector::new(Bulky { width }, source, store.clone()).document_bytes(budget);
        (projector, generation, store)
    }

    fn deposits(amounts: &[(&'static str, u64)]) -> Vec<RecordedEvent> {
        recorded(amounts.iter().map(|(id, amount)| (*id, AccountEvent::Deposited { amount: *amount })))
    }

    #[tokio::test]
    async fn r17_a_part_ends_before_documents_that_were_not_loaded() {
        let (projector, generation, store) = bulky(1, 10_000).await;
        let first = deposits(&[("a", 6_000), ("b", 6_000), ("c", 6_000), ("d", 6_000)]);
        let (mut rest, mut upserts) = (&first[..], Vec::new());
        // On a loaded machine it may take more than one part.
        while !rest.is_empty() {
            let made = projector.handle(&generation, Events::of_log(rest), &CancellationToken::new()).await;
            assert!(made.done > 0 && made.failure.is_none(), "{made:?}");
            upserts.extend(made.upserts);
            rest = &rest[made.done..];
        }
        let (shard, ttl) = (LogSource::shard(), Duration::from_mins(1));
        store.ensure_shards(&generation, std::slice::from_ref(&shard)).await.expect("ensured");
        let lease = store.acquire(&generation, &shard, Uuid::now_v7(), Takeover::WhenFree, ttl).await;
        let changes = Changes { upserts, ..Changes::default() };
        store.commit(&lease.expect("asked").expect("free"), changes).await.expect("committed");
        let more = deposits(&[("a", 1), ("a", 1), ("b", 1), ("c", 1), ("a", 1)]);
        let part = projector.handle(&generation, Events::of_log(&more), &CancellationToken::new()).await;
        // The one with which the budget is exceeded is the last.
        assert_eq!((part.done, part.upserts.len(), part.failure.is_none()), (3, 2, true));
        assert_eq!(part.upserts[0].1.len(), 6_004, "the quotes, too");
    }

    /// Seen to fail where the documents of other events counted too: the first event was taken for too large.
    #[tokio::test]
    async fn r17_an_event_is_too_large_only_by_its_own_documents() {
        let (projector, generation, store) = bulky(1, 1_000).await;
        let first = [deposits(&[("a", 900)]), deposits(&[("b", 7_900)])];
        let (shard, ttl) = (LogSource::shard(), Duration::from_mins(1));
        store.ensure_shards(&generation, std::slice::from_ref(&shard)).await.expect("ensured");
        for events in first {
            let made = projector.handle(&generation, Events::of_log(&events), &CancellationToken::new()).await;
            assert_eq!((made.done, made.failure.is_none()), (1, true));
            let lease = store.acquire(&generation, &shard, Uuid::now_v7(), Takeover::Always, ttl).await;
            let changes = Changes { upserts: made.upserts, ..Changes::default() };
            store.commit(&lease.expect("asked").expect("taken"), changes).await.expect("committed");
        }
        let more = deposits(&[("a", 1), ("b", 1), ("a", 1)]);
        let mut rest = &more[..];
        while !rest.is_empty() {
            let part = projector.handle(&generation, Events::of_log(rest), &CancellationToken::new()).await;
            assert!(part.done > 0 && part.failure.is_none(), "{part:?}");
            rest = &rest[part.done..];
        }
    }

    /// Seen to fail where only one of the two is looked at: what was not loaded was folded as if it were not there.
    #[tokio::test]
    async fn r17_an_event_is_too_large_if_its_documents_are_or_were_not_all_loaded() {
        for sizes in [[4_001, 4_001], [8_000, 10]] {
            let (projector, generation, store) = bulky(2, 1_000).await;
            let (shard, ttl) = (LogSource::shard(), Duration::from_mins(1));
            store.ensure_shards(&generation, std::slice::from_ref(&shard)).await.expect("ensured");
            let lease = store.acquire(&generation, &shard, Uuid::now_v7(), Takeover::WhenFree, ttl).await;
            let document = |bytes: usize| format!("\"{}\"", "x".repeat(bytes - 2)).into();
            let upserts = ["a-00000", "a-00001"].map(str::to_owned).into_iter().zip(sizes.map(document)).collect();
            let changes = Changes { upserts, ..Changes::default() };
            store.commit(&lease.expect("asked").expect("free"), changes).await.expect("committed");
            let part =
                projector.handle(&generation, Events::of_log(&deposits(&[("a", 1)])), &CancellationToken::new()).await;
            let is_named = matches!(part.failure, Some(EngineError::TooLarge { documents: 2, limit: 8_000, .. }));
            assert!(is_named && part.done == 0, "{sizes:?}: {part:?}");
        }
    }

    #[tokio::test]
    async fn r17_a_document_may_be_as_large_as_the_limit_of_a_commit() {
        for (amount, done) in [(8_000 - 9, 1), (8_001 - 9, 0)] {
            let (projector, generation, _) = bulky(1, 1_000).await;
            // Its quotes and its key have nine bytes.
            let events = deposits(&[("a", amount)]);
            let part = projector.handle(&generation, Events::of_log(&events), &CancellationToken::new()).await;
            assert_eq!((part.done, part.failure.is_none()), (done, done == 1));
        }
    }

    /// Seen to fail where such a letter was handled without any effect, and deleted.
    #[tokio::test]
    async fn r19_a_letter_that_names_other_keys_than_its_own_is_not_lost() {
        let (projector, generation, _) = bulky(1, 1_000).await;
        for (key, fails) in [("a-00000", false), ("b-00000", true)] {
            let (events, course) = (deposits(&[("a", 1)]), Course::only(key));
            let events = Events { course, ..Events::of_log(&events) };
            let handled = projector.handle(&generation, events, &CancellationToken::new()).await;
            assert_eq!(
                (handled.done, handled.failure.is_some_and(|failure| failure.is_of_event())),
                (usize::from(!fails), fails)
            );
        }
    }

    #[tokio::test]
    async fn r17_a_part_holds_no_more_keys_than_documents() {
        let (projector, generation, _) = bulky(100, 500).await;
        let events = recorded([1, 2, 3].map(|amount| ("a", AccountEvent::Withdrawn { amount })));
        let part = projector.handle(&generation, Events::of_log(&events), &CancellationToken::new()).await;
        assert_eq!((part.done, part.failure.is_none()), (1, true));
    }

    #[tokio::test]
    async fn r17_what_grows_past_the_limit_of_a_commit_is_split_until_one_event_alone_is_named() {
        let (projector, generation, _) = bulky(1, 1_000).await;
        let events = deposits(&[("a", 3_000), ("b", 3_000), ("c", 3_000), ("d", 9_000), ("e", 1)]);
        let mut rest = &events[..];
        let failure = loop {
            let part = projector.handle(&generation, Events::of_log(rest), &CancellationToken::new()).await;
            let bytes: usize = part.upserts.iter().map(|(_, document)| document.len()).sum();
            assert!(bytes <= 8_000, "{bytes}");
            rest = &rest[part.done..];
            if let Some(failure) = part.failure {
                break failure;
            }
            assert!(part.done > 0, "it continues");
        };
        match failure {
            EngineError::TooLarge { event, documents: 1, bytes, limit: 8_000 } => {
                assert_eq!((event.position.get(), bytes > 9_000), (4, true));
            }
            other => panic!("expected the event that is too large, got {other:?}"),
        }
    }

    /// A text that takes long to be written.
    #[derive(Debug, Clone, PartialEq, serde::Deserialize)]
    struct Tough(String);

    impl serde::Serialize for Tough {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            std::thread::sleep(Duration::from_millis(50));
            self.0.serialize(serializer)
        }
    }

    struct Toughs;

    impl Projection for Toughs {
        const NAME: &'static str = "toughs";
        type Event = AccountEvent;
        type Document = Tough;

        fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
            Keys::one(event.position.to_string())
        }

        fn fold(&self, text: &mut Option<Tough>, _: &Recorded<AccountEvent>) -> FoldResult {
            std::thread::sleep(SLICE);
            *text = Some(Tough("x".repeat(3_000)));
            Ok(())
        }
    }

    /// Seen to fail where only time decides when documents are written out: by the second time there are far too many.
    #[tokio::test]
    async fn r17_new_documents_are_expected_to_be_as_large_as_the_former_ones() {
        let (_, generation, store) = bulky(1, 1).await;
        let source = LogSource::new(store.clone());
        let projector = Projector::new(Toughs, source, store).document_bytes(10_000);
        let events = deposits(&[("a", 1); 30]);
        let part = projector.handle(&generation, Events::of_log(&events), &CancellationToken::new()).await;
        assert_eq!((part.done, part.failure.is_none()), (4, true));
    }

    /// Seen to fail where any failure of a part counted as one of the event: it was parked, and the projector went on.
    #[tokio::test]
    async fn r19_an_event_is_not_given_up_for_what_is_no_fault_of_it() {
        let (projector, generation, store) = bulky(1, 1_000).await;
        let (shard, ttl) = (LogSource::shard(), Duration::from_mins(1));
        store.ensure_shards(&generation, std::slice::from_ref(&shard)).await.expect("ensured");
        let lease = store.acquire(&generation, &shard, Uuid::now_v7(), Takeover::WhenFree, ttl).await;
        let upserts = vec![("a-00000".to_owned(), "[]".into())];
        let changes = Changes { upserts, ..Changes::default() };
        store.commit(&lease.expect("asked").expect("free"), changes).await.expect("committed");
        let events = deposits(&[("a", 1)]);
        let mut batch = Events::of_log(&events);
        (batch.course.gives_up, batch.course.room) = (Some(events[0].position), 10);
        let handled = projector.handle(&generation, batch, &CancellationToken::new()).await;
        assert!(matches!(handled.failure, Some(EngineError::Document { .. })), "{handled:?}");
        assert_eq!((handled.done, handled.letters.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_failure_that_does_not_end_a_projector_is_reported() {
        let (projector, ..) = bulky(1, 1).await;
        projector.failed(&EngineError::NotPerStream);
        assert!(projector.report.last_failure().is_some());
    }
}
