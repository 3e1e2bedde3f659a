//! Checkpoints and leases in memory, with the dead letters that commit with them.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use uuid::Uuid;

use super::{
    MemoryStore,
    read_models::{Held, Parked, ReadModels, Stored, StoredShard},
};
use crate::{
    event::RecordedEvent,
    limits::PAGE_BYTES,
    read::read_model::{
        Acts, Changeover, Changes, Checkpoint, CommitError, DeadLetter, GenerationState, Inbox, Lease, Leases,
        NewLetter, Pause, ReadModelError, Reader, Redemption, Shard, Share, Situation, StoppedAt, Takeover,
    },
    stream::Position,
};

#[async_trait]
impl Leases for MemoryStore {
    async fn id(&self) -> Result<Uuid, ReadModelError> {
        Ok(self.lock().read_models.id)
    }

    async fn ensure_reader(&self, name: &str, definition: &str) -> Result<(Reader, String), ReadModelError> {
        let models = &mut self.lock().read_models;
        if let Some(stored) = models.of(name).next() {
            return Ok((stored.reader.clone(), stored.definition.clone()));
        }
        Ok((models.add(name, definition, None), definition.to_owned()))
    }

    async fn reached(&self, name: &str) -> Result<Position, ReadModelError> {
        let models = &self.lock().read_models;
        let found = models.of(name).find(|stored| !stored.is(GenerationState::Building));
        Ok(found.map_or(Position::ZERO, Stored::reached))
    }

    async fn ensure_shards(&self, reader: &Reader, shards: &[Shard]) -> Result<Changeover, ReadModelError> {
        let models = &mut self.lock().read_models;
        let (Some(stored), Some(first)) = (models.readers.get_mut(&reader.id), shards.first()) else {
            return Ok(Changeover::Ready);
        };
        let (mut seed, mut fencing_token) = (Checkpoint::default(), 0);
        let is_fed_by_another = !stored.shards.is_empty()
            && stored.shards.keys().all(|known| shards.iter().all(|shard| shard.source != known.source));
        if is_fed_by_another {
            if stored.shards.values().filter_map(|shard| shard.held.as_ref()).any(Held::is_live) {
                return Ok(Changeover::Busy);
            }
            let former = || stored.shards.values().map(|shard| &shard.checkpoint);
            let witnessed = former().find(|checkpoint| checkpoint.witness.is_some()).or_else(|| former().next());
            seed = witnessed.map(|known| Checkpoint { cursor: None, ..known.clone() }).unwrap_or_default();
            if former().any(|checkpoint| checkpoint.position != seed.position) {
                return Ok(Changeover::Uneven);
            }
            if shards.len() > 1 && !stored.parked.is_empty() {
                return Ok(Changeover::Parked);
            }
            for parked in stored.parked.values_mut() {
                parked.shard = first.clone();
            }
            // Former leases on shards of the same name stay fenced.
            fencing_token = stored.shards.values().map(|shard| shard.fencing_token + 1).max().unwrap_or_default();
            stored.shards.clear();
        }
        for shard in shards {
            stored.shards.entry(shard.clone()).or_insert_with(|| StoredShard {
                checkpoint: seed.clone(),
                fencing_token,
                ..StoredShard::default()
            });
        }
        Ok(Changeover::Ready)
    }

    async fn acquire(
        &self,
        reader: &Reader,
        shard: &Shard,
        owner: Uuid,
        takeover: Takeover,
        ttl: Duration,
    ) -> Result<Option<Lease>, ReadModelError> {
        let models = &mut self.lock().read_models;
        let Some(stored) = models.shards(reader).and_then(|shards| shards.get_mut(shard)) else { return Ok(None) };
        let taken = stored.held.as_ref().is_some_and(|held| held.owner != owner && held.is_live());
        if taken && takeover == Takeover::WhenFree {
            return Ok(None);
        }
        stored.fencing_token += 1;
        let (fencing_token, checkpoint) = (stored.fencing_token, stored.checkpoint.clone());
        let lease = Lease::new(reader.clone(), shard.clone(), owner, fencing_token, ttl, checkpoint);
        stored.held = Some(Held::by(&lease, stored.held.as_ref()));
        stored.is_asked_for = false;
        Ok(Some(lease))
    }

