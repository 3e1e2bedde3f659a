//! The generation that a projector keeps: it is found or built, and promoted.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    read::{
        definition,
        engine_error::EngineError,
        projection::Projection,
        read_model::{
            DeclaredField, EnsureError, Generation, GenerationSet, GenerationState, PromoteError, Promotion,
            ReadModelStore, Reader,
        },
        worker::Step,
    },
    stream::Position,
};

/// A generation of the projection's version that serves or is being built.
pub(crate) struct Candidate<'a> {
    pub(crate) generation: Generation,
    store: &'a dyn ReadModelStore,
    promotion: Promotion,
    serves: AtomicBool,
    /// The position that it must reach in every shard before it serves: the end of the log as the source knew it when the first
    /// worker reached the end of its shards, and at least the position of that worker. (Other workers, and the source itself,
    /// may not be there yet.)
    target: OnceLock<Position>,
    /// When its promotion was tried last, if it follows a topic of another system.
    tried: Option<Mutex<Option<Instant>>>,
}

/// How often the promotion of a generation that follows a topic is tried.
const TRY_EVERY: Duration = Duration::from_millis(200);

/// What a generation is kept for.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) definition: String,
    pub(crate) fields: Vec<DeclaredField>,
    /// Whether it follows a topic of another system, whose positions are those of partitions.
    pub(crate) is_foreign: bool,
}

impl Subject {
    pub(crate) fn of<P: Projection>() -> Self {
        let (definition, fields) = (definition::of_projection::<P>(), definition::fields::<P>());
        Self { name: P::NAME, version: P::VERSION, definition, fields, is_foreign: false }
    }

    /// The generations of its name, if none of them was folded by another definition.
    async fn admitted(&self, store: &dyn ReadModelStore) -> Result<GenerationSet, EngineError> {
        let found = store.generations(self.name).await?;
        self.admit(&found)?;
        Ok(found)
    }

    /// Whether it may go on with what was `found` of its name.
    pub(crate) fn admit(&self, found: &GenerationSet) -> Result<(), EngineError> {
        definition::admit(self.name, self.version, &self.definition, found.iter())
    }

    /// Begins to build a generation, unless another worker has just begun.
    async fn ensure(&self, store: &dyn ReadModelStore) -> Result<(), EngineError> {
        let Self { name, version, definition, fields, .. } = self;
        match store.ensure_generation(name, *version, GenerationState::Building, definition, fields).await {
            Ok(_) => Ok(()),
            Err(EnsureError::OtherReader { definition: stored }) => {
                Err(EngineError::OtherDefinition { name, stored, ours: definition.clone() })
            }
            Err(EnsureError::Store(error)) => Err(error.into()),
        }
    }
}

impl<'a> Candidate<'a> {
    /// The generation that serves, if it has this version; else one that is built meanwhile.
    ///
    /// # Errors
    /// [`EngineError::Outdated`] and [`EngineError::Withdrawn`] where this version must not serve.
    pub(crate) async fn find(store: &'a dyn ReadModelStore, subject: &Subject) -> Result<Self, EngineError> {
        let ours = subject.version;
        loop {
            let found = subject.admitted(store).await?;
            let (picked, serves) = match (found.serving, found.building) {
                (Some(serving), _) if serving.generation.version > ours => {
                    return Err(EngineError::Outdated { newer: serving.generation.version, ours });
                }
                (Some(serving), _) if serving.generation.version == ours => (serving, true),
                (Some(serving), _) if found.withdrawn >= ours => {
                    return Err(EngineError::Withdrawn { serving: serving.generation.version, ours });
                }
                (_, Some(building)) if building.generation.version > ours => {
                    return Err(EngineError::Outdated { newer: building.generation.version, ours });
                }
                (_, Some(building)) if building.generation.version == ours => (building, false),
                (_, Some(older)) => {
                    store.discard(&older.generation).await?;
                    continue;
                }
                (_, None) => {
                    subject.ensure(store).await?;
                    continue;
                }
            };
            return Ok(Self::new(store, picked.generation, Promotion::Automatic, serves, subject.is_foreign));
        }
    }

    /// A generation for a requested rebuild. One that other code has begun is discarded.
    pub(crate) async fn begin(store: &'a dyn ReadModelStore, subject: &Subject) -> Result<Self, EngineError> {
        loop {
            match subject.admitted(store).await?.building {
                Some(building) if building.generation.version == subject.version => {
                    let promotion = Promotion::OnPurpose;
                    return Ok(Self::new(store, building.generation, promotion, false, subject.is_foreign));
                }
                Some(other) => store.discard(&other.generation).await?,
                None => subject.ensure(store).await?,
            }
        }
    }

