//! A reader that drives a feed by hand, and keeps its checkpoints as a read model store would.

use std::{collections::BTreeMap, time::Instant};

use es_core::{
    EventOrder, Position, RecordedEvent,
    backend::{Categories, Checkpoint, Delivery, EventFeed, EventSource, Shard, SourceError, Split, Subscription},
};
use es_kafka::{KafkaSource, KafkaSourceConfig};

use uuid::Uuid;

use crate::setup::{House, PATIENCE, brokers};

impl House {
    pub(crate) fn source_config(&self) -> KafkaSourceConfig {
        let settings = [("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")];
        KafkaSourceConfig {
            topic_prefix: self.prefix.clone(),
            group_prefix: self.prefix.clone(),
            settings: settings.into(),
            ..KafkaSourceConfig::new(brokers(), "relay")
        }
    }
}

pub(crate) fn subscription(categories: Categories, order: EventOrder) -> Subscription {
    Subscription { reader: "reader".into(), store: Uuid::nil(), categories, order, split: Split::NONE, forwards: false }
}

pub(crate) struct Reader {
    feed: Box<dyn EventFeed>,
    pub(crate) checkpoints: BTreeMap<Shard, Checkpoint>,
    pub(crate) events: Vec<(Shard, RecordedEvent)>,
    pub(crate) batches: usize,
    /// How many events the largest batch had.
    pub(crate) largest_batch: usize,
    pub(crate) at_end: BTreeMap<Shard, bool>,
}

impl Reader {
    pub(crate) async fn open(
        config: KafkaSourceConfig,
        categories: Categories,
        order: EventOrder,
        checkpoints: BTreeMap<Shard, Checkpoint>,
    ) -> Self {
        Self::of(KafkaSource::new(config), categories, order, checkpoints).await
    }

    pub(crate) async fn of(
        source: impl EventSource,
        categories: Categories,
        order: EventOrder,
        checkpoints: BTreeMap<Shard, Checkpoint>,
    ) -> Self {
        let feed = source.open(&subscription(categories, order)).await.unwrap();
        Self { feed, checkpoints, events: Vec::new(), batches: 0, largest_batch: 0, at_end: BTreeMap::new() }
    }

    /// Why the source is not even opened.
    pub(crate) async fn refused_at_once(
        config: KafkaSourceConfig,
        categories: Categories,
        order: EventOrder,
    ) -> SourceError {
        KafkaSource::new(config).open(&subscription(categories, order)).await.unwrap_err()
    }

    /// Ends the reader, and leaves its group.
    pub(crate) fn into_checkpoints(self) -> BTreeMap<Shard, Checkpoint> {
        self.checkpoints
    }

    /// Takes one delivery and checks that the shard continues where it was.
    pub(crate) async fn step(&mut self) -> Result<(), SourceError> {
        match self.feed.next().await? {
            Delivery::Assigned(shards) => {
                for shard in shards {
                    let checkpoint = self.checkpoints.entry(shard.clone()).or_default().clone();
                    self.feed.start(&shard, &checkpoint).await?;
                }
            }
            Delivery::Batch(batch) => {
                let known = self.checkpoints.get_mut(&batch.shard).expect("a started shard");
                let mut last = known.position;
                self.largest_batch = self.largest_batch.max(batch.events.iter().count());
                for event in batch.events.iter().cloned() {
                    assert!(event.position > last, "{} follows {last} in {}", event.position, batch.shard);
                    last = event.position;
                    self.events.push((batch.shard.clone(), event));
                }
                assert!(batch.checkpoint.position >= last);
                *known = batch.checkpoint;
                self.batches += 1;
                self.at_end.insert(batch.shard, batch.end.is_some());
            }
            Delivery::Revoked(_) | Delivery::Idle => {}
        }
        Ok(())
    }

    pub(crate) fn reached(&self) -> Position {
        self.checkpoints.values().map(|checkpoint| checkpoint.position).min().unwrap_or_default()
    }

    /// Reads until all shards have reached `position`.
    pub(crate) async fn read_to(&mut self, position: Position) {
        let deadline = Instant::now() + PATIENCE;
        while self.reached() < position {
            assert!(Instant::now() < deadline, "{:?} do not reach {position}", self.checkpoints);
            self.step().await.unwrap();
        }
    }

    /// Reads until the source has nothing more of any shard.
    pub(crate) async fn read_to_end(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.checkpoints.is_empty()
            || self.checkpoints.keys().any(|shard| self.at_end.get(shard).is_none_or(|at_end| !at_end))
        {
            assert!(Instant::now() < deadline, "{:?} do not end: {:?}", self.checkpoints, self.at_end);
            self.step().await.unwrap();
        }
    }

    /// Reads until there are `count` events.
    pub(crate) async fn read_events(&mut self, count: usize) -> Result<(), SourceError> {
        let deadline = Instant::now() + PATIENCE;
        while self.events.len() < count {
            assert!(Instant::now() < deadline, "{:?}", self.events);
            self.step().await?;
        }
        Ok(())
    }

    /// Reads until the source refuses.
    pub(crate) async fn refusal(&mut self) -> SourceError {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the source refuses nothing");
            if let Err(error) = self.step().await {
                return error;
            }
        }
    }

    pub(crate) fn positions(&self) -> Vec<u64> {
        self.events.iter().map(|(_, event)| event.position.get()).collect()
    }
}
