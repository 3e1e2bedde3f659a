//! Read models in memory.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use uuid::Uuid;

use super::MemoryStore;
use crate::{
    read_model::{
        Changeover, Changes, Checkpoint, CommitError, Generation, GenerationState, KeyRange, Lease, PromoteError,
        ReadModelError, ReadModelStore, Shard, Takeover,
    },
    stream::Position,
};

#[derive(Debug, Default)]
pub(super) struct ReadModels {
    last_id: i64,
    generations: HashMap<i64, Stored>,
}

#[derive(Debug)]
struct Stored {
    generation: Generation,
    state: GenerationState,
    shards: HashMap<Shard, StoredShard>,
    documents: BTreeMap<String, Bytes>,
}

#[derive(Debug, Default)]
struct StoredShard {
    checkpoint: Checkpoint,
    owner: Option<(Uuid, Instant)>,
    token: i64,
}

impl Stored {
    fn reached(&self) -> Position {
        self.shards.values().map(|shard| shard.checkpoint.position).min().unwrap_or_default()
    }
}

impl ReadModels {
    fn find(&self, projection: &str, state: GenerationState) -> Option<&Stored> {
        self.generations.values().find(|stored| stored.state == state && stored.generation.projection == projection)
    }

    fn shards(&mut self, generation: &Generation) -> Option<&mut HashMap<Shard, StoredShard>> {
        self.generations.get_mut(&generation.id).map(|stored| &mut stored.shards)
    }

    /// The shard of `lease`, if the lease still holds.
    fn leased(&mut self, lease: &Lease) -> Result<&mut StoredShard, CommitError> {
        self.shards(&lease.generation)
            .and_then(|shards| shards.get_mut(&lease.shard))
            .filter(|shard| shard.token == lease.token)
            .ok_or_else(|| CommitError::Fenced(lease.shard.clone()))
    }
}

#[async_trait]
impl ReadModelStore for MemoryStore {
    async fn serving(&self, projection: &str) -> Result<Option<Generation>, ReadModelError> {
        let state = self.lock();
        Ok(state.read_models.find(projection, GenerationState::Serving).map(|stored| stored.generation.clone()))
    }

    async fn ensure_generation(
        &self,
        projection: &str,
        version: u32,
        state: GenerationState,
    ) -> Result<Generation, ReadModelError> {
        let models = &mut self.lock().read_models;
        if let Some(stored) = models.find(projection, state) {
            return Ok(stored.generation.clone());
        }
        models.last_id += 1;
        let generation = Generation { id: models.last_id, projection: projection.to_owned(), version };
        let stored =
            Stored { generation: generation.clone(), state, shards: HashMap::new(), documents: BTreeMap::new() };
        models.generations.insert(generation.id, stored);
        Ok(generation)
    }

    async fn state(&self, generation: &Generation) -> Result<Option<GenerationState>, ReadModelError> {
        Ok(self.lock().read_models.generations.get(&generation.id).map(|stored| stored.state))
    }

    async fn promote(&self, building: &Generation) -> Result<(), PromoteError> {
        let models = &mut self.lock().read_models;
        let is_building = |stored: &&Stored| stored.state == GenerationState::Building;
        let new = models.generations.get(&building.id).filter(is_building).ok_or(PromoteError::NotBuilding)?;
        if let Some(old) = models.find(&building.projection, GenerationState::Serving) {
            for (shard, stored) in &old.shards {
                let serving = stored.checkpoint.position;
                let same = new.shards.get(shard).map(|shard| shard.checkpoint.position);
                let building = same.unwrap_or_else(|| new.reached());
                if building < serving {
                    return Err(PromoteError::Behind { building, serving });
                }
            }
            let old = old.generation.id;
            models.generations.remove(&old);
        }
        if let Some(stored) = models.generations.get_mut(&building.id) {
            stored.state = GenerationState::Serving;
        }
        Ok(())
    }

    async fn discard(&self, building: &Generation) -> Result<(), ReadModelError> {
        let models = &mut self.lock().read_models;
        models.generations.retain(|id, stored| *id != building.id || stored.state != GenerationState::Building);
        Ok(())
    }