    /// The same for a source that is opened again, which reports the end of the log again.
    pub(crate) fn again(&self) -> Self {
        let serves = self.serves.load(Ordering::Relaxed);
        Self::new(self.store, self.generation.clone(), self.promotion, serves, self.tried.is_some())
    }

    fn new(
        store: &'a dyn ReadModelStore,
        generation: Generation,
        promotion: Promotion,
        serves: bool,
        is_foreign: bool,
    ) -> Self {
        let (serves, target) = (AtomicBool::new(serves), OnceLock::new());
        Self { generation, store, promotion, serves, target, tried: is_foreign.then(Mutex::default) }
    }

    pub(crate) fn serves(&self) -> bool {
        self.serves.load(Ordering::Relaxed)
    }

    /// Promotes it once its worker is at the end of the source. Returns whether it serves.
    ///
    /// A topic has no end that its partitions share. What follows one serves as soon as it has handled, of each partition, what the
    /// generation has handled that serves; where none serves, at once.
    ///
    /// # Errors
    /// [`EngineError::Replaced`] when it was replaced or discarded.
    pub(crate) async fn after(&self, step: Step) -> Result<bool, EngineError> {
        if self.serves.load(Ordering::Relaxed) {
            // A worker that holds shards notices because it is fenced.
            if step == Step::Standby && self.store.state(&self.generation).await? != Some(GenerationState::Serving) {
                return Err(EngineError::Replaced);
            }
            return Ok(true);
        }
        let promoted = match step {
            Step::Worked | Step::AtEnd(_) if self.tried.as_ref().is_some_and(is_due) => {
                self.store.promote(&self.generation, self.promotion).await
            }
            Step::Worked => return Ok(false),
            Step::AtEnd(_) if self.tried.is_some() => return Ok(false),
            Step::AtEnd(end) if !self.is_complete(end).await? => return Ok(false),
            Step::AtEnd(_) => self.store.promote(&self.generation, self.promotion).await,
            // The worker that reaches its end last promotes it.
            Step::Standby => Err(PromoteError::NotBuilding),
        };
        let serves = match promoted {
            Ok(()) => true,
            // The old one has folded more since then: catch up and try again.
            Err(PromoteError::Behind { .. }) => false,
            Err(PromoteError::Withdrawn { serving }) => {
                return Err(EngineError::Withdrawn { serving, ours: self.generation.version });
            }
            Err(PromoteError::NotBuilding) => match self.store.state(&self.generation).await? {
                Some(GenerationState::Building) => false,
                Some(GenerationState::Serving) => true,
                None => return Err(EngineError::Replaced),
            },
            Err(error) => return Err(EngineError::Promote(error)),
        };
        self.serves.store(serves, Ordering::Relaxed);
        Ok(serves)
    }

    /// Whether every shard of it, also those of other workers, has come as far as the log went when this
    /// worker first reached the end of the source.
    async fn is_complete(&self, end: Position) -> Result<bool, EngineError> {
        let found = self.store.generations(&self.generation.reader.name).await?;
        let building = found.building.filter(|building| building.generation == self.generation);
        // It is gone or promoted; the promotion detects which.
        let Some(progress) = building else { return Ok(true) };
        let target = *self.target.get_or_init(|| {
            let target = progress.furthest.max(end);
            if progress.reached < target {
                let Reader { id, name } = &self.generation.reader;
                let reached = progress.reached;
                tracing::info!(projection = name, generation = %id, %reached, %target, "it has all of the source, and is built until it has what the log held");
            }
            target
        });
        Ok(progress.reached >= target)
    }
}