    async fn confirm(&self, lease: &Lease) -> Result<(), CommitError> {
        self.lock().read_models.leased(lease).map(drop)
    }

    async fn release(&self, lease: &Lease) -> Result<(), ReadModelError> {
        if let Ok(shard) = self.lock().read_models.leased(lease) {
            shard.held = None;
        }
        Ok(())
    }

    async fn commit(&self, lease: &Lease, changes: Changes) -> Result<(), CommitError> {
        self.lock().read_models.commit(lease, changes)?;
        self.progress.moved(&lease.reader.name);
        Ok(())
    }

    async fn situation(&self, lease: &Lease) -> Result<Situation, CommitError> {
        let models = &mut self.lock().read_models;
        let StoredShard { acts, is_asked_for, .. } = *models.leased(lease)?;
        let paused = models.pauses.get(&lease.reader.name).cloned();
        let mut situation = Situation { acts, paused, is_asked_for, ..Situation::default() };
        for (key, parked) in models.readers.get(&lease.reader.id).iter().flat_map(|stored| &stored.parked) {
            situation.parked.push(key.clone());
            situation.letters += parked.letters.len();
            if parked.is_retry_requested && parked.shard == lease.shard {
                situation.retries.push(key.clone());
            }
        }
        Ok(situation)
    }

    async fn letters(&self, lease: &Lease, key: &str) -> Result<Vec<DeadLetter>, ReadModelError> {
        let models = &self.lock().read_models;
        let parked = models.readers.get(&lease.reader.id).and_then(|stored| stored.parked.get(key));
        Ok(page(parked.iter().flat_map(|parked| parked.letters.values()), 100))
    }

    async fn handled(&self, reader: &Reader, messages: &[Uuid]) -> Result<Vec<Uuid>, ReadModelError> {
        let models = &self.lock().read_models;
        let stored = models.readers.get(&reader.id);
        let is_known = |message: &&Uuid| stored.is_some_and(|stored| stored.inbox.contains_key(message));
        Ok(messages.iter().filter(is_known).copied().collect())
    }

    async fn stopped(&self, lease: &Lease, event: &RecordedEvent, cause: &str) -> Result<(), ReadModelError> {
        if let Ok(shard) = self.lock().read_models.leased(lease) {
            shard.stopped = Some(StoppedAt {
                reader: lease.reader.id,
                shard: lease.shard.clone(),
                position: event.position,
                event_id: event.id,
                recorded_at: event.recorded_at,
                cause: cause.to_owned(),
                at: Utc::now(),
            });
        }
        Ok(())
    }

    async fn paused(&self, reader: &str) -> Result<Option<Pause>, ReadModelError> {
        Ok(self.lock().read_models.pauses.get(reader).cloned())
    }

    async fn shares(&self, reader: &Reader) -> Result<Vec<Share>, ReadModelError> {
        let models = &mut self.lock().read_models;
        let stored = models.shards(reader).into_iter().flatten();
        let share = |(shard, stored): (&Shard, &mut StoredShard)| {
            let held = stored.held.as_ref().filter(|held| held.is_live())?;
            Some(Share { shard: shard.clone(), owner: held.owner, is_asked_for: stored.is_asked_for })
        };
        Ok(stored.filter_map(share).collect())
    }

    async fn ask_for(&self, reader: &Reader, shards: &[Shard]) -> Result<(), ReadModelError> {
        let models = &mut self.lock().read_models;
        let Some(stored) = models.shards(reader) else { return Ok(()) };
        for shard in shards {
            if let Some(stored) = stored.get_mut(shard).filter(|stored| !stored.is_asked_for)
                && let Some(held) = &stored.held
            {
                stored.is_asked_for = true;
                stored.acts = Acts(stored.acts.0 + 1);
                held.note(stored.acts);
            }
        }
        Ok(())
    }
}

