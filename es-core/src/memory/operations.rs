//! What operators do, in memory.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::Utc;
use uuid::Uuid;

use super::{
    MemoryStore,
    leases::page,
    read_models::{ReadModels, Stored},
};
use crate::{
    read::read_model::{
        Act, ActError, ActRecord, Acts, Amendment, Checkpoint, DeadLetter, DeadLetters, Exceptions, Extent,
        GenerationState, LetterPage, Operations, ParkedKey, Pause, ReadModelError, Reader, Shard, StoppedAt,
        check_payload,
    },
    stream::Position,
    witness::Witness,
};

#[async_trait]
impl DeadLetters for MemoryStore {
    async fn dead_letters(&self, reader: &str, wanted: &LetterPage) -> Result<Vec<DeadLetter>, ReadModelError> {
        let models = &self.lock().read_models;
        let letters = models
            .of(reader)
            .flat_map(|stored| stored.parked.values())
            .flat_map(|parked| parked.letters.values())
            .filter(|letter| wanted.key.as_ref().is_none_or(|key| *key == letter.key))
            .filter(|letter| wanted.after.as_ref().is_none_or(|after| letter.id() > *after));
        Ok(page(letters, wanted.limit))
    }

    async fn parked_keys(&self, reader: &str) -> Result<Vec<ParkedKey>, ReadModelError> {
        let models = &self.lock().read_models;
        let parked = models.of(reader).flat_map(|stored| {
            stored.parked.iter().map(|(key, parked)| ParkedKey {
                reader: stored.reader.id,
                shard: parked.shard.clone(),
                key: key.clone(),
                letters: parked.letters.len() as u64,
                is_retry_requested: parked.is_retry_requested,
            })
        });
        Ok(parked.collect())
    }

    async fn request_retry(&self, reader: &str, key: &str, act: &Act) -> Result<(), ActError> {
        let models = &mut self.lock().read_models;
        let mut found = false;
        for parked in models.of_mut(reader).filter_map(|stored| stored.parked.get_mut(key)) {
            parked.is_retry_requested = true;
            found = true;
        }
        if !found {
            return Err(ActError::NotParked { reader: reader.to_owned(), key: key.to_owned() });
        }
        models.note("retry", reader, Some(key), None, act);
        Ok(())
    }

    async fn discard_letters(
        &self,
        reader: &str,
        key: &str,
        position: Option<Position>,
        act: &Act,
    ) -> Result<u64, ActError> {
        let models = &mut self.lock().read_models;
        let (mut is_parked, mut discarded) = (false, 0);
        for stored in models.of_mut(reader) {
            let Some(parked) = stored.parked.get_mut(key) else { continue };
            is_parked = true;
            let is_meant = |at: &Position| position.is_none_or(|position| position == *at);
            let gone: Vec<_> = parked.letters.extract_if(.., |at, _| is_meant(at)).map(|(at, _)| at).collect();
            parked.is_retry_requested |= parked.letters.is_empty();
            discarded += gone.len() as u64;
            for position in gone {
                stored.amend(Amendment { position, extent: Extent::Key(key.to_owned()), payload: None });
            }
        }
        let (reader, key) = (reader.to_owned(), key.to_owned());
        match position {
            _ if !is_parked => Err(ActError::NotParked { reader, key }),
            Some(position) if discarded == 0 => Err(ActError::NoLetter { reader, key, position }),
            position => {
                models.note("discard", &reader, Some(&key), position, act);
                Ok(discarded)
            }
        }
    }

    async fn edit_letter(
        &self,
        reader: &str,
        key: &str,
        position: Position,
        payload: Bytes,
        act: &Act,
    ) -> Result<(), ActError> {
        check_payload(&payload)?;
        let models = &mut self.lock().read_models;
        let mut found = false;
        for stored in models.of_mut(reader) {
            let letter = stored.parked.get_mut(key).and_then(|parked| parked.letters.get_mut(&position));
            let Some(letter) = letter else { continue };
            letter.edited = Some(payload.clone());
            letter.revision += 1;
            stored.amend(Amendment { position, extent: Extent::Key(key.to_owned()), payload: Some(payload.clone()) });
            found = true;
        }
        if !found {
            return Err(ActError::NoLetter { reader: reader.to_owned(), key: key.to_owned(), position });
        }
        models.note("edit", reader, Some(key), Some(position), act);
        Ok(())
    }
}

#[async_trait]
impl Operations for MemoryStore {
    async fn pause(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        let models = &mut self.lock().read_models;
        if models.of(reader).next().is_none() {
            return Err(ActError::UnknownReader(reader.to_owned()));
        }
        let pause = Pause { actor: act.actor().to_owned(), reason: act.reason().to_owned(), at: Utc::now() };
        models.pauses.entry(reader.to_owned()).or_insert(pause);
        models.note("pause", reader, None, None, act);
        Ok(())
    }

