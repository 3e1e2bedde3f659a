//! A cache of the lines of the aggregates that were used last, with limits in states and in bytes.

use std::{convert::Infallible, fmt, sync::Arc};

use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync::Cache, sync::DefaultLifecycle};

use super::{line::Line, load::Loaded};
use crate::{stream::StreamId, write::aggregate::Aggregate};

/// The bytes that an aggregate takes in the cache without its state: a line, a key, and their entries.
const OVERHEAD_BYTES: u64 = 512;

/// The number of parts of the cache, so that few callers wait for each other. A state that is larger than a part is not cached.
const PARTS: usize = 8;

/// The limits of a cache.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) states: usize,
    pub(super) bytes: u64,
}

impl Limits {
    /// The smallest weight of a state: so the limit in bytes also limits the number of states.
    fn least(self) -> u64 {
        (self.bytes / (self.states as u64).max(1)).max(1)
    }
}

pub(super) struct Lines<A> {
    cache: Cache<StreamId, Kept<A>, ByWeight>,
    least: u64,
}

/// A line, and its weight when it was put into the cache, which must not change while it is there.
struct Kept<A> {
    line: Arc<Line<A>>,
    weight: u64,
}

impl<A> Clone for Kept<A> {
    fn clone(&self) -> Self {
        Self { line: self.line.clone(), weight: self.weight }
    }
}

#[derive(Debug, Clone)]
struct ByWeight;

impl<A> Weighter<StreamId, Kept<A>> for ByWeight {
    fn weight(&self, _: &StreamId, kept: &Kept<A>) -> u64 {
        kept.weight
    }
}

impl<A: Aggregate> Lines<A> {
    pub(super) fn new(limits: Limits) -> Self {
        let capacity = if limits.states == 0 { 0 } else { limits.bytes };
        let options = OptionsBuilder::new()
            .estimated_items_capacity(limits.states)
            .weight_capacity(capacity)
            .shards(PARTS)
            .build()
            .expect("both capacities are given");
        let cache = Cache::with_options(options, ByWeight, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self { cache, least: limits.least() }
    }

    /// The line of `stream`; a new one if none is cached.
    pub(super) fn of(&self, stream: &StreamId) -> Arc<Line<A>> {
        let new = || Ok::<_, Infallible>(Kept { line: Arc::new(Line::new()), weight: self.least });
        let kept = self.cache.get_or_insert_with(stream, new);
        kept.unwrap_or_else(|never| match never {}).line
    }

    /// Records the present size of the line of `stream`. (A line that was removed from the cache may be put back. That costs nothing
    /// but conflicts, since each append names the last event that it expects.)
    pub(super) fn weigh(&self, stream: &StreamId, line: &Line<A>, state: &Loaded<A>) {
        let weight = self.least.max(state.bytes() as u64 + OVERHEAD_BYTES);
        let known = line.weight().max(self.least);
        // A state changes with each command, so the lock is taken only for a considerable change.
        if weight.abs_diff(known) <= known / 8 {
            return;
        }
        line.set_weight(weight);
        if let Some(kept) = self.cache.peek(stream).filter(|kept| std::ptr::eq(Arc::as_ptr(&kept.line), line)) {
            // A line that has become too large to be cached is removed, so this is no error.
            let _ = self.cache.replace(stream.clone(), Kept { weight, ..kept }, true);
        }
    }

    /// The weight of all cached states.
    pub(super) fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

impl<A> fmt::Debug for Lines<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use crate::{Aggregate, Event, MemoryStore, Repository};

    #[derive(Debug, Clone, PartialEq, Event)]
    #[event(category = "note")]
    enum NoteEvent {
        #[event(name = "note.written")]
        Written { text: String },
    }

    /// The text that was written last.
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }

    impl Aggregate for Note {
        type Command = usize;
        type Event = NoteEvent;
        type Error = std::convert::Infallible;

        fn handle(&self, bytes: &usize) -> Result<Vec<NoteEvent>, Self::Error> {
            Ok(vec![NoteEvent::Written { text: "x".repeat(*bytes) }])
        }

        fn apply(&mut self, NoteEvent::Written { text }: &NoteEvent) {
            self.text.clone_from(text);
        }
    }