/// The first of `letters`, up to the one with which their payloads reach a page's bytes.
pub(super) fn page<'a>(letters: impl Iterator<Item = &'a DeadLetter>, limit: usize) -> Vec<DeadLetter> {
    let mut bytes = 0;
    let fits = |letter: &&DeadLetter| {
        let is_first_or_fits = bytes < PAGE_BYTES;
        bytes += letter.event.data.payload.len() + letter.edited.as_ref().map_or(0, Bytes::len);
        is_first_or_fits
    };
    letters.take(limit).take_while(fits).cloned().collect()
}

impl ReadModels {
    pub(super) fn commit(&mut self, lease: &Lease, changes: Changes) -> Result<(), CommitError> {
        let fenced = || CommitError::Fenced(lease.shard.clone());
        if self.leased(lease)?.checkpoint.position != lease.checkpoint.position {
            return Err(fenced());
        }
        let stored = self.readers.get(&lease.reader.id).ok_or_else(fenced)?;
        if let Some(taken) = stored.fields.taken(&changes.fields) {
            return Err(CommitError::Taken(taken));
        }
        if let Some(redemption) = &changes.redemption {
            self.redeem(lease, redemption)?;
        }
        if let Some(act) = &changes.healed_by {
            for key in changes.keys() {
                self.note("heal", &lease.reader.name, Some(key), None, act);
            }
        }
        self.park(lease, changes.letters);
        let stored = self.readers.get_mut(&lease.reader.id).ok_or_else(fenced)?;
        stored.documents.extend(changes.upserts);
        for key in &changes.deletes {
            stored.documents.remove(key);
        }
        stored.fields.write(changes.fields);
        if let Some(Inbox { handled, keep_for }) = changes.inbox {
            let now = Utc::now();
            stored.inbox.retain(|_, at| (now - *at).to_std().is_ok_and(|age| age < keep_for));
            for message in handled {
                stored.inbox.entry(message).or_insert(now);
            }
        }
        self.leased(lease)?.checkpoint = changes.checkpoint;
        Ok(())
    }

    fn park(&mut self, lease: &Lease, letters: Vec<NewLetter>) {
        let Some(stored) = self.readers.get_mut(&lease.reader.id) else { return };
        for NewLetter { key, event, cause, attempts } in letters {
            let parked = stored.parked.entry(key.clone()).or_insert_with(|| Parked {
                shard: lease.shard.clone(),
                is_retry_requested: false,
                letters: BTreeMap::new(),
            });
            let (reader, shard, parked_at) = (lease.reader.clone(), lease.shard.clone(), Utc::now());
            let (position, edited, revision) = (event.position, None, 1);
            let letter = DeadLetter { reader, shard, key, event, edited, cause, attempts, parked_at, revision };
            parked.letters.insert(position, letter);
        }
    }

    fn redeem(&mut self, lease: &Lease, redemption: &Redemption) -> Result<(), CommitError> {
        let edited = || CommitError::Edited(redemption.key.clone());
        let stored = self.readers.get_mut(&lease.reader.id);
        let stored = stored.ok_or_else(|| CommitError::Fenced(lease.shard.clone()))?;
        let parked = stored.parked.get_mut(&redemption.key).ok_or_else(edited)?;
        let failed = redemption.failed.as_ref().map(|failed| (failed.position, failed.revision));
        for (position, revision) in redemption.handled.iter().copied().chain(failed) {
            if parked.letters.get(&position).is_none_or(|letter| letter.revision != revision) {
                return Err(edited());
            }
        }
        for (position, _) in &redemption.handled {
            parked.letters.remove(position);
        }
        if let Some(failed) = &redemption.failed {
            parked.is_retry_requested = false;
            if let Some(letter) = parked.letters.get_mut(&failed.position) {
                letter.cause = Some(failed.cause.clone());
                letter.attempts += 1;
                letter.revision += 1;
            }
        }
        if redemption.is_whole && parked.letters.is_empty() {
            stored.parked.remove(&redemption.key);
        }
        Ok(())
    }
}
