//! Documents and generations in memory.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{MemoryStore, fields::FieldIndex, read_models::Stored};
use crate::read::{
    known_progress::KnownProgress,
    read_model::{
        DeclaredField, Documents, FieldScan, FoundDocument, Generation, GenerationSet, GenerationState, Generations,
        KeyRange, PromoteError, Promotion, ReadModelError, Served,
    },
};

#[async_trait]
impl Documents for MemoryStore {
    async fn get(&self, projection: &str, key: &str) -> Result<Option<Served<Option<Bytes>>>, ReadModelError> {
        let state = self.lock();
        let serving = state.read_models.find(projection, GenerationState::Serving);
        Ok(serving.map(|stored| stored.served(stored.documents.get(key).cloned())))
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
        Ok(Some(stored.served(found.collect())))
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
        Ok(Some(stored.served(found)))
    }

    async fn count(&self, projection: &str, scan: &FieldScan) -> Result<Option<Served<Option<u64>>>, ReadModelError> {
        let state = self.lock();
        let Some(stored) = state.read_models.find(projection, GenerationState::Serving) else { return Ok(None) };
        let counted = stored.fields.has(scan).then(|| stored.fields.covered(scan).count() as u64);
        Ok(Some(stored.served(counted)))
    }

    async fn load(
        &self,
        generation: &Generation,
        keys: &[String],
        budget: usize,
    ) -> Result<Vec<Option<Bytes>>, ReadModelError> {
        let state = self.lock();
        let stored = state.read_models.generations.get(&generation.id);
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

    async fn generations(&self, projection: &str) -> Result<GenerationSet, ReadModelError> {
        let models = &self.lock().read_models;
        let serving = models.find(projection, GenerationState::Serving);
        Ok(GenerationSet {
            serving: serving.map(Stored::progress),
            building: models.find(projection, GenerationState::Building).map(Stored::progress),
            withdrawn: serving.map_or(0, |stored| stored.withdrawn),
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
    ) -> Result<Generation, ReadModelError> {
        let models = &mut self.lock().read_models;
        if let Some(stored) = models.find(projection, state) {
            return Ok(stored.generation.clone());
        }
        models.last_id += 1;
        let generation = Generation { id: models.last_id, projection: projection.to_owned(), version };
        let stored = Stored {
            generation: generation.clone(),
            state,
            definition: None,
            withdrawn: 0,
            shards: HashMap::new(),
            documents: BTreeMap::new(),
            fields: FieldIndex::default(),
            parked: BTreeMap::new(),
        };
        models.generations.insert(generation.id, stored);
        Ok(generation)
    }

    async fn define(
        &self,
        generation: &Generation,
        definition: &str,
        fields: &[DeclaredField],
    ) -> Result<(), ReadModelError> {
        if let Some(stored) = self.lock().read_models.generations.get_mut(&generation.id)
            && stored.definition.is_none()
        {
            stored.definition = Some(definition.to_owned());
            stored.fields.declare(fields);
        }
        Ok(())
    }

    async fn state(&self, generation: &Generation) -> Result<Option<GenerationState>, ReadModelError> {
        Ok(self.lock().read_models.generations.get(&generation.id).map(|stored| stored.state))
    }

    async fn promote(&self, building: &Generation, promotion: Promotion) -> Result<(), PromoteError> {
        let models = &mut self.lock().read_models;
        let is_building = |stored: &&Stored| stored.state == GenerationState::Building;
        let new = models.generations.get(&building.id).filter(is_building).ok_or(PromoteError::NotBuilding)?;
        let mut withdrawn = 0;
        if let Some(old) = models.find(&building.projection, GenerationState::Serving) {
            let newest = old.withdrawn.max(old.generation.version);
            let is_newer = old.generation.version <= building.version && old.withdrawn < building.version;
            if !is_newer && promotion == Promotion::Automatic {
                return Err(PromoteError::Withdrawn { serving: old.generation.version });
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
            withdrawn = if newest > building.version { newest } else { 0 };
            let old = old.generation.id;
            models.generations.remove(&old);
        }
        if let Some(stored) = models.generations.get_mut(&building.id) {
            stored.state = GenerationState::Serving;
            stored.withdrawn = withdrawn;
        }
        self.progress.moved(&building.projection);
        Ok(())
    }

    async fn discard(&self, building: &Generation) -> Result<(), ReadModelError> {
        let models = &mut self.lock().read_models;
        models.generations.retain(|id, stored| *id != building.id || stored.state != GenerationState::Building);
        Ok(())
    }
}
