//! Documents and generations in memory.

use std::ops::Bound;

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    MemoryStore,
    read_models::{Stored, StoredCopy},
};
use crate::read::{
    known_progress::KnownProgress,
    read_model::{
        DeclaredField, Documents, EnsureError, FieldScan, FoundDocument, Generation, GenerationSet, GenerationState,
        Generations, KeyRange, PromoteError, Promotion, ReadModelError, Reader, Served, StoredDocument,
    },
};

#[async_trait]
impl Documents for MemoryStore {
    async fn get(&self, projection: &str, key: &str) -> Result<Option<Served<Option<Bytes>>>, ReadModelError> {
        let state = self.lock();
        let serving = state.read_models.find(projection, GenerationState::Serving);
        Ok(serving.and_then(|stored| stored.served(stored.documents.get(key).cloned())))
    }

    async fn scan(
        &self,
        projection: &str,
        range: KeyRange,
        limit: usize,
    ) -> Result<Option<Served<Vec<(String, Bytes)>>>, ReadModelError> {
        let state = self.lock();
        let Some(stored) = state.read_models.find(projection, GenerationState::Serving) else { return Ok(None) };
        let from = range.after.as_deref().unwrap_or_default().max(&range.prefix).to_owned();
        let documents = stored.documents.range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded));
        let found = documents
            .filter(|(key, _)| range.contains(key))
            .take(limit)
            .map(|(key, document)| (key.clone(), document.clone()));
        Ok(stored.served(found.collect()))
    }

    async fn find(
        &self,
        projection: &str,
        scan: &FieldScan,
        limit: usize,
    ) -> Result<Option<Served<Option<Vec<FoundDocument>>>>, ReadModelError> {
        let state = self.lock();
        let Some(stored) = state.read_models.find(projection, GenerationState::Serving) else { return Ok(None) };
        let found = stored.fields.has(scan).then(|| {
            let places = stored.fields.covered(scan).take(limit);
            let document = |key| stored.documents.get(key).cloned().unwrap_or_default();
            places.map(|place| FoundDocument { place: place.clone(), document: document(&place.key) }).collect()
        });
        Ok(stored.served(found))
    }

    async fn count(&self, projection: &str, scan: &FieldScan) -> Result<Option<Served<Option<u64>>>, ReadModelError> {
        let state = self.lock();
        let Some(stored) = state.read_models.find(projection, GenerationState::Serving) else { return Ok(None) };
        let counted = stored.fields.has(scan).then(|| stored.fields.covered(scan).count() as u64);
        Ok(stored.served(counted))
    }

    async fn load(
        &self,
        reader: &Reader,
        keys: &[String],
        budget: usize,
    ) -> Result<Vec<Option<Bytes>>, ReadModelError> {
        let state = self.lock();
        let stored = state.read_models.readers.get(&reader.id);
        let (mut loaded, mut bytes) = (Vec::new(), 0);
        for key in keys {
            if bytes >= budget {
                break;
            }
            let document = stored.and_then(|stored| stored.documents.get(key).cloned());
            bytes += document.as_ref().map_or(0, Bytes::len);
            loaded.push(document);
        }
        Ok(loaded)
    }

    async fn stored(&self, reader: &Reader, keys: &[String]) -> Result<Vec<StoredDocument>, ReadModelError> {
        let state = self.lock();
        let Some(stored) = state.read_models.readers.get(&reader.id) else {
            return Ok(vec![StoredDocument::default(); keys.len()]);
        };
        let of = |key: &String| StoredDocument {
            document: stored.documents.get(key).cloned(),
            fields: stored.fields.of(key),
        };
        Ok(keys.iter().map(of).collect())
    }

    async fn generations(&self, projection: &str) -> Result<GenerationSet, ReadModelError> {
        let models = &self.lock().read_models;
        let serving = models.find(projection, GenerationState::Serving);
        Ok(GenerationSet {
            serving: serving.and_then(Stored::progress),
            building: models.find(projection, GenerationState::Building).and_then(Stored::progress),
            withdrawn: serving.and_then(|stored| stored.copy.as_ref()).map_or(0, |copy| copy.withdrawn),
        })
    }

    fn known_progress(&self) -> &KnownProgress {
        &self.progress
    }
}

#[async_trait]
impl Generations for MemoryStore {
    async fn ensure_generation(
        &self,
        projection: &str,
        version: u32,
        state: GenerationState,
        definition: &str,
        fields: &[DeclaredField],
    ) -> Result<Generation, EnsureError> {
        let models = &mut self.lock().read_models;
        if let Some(found) = models.find(projection, state).and_then(Stored::generation) {
            return Ok(found);
        }
        if let Some(other) = models.of(projection).find(|stored| stored.copy.is_none()) {
            return Err(EnsureError::OtherReader { definition: other.definition.clone() });
        }
        let reader = models.add(projection, definition, Some(StoredCopy { version, state, withdrawn: 0 }));
        if let Some(stored) = models.readers.get_mut(&reader.id) {
            stored.fields.declare(fields);
        }
        Ok(Generation { reader, version })
    }

    async fn state(&self, generation: &Generation) -> Result<Option<GenerationState>, ReadModelError> {
        let models = &self.lock().read_models;
        Ok(models.readers.get(&generation.reader.id).and_then(|stored| Some(stored.copy.as_ref()?.state)))
    }

    async fn promote(&self, building: &Generation, promotion: Promotion) -> Result<(), PromoteError> {
        let mut state = self.lock();
        // So a read model that appends fold has all events from its first moment on.
        self.fold_building(&mut state, building);
        let models = &mut state.read_models;
        let Generation { reader, version } = building;
        let is_building = |stored: &&Stored| stored.is(GenerationState::Building);
        let new = models.readers.get(&reader.id).filter(is_building).ok_or(PromoteError::NotBuilding)?;
        let (mut withdrawn, mut replaced) = (0, None);
        if let Some(old) = models.find(&reader.name, GenerationState::Serving)
            && let Some(copy) = &old.copy
        {
            let newest = copy.withdrawn.max(copy.version);
            let is_newer = copy.version <= *version && copy.withdrawn < *version;
            if !is_newer && promotion == Promotion::Automatic {
                return Err(PromoteError::Withdrawn { serving: copy.version });
            }
            let slowest = new.reached();
            for (shard, stored) in &old.shards {
                let serving = stored.checkpoint.position;
                let building = new.shards.get(shard).map_or(slowest, |shard| shard.checkpoint.position);
                if building < serving {
                    return Err(PromoteError::Behind { building, serving });
                }
            }
            if slowest < old.reached() {
                return Err(PromoteError::Behind { building: slowest, serving: old.reached() });
            }
            (withdrawn, replaced) = (if newest > *version { newest } else { 0 }, Some(old.reader.id));
        }
        models.readers.retain(|id, _| Some(*id) != replaced);
        if let Some(copy) = models.readers.get_mut(&reader.id).and_then(|stored| stored.copy.as_mut()) {
            (copy.state, copy.withdrawn) = (GenerationState::Serving, withdrawn);
        }
        self.progress.moved(&building.reader.name);
        Ok(())
    }

    async fn discard(&self, building: &Generation) -> Result<(), ReadModelError> {
        let readers = &mut self.lock().read_models.readers;
        readers.retain(|id, stored| *id != building.reader.id || !stored.is(GenerationState::Building));
        Ok(())
    }
}