    async fn resume(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        let models = &mut self.lock().read_models;
        models.pauses.remove(reader).ok_or_else(|| ActError::NotPaused(reader.to_owned()))?;
        models.note("resume", reader, None, None, act);
        Ok(())
    }

    async fn skip(
        &self,
        reader: &str,
        shard: &Shard,
        position: Position,
        event_id: Uuid,
        act: &Act,
    ) -> Result<(), ActError> {
        let models = &mut self.lock().read_models;
        let mut found = false;
        for stored in models.of_mut(reader) {
            let Some(place) = stored.shards.get_mut(shard) else { continue };
            let Some(at) = &place.stopped else { continue };
            if (at.position, at.event_id) == (position, event_id) && place.checkpoint.position < position {
                let witness = Some(Witness { event_id, recorded_at: at.recorded_at });
                place.checkpoint = Checkpoint { position, witness, cursor: place.checkpoint.cursor.take() };
                stored.amend(Amendment { position, extent: Extent::Shard(shard.clone()), payload: None });
                found = true;
            }
        }
        if !found {
            let (reader, shard) = (reader.to_owned(), shard.clone());
            return Err(ActError::NotStopped { reader, shard, position, event_id });
        }
        models.note("skip", reader, Some(&shard.to_string()), Some(position), act);
        Ok(())
    }

    async fn cancel_rebuild(&self, reader: &str, act: &Act) -> Result<(), ActError> {
        let models = &mut self.lock().read_models;
        let building = models.find(reader, GenerationState::Building).and_then(Stored::generation);
        let building = building.ok_or_else(|| ActError::NotBuilding(reader.to_owned()))?;
        models.readers.remove(&building.reader.id);
        models.note("cancel-rebuild", reader, None, None, act);
        Ok(())
    }

    async fn stops(&self, reader: &str) -> Result<Vec<StoppedAt>, ReadModelError> {
        let models = &self.lock().read_models;
        let shards = models.of(reader).flat_map(|stored| stored.shards.values());
        let is_there = |(at, position): &(&StoppedAt, Position)| at.position > *position;
        let stops = shards.filter_map(|shard| Some((shard.stopped.as_ref()?, shard.checkpoint.position)));
        let mut stops: Vec<_> = stops.filter(is_there).map(|(at, _)| at.clone()).collect();
        stops.sort_by(|one, other| (one.reader, &one.shard).cmp(&(other.reader, &other.shard)));
        Ok(stops)
    }

    async fn exceptions(&self, reader: &Reader) -> Result<Exceptions, ReadModelError> {
        let models = &self.lock().read_models;
        let mut exceptions = Exceptions::default();
        let Some(stored) = models.readers.get(&reader.id) else { return Ok(exceptions) };
        for (key, parked) in &stored.parked {
            if let Some(first) = parked.letters.keys().next() {
                exceptions.park(key, *first);
            }
        }
        for shard in stored.shards.values() {
            if let Some(at) = shard.stopped.as_ref().filter(|at| at.position > shard.checkpoint.position) {
                exceptions.stop(at.shard.clone(), at.position);
            }
        }
        for amendment in &stored.amendments {
            exceptions.amend(amendment.clone());
        }
        Ok(exceptions)
    }

    async fn record(&self, what: &str, reader: &str, act: &Act) -> Result<(), ReadModelError> {
        self.lock().read_models.note(what, reader, None, None, act);
        Ok(())
    }

    async fn acts(&self, before: Option<i64>, limit: usize) -> Result<Vec<ActRecord>, ReadModelError> {
        let acts = &self.lock().read_models.acts;
        let earlier = acts.iter().rev().filter(|record| before.is_none_or(|before| record.id < before));
        Ok(earlier.take(limit).cloned().collect())
    }
}

impl ReadModels {
    /// Records an act and lets the workers of the reader know.
    pub(super) fn note(
        &mut self,
        what: &str,
        reader: &str,
        target: Option<&str>,
        position: Option<Position>,
        act: &Act,
    ) {
        for shard in self.of_mut(reader).flat_map(|stored| stored.shards.values_mut()) {
            shard.acts = Acts(shard.acts.0 + 1);
            if let Some(held) = &shard.held {
                held.note(shard.acts);
            }
        }
        self.acts.push(ActRecord {
            id: i64::try_from(self.acts.len()).unwrap_or(i64::MAX).saturating_add(1),
            at: Utc::now(),
            actor: act.actor().to_owned(),
            reason: act.reason().to_owned(),
            what: what.to_owned(),
            reader: reader.to_owned(),
            target: target.map(str::to_owned),
            position,
        });
    }
}
