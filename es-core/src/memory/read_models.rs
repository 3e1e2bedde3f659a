//! Read models in memory.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::fields::FieldIndex;
use crate::{
    read::read_model::{
        ActRecord, Acts, Amendment, Checkpoint, CommitError, DeadLetter, Generation, GenerationState, Hold, Lease,
        Pause, Progress, Reader, Served, Shard, StoppedAt,
    },
    stream::Position,
};

#[derive(Debug)]
pub(super) struct ReadModels {
    pub(super) id: Uuid,
    pub(super) last_id: i64,
    pub(super) readers: BTreeMap<i64, Stored>,
    pub(super) pauses: HashMap<String, Pause>,
    pub(super) acts: Vec<ActRecord>,
}

impl Default for ReadModels {
    fn default() -> Self {
        let (id, last_id, readers) = (Uuid::now_v7(), 0, BTreeMap::new());
        Self { id, last_id, readers, pauses: HashMap::new(), acts: Vec::new() }
    }
}

/// A reader with what is kept for it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) reader: Reader,
    pub(super) definition: String,
    pub(super) shards: HashMap<Shard, StoredShard>,
    pub(super) parked: BTreeMap<String, Parked>,
    pub(super) amendments: Vec<Amendment>,
    /// What makes it a generation.
    pub(super) copy: Option<StoredCopy>,
    pub(super) documents: BTreeMap<String, Bytes>,
    pub(super) fields: FieldIndex,
    /// Messages of other systems that it has handled, and when.
    pub(super) inbox: HashMap<Uuid, DateTime<Utc>>,
}

/// A copy of a read model.
#[derive(Debug)]
pub(super) struct StoredCopy {
    pub(super) version: u32,
    pub(super) state: GenerationState,
    pub(super) withdrawn: u32,
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
    /// Notes what an operator has decided, in place of what was decided before about the same.
    pub(super) fn amend(&mut self, amendment: Amendment) {
        let is_same = |former: &Amendment| (former.position, &former.extent) == (amendment.position, &amendment.extent);
        self.amendments.retain(|former| !is_same(former));
        self.amendments.push(amendment);
    }

    pub(super) fn reached(&self) -> Position {
        self.shards.values().map(|shard| shard.checkpoint.position).min().unwrap_or_default()
    }

    pub(super) fn is(&self, state: GenerationState) -> bool {
        self.copy.as_ref().is_some_and(|copy| copy.state == state)
    }

    pub(super) fn generation(&self) -> Option<Generation> {
        self.copy.as_ref().map(|copy| Generation { reader: self.reader.clone(), version: copy.version })
    }

    pub(super) fn progress(&self) -> Option<Progress> {
        let positions = self.shards.values().map(|shard| shard.checkpoint.position);
        Some(Progress {
            generation: self.generation()?,
            definition: self.definition.clone(),
            reached: self.reached(),
            furthest: positions.max().unwrap_or_default(),
        })
    }

    pub(super) fn served<T>(&self, found: T) -> Option<Served<T>> {
        self.generation().map(|generation| Served { generation, found })
    }
}

impl ReadModels {
    /// The readers of this name, the oldest first.
    pub(super) fn of(&self, name: &str) -> impl Iterator<Item = &Stored> {
        self.readers.values().filter(move |stored| stored.reader.name == name)
    }

    pub(super) fn of_mut(&mut self, name: &str) -> impl Iterator<Item = &mut Stored> {
        self.readers.values_mut().filter(move |stored| stored.reader.name == name)
    }

    pub(super) fn find(&self, projection: &str, state: GenerationState) -> Option<&Stored> {
        self.of(projection).find(|stored| stored.is(state))
    }

    pub(super) fn add(&mut self, name: &str, definition: &str, copy: Option<StoredCopy>) -> Reader {
        self.last_id += 1;
        let reader = Reader { id: self.last_id, name: name.to_owned() };
        let (shards, parked, amendments, documents) = (HashMap::new(), BTreeMap::new(), Vec::new(), BTreeMap::new());
        let (definition, fields) = (definition.to_owned(), FieldIndex::default());
        let (reader_of, inbox) = (reader.clone(), HashMap::new());
        let stored =
            Stored { reader: reader_of, definition, shards, parked, amendments, copy, documents, fields, inbox };
        self.readers.insert(reader.id, stored);
        reader
    }

    pub(super) fn shards(&mut self, reader: &Reader) -> Option<&mut HashMap<Shard, StoredShard>> {
        self.readers.get_mut(&reader.id).map(|stored| &mut stored.shards)
    }

    /// The shard of `lease`, if the lease still holds.
    pub(super) fn leased(&mut self, lease: &Lease) -> Result<&mut StoredShard, CommitError> {
        self.shards(&lease.reader)
            .and_then(|shards| shards.get_mut(&lease.shard))
            .filter(|shard| shard.fencing_token == lease.fencing_token)
            .ok_or_else(|| CommitError::Fenced(lease.shard.clone()))
    }
}