    async fn ensure_shards(&self, generation: &Generation, shards: &[Shard]) -> Result<Changeover, ReadModelError> {
        let models = &mut self.lock().read_models;
        let (Some(stored), Some(first)) = (models.shards(generation), shards.first()) else {
            return Ok(Changeover::Ready);
        };
        let (mut seed, mut token) = (Position::ZERO, 0);
        if stored.keys().any(|shard| shard.source() != first.source()) {
            let now = Instant::now();
            if stored.values().any(|shard| shard.owner.is_some_and(|(_, until)| until > now)) {
                return Ok(Changeover::Busy);
            }
            seed = stored.values().map(|shard| shard.checkpoint.position).max().unwrap_or_default();
            if stored.values().any(|shard| shard.checkpoint.position != seed) {
                return Ok(Changeover::Uneven);
            }
            // What a lease on a shard of the same name was worth before, it is not worth again.
            token = stored.values().map(|shard| shard.token + 1).max().unwrap_or_default();
            stored.clear();
        }
        for shard in shards {
            stored.entry(shard.clone()).or_insert_with(|| StoredShard {
                checkpoint: Checkpoint { position: seed, ..Checkpoint::default() },
                owner: None,
                token,
            });
        }
        Ok(Changeover::Ready)
    }

    async fn acquire(
        &self,
        generation: &Generation,
        shard: &Shard,
        owner: Uuid,
        takeover: Takeover,
        ttl: Duration,
    ) -> Result<Option<Lease>, ReadModelError> {
        let models = &mut self.lock().read_models;
        let Some(stored) = models.shards(generation).and_then(|shards| shards.get_mut(shard)) else { return Ok(None) };
        let taken = stored.owner.is_some_and(|(other, until)| other != owner && until > Instant::now());
        if taken && takeover == Takeover::WhenFree {
            return Ok(None);
        }
        stored.token += 1;
        stored.owner = Some((owner, Instant::now() + ttl));
        Ok(Some(Lease {
            generation: generation.clone(),
            shard: shard.clone(),
            owner,
            token: stored.token,
            checkpoint: stored.checkpoint.clone(),
        }))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<(), CommitError> {
        let models = &mut self.lock().read_models;
        models.leased(lease)?.owner = Some((lease.owner, Instant::now() + ttl));
        Ok(())
    }

    async fn release(&self, lease: &Lease) -> Result<(), ReadModelError> {
        if let Ok(shard) = self.lock().read_models.leased(lease) {
            shard.owner = None;
        }
        Ok(())
    }

    async fn commit(&self, lease: &Lease, changes: Changes, ttl: Duration) -> Result<(), CommitError> {
        let models = &mut self.lock().read_models;
        let shard = models.leased(lease)?;
        if shard.checkpoint.position != lease.checkpoint.position {
            return Err(CommitError::Fenced(lease.shard.clone()));
        }
        shard.checkpoint = changes.checkpoint;
        shard.owner = Some((lease.owner, Instant::now() + ttl));
        if let Some(stored) = models.generations.get_mut(&lease.generation.id) {
            stored.documents.extend(changes.upserts);
            for key in &changes.deletes {
                stored.documents.remove(key);
            }
        }
        Ok(())
    }

    async fn load(&self, generation: &Generation, keys: &[String]) -> Result<Vec<Option<Bytes>>, ReadModelError> {
        let state = self.lock();
        let stored = state.read_models.generations.get(&generation.id);
        Ok(keys.iter().map(|key| stored.and_then(|stored| stored.documents.get(key).cloned())).collect())
    }

    async fn get(&self, projection: &str, key: &str) -> Result<Option<Bytes>, ReadModelError> {
        let state = self.lock();
        let serving = state.read_models.find(projection, GenerationState::Serving);
        Ok(serving.and_then(|stored| stored.documents.get(key).cloned()))
    }

    async fn scan(
        &self,
        projection: &str,
        range: KeyRange,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, ReadModelError> {
        let state = self.lock();
        let Some(stored) = state.read_models.find(projection, GenerationState::Serving) else { return Ok(Vec::new()) };
        let from = range.after.as_deref().unwrap_or_default().max(&range.prefix).to_owned();
        let documents = stored.documents.range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded));
        Ok(documents
            .filter(|(key, _)| range.contains(key))
            .take(limit)
            .map(|(key, document)| (key.clone(), document.clone()))
            .collect())
    }

    async fn reached(&self, generation: &Generation) -> Result<Position, ReadModelError> {
        let state = self.lock();
        Ok(state.read_models.generations.get(&generation.id).map(Stored::reached).unwrap_or_default())
    }
}