    const MIB: u64 = 1024 * 1024;

    fn notes() -> Repository<Note> {
        Repository::new(MemoryStore::new()).snapshot_every(0)
    }

    /// The bytes in all cached states.
    async fn held(notes: &Repository<Note>, count: usize) -> u64 {
        let mut held = 0;
        for number in 0..count {
            let stream = notes.stream(&number.to_string()).expect("a valid name");
            if let Some(kept) = notes.lines.cache.peek(&stream) {
                held += kept.line.lock().await.written().map_or(0, |written| written.state.text.len() as u64);
            }
        }
        held
    }

    /// (Seen to fail where each state counts the same: 40 states of 100 kB are 4 MB.)
    #[tokio::test]
    async fn r17_cached_states_have_a_limit_in_bytes() {
        let notes = notes().cache(100).cache_bytes(MIB);
        for number in 0..40 {
            notes.execute(number.to_string(), 100_000).await.expect("executed");
        }
        let held = held(&notes, 40).await;
        assert!((MIB / 2..=MIB).contains(&held), "{held}");
        assert!((held..=MIB).contains(&notes.cached_bytes()), "{} for {held}", notes.cached_bytes());
        // The same for states that were loaded.
        let (read, all) = (notes.clone().cache_bytes(MIB / 2), 40);
        for number in 0..all {
            assert_eq!(read.load(&number.to_string()).await.expect("loaded").state.text.len(), 100_000);
        }
        assert!((MIB / 4..=MIB / 2).contains(&self::held(&read, all).await));
    }

    #[tokio::test]
    async fn r17_cached_states_have_a_limit_in_number() {
        let notes = notes().cache(10);
        for number in 0..40 {
            notes.execute(number.to_string(), 10).await.expect("executed");
        }
        assert_eq!(held(&notes, 40).await, 100);
        let none = notes.cache(0);
        none.execute("0", 10).await.expect("executed");
        assert_eq!((held(&none, 40).await, none.cached_bytes()), (0, 0));
    }

    /// A state does not count bytes that were folded into it and are no longer there, and it counts the bytes by which it grew.
    #[tokio::test]
    async fn r17_a_cached_state_counts_what_it_holds_now() {
        let notes = notes();
        let least = 256 * MIB / 10_000;
        for _ in 0..300 {
            notes.execute("a", 1_000).await.expect("executed");
        }
        assert!(notes.cached_bytes() < least + 100_000, "{}", notes.cached_bytes());
        notes.execute("a", 300_000).await.expect("executed");
        assert!((300_000..500_000).contains(&notes.cached_bytes()), "{}", notes.cached_bytes());
        notes.execute("a", 10).await.expect("executed");
        for _ in 0..2 {
            notes.execute("a", 300_000).await.expect("executed");
        }
        assert!(notes.cached_bytes() < 700_000, "{}", notes.cached_bytes());
    }

    #[tokio::test]
    async fn r17_a_cached_state_that_has_shrunk_counts_its_share_again() {
        let notes = notes().cache(1_000);
        notes.execute("a", 600_000).await.expect("executed");
        assert!(notes.cached_bytes() > 600_000, "{}", notes.cached_bytes());
        for _ in 0..70 {
            notes.execute("a", 10_000).await.expect("executed");
        }
        assert_eq!(notes.cached_bytes(), 256 * MIB / 1_000);
    }

    #[tokio::test]
    async fn r17_a_cached_state_that_has_grown_a_few_times_is_weighed_again() {
        let notes = notes();
        notes.execute("a", 100_000).await.expect("executed");
        assert!(notes.cached_bytes() > 100_000, "{}", notes.cached_bytes());
    }

    #[tokio::test]
    async fn both_limits_hold_whichever_is_set_first() {
        for notes in [notes().cache(100).cache_bytes(MIB / 16), notes().cache_bytes(MIB / 16).cache(100)] {
            for number in 0..40 {
                notes.execute(number.to_string(), 6_000).await.expect("executed");
            }
            assert!(notes.cached_bytes() <= MIB / 16, "{}", notes.cached_bytes());
        }
    }
}
