//! The port of operators, in memory.

use async_trait::async_trait;

use super::{MemoryStore, log::index, read_models::Stored};
use crate::{
    error::BoxError,
    inspect::{Finding, GenerationSummary, Inspect, LeaseSummary, ReaderSummary, ShardSummary, StreamSummary},
    read::read_model::{GenerationState, KeyRange, ReadModelError},
    stream::Version,
    write::store::ReadError,
};

#[async_trait]
impl Inspect for MemoryStore {
    async fn list_streams(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StreamSummary>, ReadError> {
        let range = KeyRange { after: after.map(str::to_owned), ..KeyRange::prefix(prefix) };
        let log = &self.lock().log;
        let mut names: Vec<_> = log.streams.iter().filter(|(stream, _)| range.contains(stream.as_str())).collect();
        names.sort_unstable_by_key(|(stream, _)| *stream);
        let summary = |(stream, positions): (&_, &Vec<_>)| {
            let last = &log.events[index(*positions.last()?)];
            let version = Version::new(positions.len() as u64);
            Some(StreamSummary {
                stream: Clone::clone(stream),
                version,
                position: last.position,
                recorded_at: last.recorded_at,
            })
        };
        Ok(names.into_iter().filter_map(summary).take(limit).collect())
    }

    async fn list_readers(&self) -> Result<Vec<ReaderSummary>, ReadModelError> {
        let models = &self.lock().read_models;
        let mut readers: Vec<_> = models.readers.values().collect();
        // Of one name first the generation that serves.
        readers.sort_by_key(|stored| (&stored.reader.name, stored.is(GenerationState::Building)));
        let readers = readers.into_iter().map(Stored::summary).collect();
        Ok(readers)
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, BoxError> {
        let advice = "open a store on a file or on a server";
        Ok(vec![Finding::warning("durability", "the store is in memory: everything ends with the process", advice)])
    }
}

impl Stored {
    fn summary(&self) -> ReaderSummary {
        let mut shards: Vec<_> = self.shards.iter().collect();
        shards.sort_unstable_by_key(|(shard, _)| *shard);
        let summary = |(shard, stored): (&_, &super::read_models::StoredShard)| ShardSummary {
            shard: Clone::clone(shard),
            position: stored.checkpoint.position,
            recorded_at: stored.checkpoint.witness.map(|witness| witness.recorded_at),
            lease: stored.held.as_ref().filter(|held| held.is_live()).map(|held| LeaseSummary {
                owner: held.owner,
                fencing_token: stored.fencing_token,
                since: held.since,
            }),
        };
        ReaderSummary {
            reader: self.reader.clone(),
            generation: self.copy.as_ref().map(|copy| GenerationSummary { version: copy.version, state: copy.state }),
            definition: self.definition.clone(),
            shards: shards.into_iter().map(summary).collect(),
        }
    }
}
