//! Read models in memory.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::fields::FieldIndex;
use crate::{
    read::read_model::{
        ActRecord, Acts, Checkpoint, CommitError, DeadLetter, Generation, GenerationState, Hold, Lease, Pause,
        Progress, Served, Shard, StoppedAt,
    },
    stream::Position,
};

#[derive(Debug)]
pub(super) struct ReadModels {
    pub(super) id: Uuid,
    pub(super) last_id: i64,
    pub(super) generations: BTreeMap<i64, Stored>,
    pub(super) pauses: HashMap<String, Pause>,
    pub(super) acts: Vec<ActRecord>,
}

impl Default for ReadModels {
    fn default() -> Self {
        let (id, last_id, generations) = (Uuid::now_v7(), 0, BTreeMap::new());
        Self { id, last_id, generations, pauses: HashMap::new(), acts: Vec::new() }
    }
}

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) generation: Generation,
    pub(super) state: GenerationState,
    pub(super) definition: Option<String>,
    pub(super) withdrawn: u32,
    pub(super) shards: HashMap<Shard, StoredShard>,
    pub(super) documents: BTreeMap<String, Bytes>,
    pub(super) fields: FieldIndex,
    pub(super) parked: BTreeMap<String, Parked>,
}

#[derive(Debug, Default)]
pub(super) struct StoredShard {
    pub(super) checkpoint: Checkpoint,
    pub(super) held: Option<Held>,
    pub(super) fencing_token: i64,
    pub(super) acts: Acts,
    pub(super) stopped: Option<StoppedAt>,
    pub(super) is_asked_for: bool,
}

/// A parked key.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) shard: Shard,
    pub(super) is_retry_requested: bool,
    pub(super) letters: BTreeMap<Position, DeadLetter>,
}

/// The lease on a shard. It ends when its worker drops it; when the store drops it, its worker is told.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) owner: Uuid,
    pub(super) since: DateTime<Utc>,
    hold: Hold,
}

impl Held {
    /// What holds by `lease`, whose owner may hold it as `former` already.
    pub(super) fn by(lease: &Lease, former: Option<&Self>) -> Self {
        let since = former.filter(|held| held.owner == lease.owner).map_or_else(Utc::now, |held| held.since);
        Self { owner: lease.owner, since, hold: lease.hold() }
    }

    pub(super) fn is_live(&self) -> bool {
        self.hold.is_kept()
    }

    /// Tells the worker of an act.
    pub(super) fn note(&self, acts: Acts) {
        self.hold.note(acts);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.hold.lose();
    }
}

impl Stored {
    pub(super) fn reached(&self) -> Position {
        self.shards.values().map(|shard| shard.checkpoint.position).min().unwrap_or_default()
    }

    pub(super) fn progress(&self) -> Progress {
        let positions = self.shards.values().map(|shard| shard.checkpoint.position);
        Progress {
            generation: self.generation.clone(),
            definition: self.definition.clone(),
            reached: self.reached(),
            furthest: positions.max().unwrap_or_default(),
        }
    }

    pub(super) fn served<T>(&self, found: T) -> Served<T> {
        Served { generation: self.generation.clone(), found }
    }
}

impl ReadModels {
    pub(super) fn find(&self, projection: &str, state: GenerationState) -> Option<&Stored> {
        self.generations.values().find(|stored| stored.state == state && stored.generation.projection == projection)
    }

    pub(super) fn shards(&mut self, generation: &Generation) -> Option<&mut HashMap<Shard, StoredShard>> {
        self.generations.get_mut(&generation.id).map(|stored| &mut stored.shards)
    }

    /// The shard of `lease`, if the lease still holds.
    pub(super) fn leased(&mut self, lease: &Lease) -> Result<&mut StoredShard, CommitError> {
        self.shards(&lease.generation)
            .and_then(|shards| shards.get_mut(&lease.shard))
            .filter(|shard| shard.fencing_token == lease.fencing_token)
            .ok_or_else(|| CommitError::Fenced(lease.shard.clone()))
    }
}