fn is_due(tried: &Mutex<Option<Instant>>) -> bool {
    let mut last = tried.lock().unwrap_or_else(PoisonError::into_inner);
    let is_due = last.is_none_or(|last| last.elapsed() >= TRY_EVERY);
    if is_due {
        *last = Some(Instant::now());
    }
    is_due
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::{
        memory::MemoryStore,
        read::read_model::{Changes, Checkpoint, Documents, Generations, Lease, Leases, Shard, Takeover},
        testing::account::{Histories, Ledger},
    };

    /// Two workers share the shards: one is at the end while the other has just begun.
    #[tokio::test]
    async fn r12_a_generation_serves_only_when_all_of_its_shards_have_caught_up() {
        let store = MemoryStore::new();
        let candidate = Candidate::find(&store, &Subject::of::<Histories>()).await.expect("found");
        let shards = [Shard::from("topic/0"), Shard::from("topic/1")];
        store.ensure_shards(&candidate.generation.reader, &shards).await.expect("ensured");
        let advance = async |shard: &Shard, to: u64| advance(&store, &candidate, shard, to).await;
        advance(&shards[0], 9).await;
        let end = Step::AtEnd(Position::new(9));
        assert!(!candidate.after(end).await.expect("asked"), "the other has not begun");
        advance(&shards[0], 12).await;
        advance(&shards[1], 8).await;
        assert!(!candidate.after(end).await.expect("asked"), "the other is not where this one was");
        advance(&shards[1], 9).await;
        let later = Step::AtEnd(Position::new(12));
        assert!(candidate.after(later).await.expect("asked"), "the first promotion does not wait for later events");
    }

    /// The worker has all events of the source, and the log has more. (Seen to fail where only checkpoints count.)
    #[tokio::test]
    async fn r12_a_generation_serves_only_when_it_has_the_whole_log_and_not_only_its_source() {
        let store = MemoryStore::new();
        let candidate = Candidate::find(&store, &Subject::of::<Histories>()).await.expect("found");
        let shards = [Shard::from("topic/0"), Shard::from("topic/1")];
        store.ensure_shards(&candidate.generation.reader, &shards).await.expect("ensured");
        for (position, serves) in [(3, false), (29, false), (30, true)] {
            for shard in &shards {
                advance(&store, &candidate, shard, position).await;
            }
            let end = Step::AtEnd(Position::new(position + 27));
            assert_eq!(candidate.after(end).await.expect("asked"), serves, "{position}");
        }
    }

    /// The log has lost its end since the source reported it, so the source is opened again.
    #[tokio::test]
    async fn r12_an_end_that_the_log_has_lost_is_forgotten_with_the_source() {
        let store = MemoryStore::new();
        let candidate = Candidate::begin(&store, &Subject::of::<Histories>()).await.expect("begun");
        let shard = Shard::from("topic/0");
        store.ensure_shards(&candidate.generation.reader, std::slice::from_ref(&shard)).await.expect("ensured");
        advance(&store, &candidate, &shard, 95).await;
        let [told, lost] = [100, 95].map(|end| Step::AtEnd(Position::new(end)));
        for end in [told, lost] {
            assert!(!candidate.after(end).await.expect("asked"), "it waits for the first end, which may come");
        }
        assert!(candidate.again().after(lost).await.expect("asked"));
    }

    #[tokio::test]
    async fn r12_older_code_leaves_what_newer_code_keeps_or_builds() {
        for state in [GenerationState::Serving, GenerationState::Building] {
            let store = MemoryStore::new();
            store.ensure_generation("ledger", 2, state, "projection Ledger", &[]).await.expect("made");
            let found = Candidate::find(&store, &Subject::of::<Ledger<1>>()).await.map(|found| found.generation);
            assert!(matches!(found, Err(EngineError::Outdated { newer: 2, ours: 1 })), "{state:?}: {found:?}");
            let generations = store.generations("ledger").await.expect("asked");
            assert_eq!(generations.iter().map(|known| known.generation.version).collect::<Vec<_>>(), [2]);
        }
    }

    #[tokio::test]
    async fn r12_newer_code_discards_what_older_code_builds() {
        let store = MemoryStore::new();
        store.ensure_generation("ledger", 1, GenerationState::Building, "projection Ledger", &[]).await.expect("made");
        let found = Candidate::find(&store, &Subject::of::<Ledger<2>>()).await.expect("found");
        assert_eq!(found.generation.version, 2);
        let building = store.generations("ledger").await.expect("asked").building;
        assert_eq!(building.map(|building| building.generation), Some(found.generation));
    }

    #[tokio::test]
    async fn a_worker_without_shards_notices_that_its_generation_was_replaced() {
        let store = MemoryStore::new();
        let subject = Subject::of::<Histories>();
        let serving = GenerationState::Serving;
        store.ensure_generation(subject.name, 1, serving, &subject.definition, &[]).await.expect("made");
        let candidate = Candidate::find(&store, &subject).await.expect("found");
        for step in [Step::Standby, Step::Worked, Step::AtEnd(Position::ZERO)] {
            assert!(candidate.after(step).await.expect("it serves"));
        }
        let next = Candidate::begin(&store, &Subject::of::<Histories>()).await.expect("begun");
        store.promote(&next.generation, Promotion::OnPurpose).await.expect("promoted");
        // One with shards is fenced when it commits.
        assert!(candidate.after(Step::Worked).await.expect("it is not asked"));
        assert!(matches!(candidate.after(Step::Standby).await, Err(EngineError::Replaced)));
    }

    async fn advance(store: &MemoryStore, candidate: &Candidate<'_>, shard: &Shard, to: u64) {
        let (owner, ttl) = (Uuid::now_v7(), Duration::from_mins(1));
        let taken = store.acquire(&candidate.generation.reader, shard, owner, Takeover::Always, ttl).await;
        let lease: Lease = taken.expect("asked").expect("taken");
        let checkpoint = Checkpoint { position: Position::new(to), ..Checkpoint::default() };
        store.commit(&lease, Changes { checkpoint, ..Changes::default() }).await.expect("committed");
    }
}
