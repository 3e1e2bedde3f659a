//! Notices a reader whose clients get nothing any more.
//!
//! After all brokers were away a client of librdkafka may never find one again (librdkafka issue 5301): a broker that
//! has just started may answer with topics and without brokers, and the client then removes all brokers that it
//! knows, those of `bootstrap.servers` too. It reports nothing from then on. So the watchdog asks the brokers itself, with a
//! client of its own that it makes for each question.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{
    Position,
    backend::{Shard, SourceError},
};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    metadata::MetadataTopic,
};
use tokio::sync::oneshot;

use crate::{
    aside,
    client::{Quiet, unavailable},
    config::KafkaSourceConfig,
    progress, refusal,
    topics::{Topics, shard},
};

/// How long a question to the brokers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the reader's thread has handed on of one shard.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) shard: Shard,
    pub(crate) position: Position,
    /// Since when it has stood there although its reader had room for more.
    pub(crate) since: Instant,
}

/// What the watchdog sees of a reader.
#[derive(Debug, Default)]
pub(crate) struct Sight {
    pub(crate) shards: Vec<Standing>,
    /// Since when the client of a reader without shards has had no broker.
    pub(crate) without_brokers: Option<Instant>,
}

impl Sight {
    fn oldest(&self) -> Option<Instant> {
        self.shards.iter().map(|standing| standing.since).chain(self.without_brokers).min()
    }
}

/// By what the watchdog knows what there is to be had.
#[derive(Debug, Clone)]
pub(crate) enum Measure {
    /// The progress of the relay.
    Relay,
    /// The ends of the partitions of these topics, which other systems fill.
    Topics(Vec<String>),
}

/// What the brokers said: how far the topics are filled, and where the relay's progress topic ends.
#[derive(Debug, Clone, Default)]
struct Answer {
    published: Position,
    /// Of shards with positions of their own.
    each: HashMap<Shard, Position>,
    end: Option<i64>,
}

impl Answer {
    fn of(&self, shard: &Shard) -> Position {
        self.each.get(shard).copied().unwrap_or(self.published)
    }
}

/// Compares what a reader has handed on with what there is to be had.
#[derive(Debug)]
pub(crate) struct Watchdog {
    config: Arc<KafkaSourceConfig>,
    measure: Measure,
    reader: String,
    /// The question that is being asked.
    asked: Option<oneshot::Receiver<Option<Answer>>>,
    asked_at: Option<Instant>,
    answer: Answer,
    /// Something that the reader should have had since then.
    news: Option<(Instant, Answer)>,
}

impl Watchdog {
    pub(crate) fn new(config: Arc<KafkaSourceConfig>, measure: Measure, reader: String) -> Self {
        Self { config, measure, reader, asked: None, asked_at: None, answer: Answer::default(), news: None }
    }

    /// Looks at the reader, without waiting. While it moves that costs nothing; after half of `reopen_after`
    /// without movement the brokers are asked, and if there is something that it should have, it has the other half to get it.
    ///
    /// # Errors
    /// [`SourceError::Unavailable`] when its clients get nothing any more.
    pub(crate) fn look(&mut self, sight: &Sight) -> Result<(), SourceError> {
        let half = self.config.reopen_after / 2;
        if let Some(asked) = &mut self.asked {
            match asked.try_recv() {
                Ok(Some(answer)) => {
                    self.asked = None;
                    self.answer = answer.clone();
                    self.news.get_or_insert((Instant::now(), answer));
                }
                Err(oneshot::error::TryRecvError::Empty) => {}
                // The brokers cannot be reached: no reader gets anything.
                Ok(None) | Err(oneshot::error::TryRecvError::Closed) => self.asked = None,
            }
        }
        if let Some((since, answer)) = self.news.take() {
            self.news = self.judge(sight, since, &answer, half)?.then_some((since, answer));
            return Ok(());
        }
        let silent = sight.oldest().is_some_and(|oldest| oldest.elapsed() >= half);
        if silent && self.asked.is_none() && self.asked_at.is_none_or(|at| at.elapsed() >= half) {
            self.ask();
        }
        Ok(())
    }

    /// Whether the news are still to be waited for.
    fn judge(&self, sight: &Sight, since: Instant, answer: &Answer, half: Duration) -> Result<bool, SourceError> {
        let late = sight.shards.iter().filter(|standing| standing.position < answer.of(&standing.shard));
        let Some(worst) = late.min_by_key(|standing| standing.since) else {
            let Some(without) = sight.without_brokers else { return Ok(false) };
            // The brokers answer others, so a client that lives has found them by now.
            let lost = without.max(since);
            return if lost.elapsed() < half { Ok(true) } else { Err(self.dead("it has no broker", without)) };
        };
        if worst.since.max(since).elapsed() < half {
            return Ok(true);
        }
        let Standing { shard, position, .. } = worst;
        let there = answer.of(shard);
        let what = match self.measure {
            Measure::Relay => {
                format!("shard {shard} stands at position {position}, and the relay has published {there}")
            }
            Measure::Topics(_) => {
                format!("shard {shard} stands at position {position}, and its partition ends at {there}")
            }
        };
        Err(self.dead(&what, worst.since))
    }

    fn dead(&self, what: &str, since: Instant) -> SourceError {
        let seconds = since.elapsed().as_secs();
        tracing::warn!(
            reader = self.reader,
            seconds,
            what,
            "the clients of a reader get nothing any more, and new ones are opened"
        );
        SourceError::Unavailable(format!("the clients get nothing any more: for {seconds} s {what}").into())
    }

    fn ask(&mut self) {
        let (config, reader, known) = (self.config.clone(), self.reader.clone(), self.answer.clone());
        let measure = self.measure.clone();
        let asked = aside::begin(move || {
            let found = match &measure {
                Measure::Relay => published(&config, &reader, known),
                Measure::Topics(topics) => ends(&config, &reader, topics),
            };
            found
                .inspect_err(|error| {
                    let error = error as &dyn std::error::Error;
                    tracing::debug!(reader, error, "what there is to be had cannot be looked up");
                })
                .ok()
        });
        (self.asked, self.asked_at) = (Some(asked), Some(Instant::now()));
    }
}

/// How far the relay has published. The progress is read only when something was added to it since `known`.
fn published(config: &KafkaSourceConfig, reader: &str, known: Answer) -> Result<Answer, SourceError> {
    let topic = Topics::new(&config.topic_prefix).progress();
    let client = config.observer(reader);
    let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet).map_err(unavailable)?;
    let end = match consumer.fetch_watermarks(&topic, 0, PATIENCE) {
        Ok((_, end)) => Some(end),
        Err(error) if refusal::is_unknown_topic(&error) => return Ok(Answer::default()),
        Err(error) => return Err(unavailable(error)),
    };
    drop(consumer);
    if end == known.end {
        return Ok(known);
    }
    let last = progress::read_last(&client, &topic, &config.relay, PATIENCE);
    let last = last.map_err(|error| SourceError::Unavailable(format!("{error:?}").into()))?;
    let published = last.map(|progress| progress.position).unwrap_or_default();
    Ok(Answer { published, end, ..Answer::default() })
}

/// Where the partitions of `topics` end.
fn ends(config: &KafkaSourceConfig, reader: &str, topics: &[String]) -> Result<Answer, SourceError> {
    let consumer: BaseConsumer<Quiet> = config.observer(reader).create_with_context(Quiet).map_err(unavailable)?;
    let mut answer = Answer::default();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).map_err(unavailable)?;
        for partition in metadata.topics().iter().flat_map(MetadataTopic::partitions) {
            let (_, end) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE).map_err(unavailable)?;
            answer.each.insert(shard(topic, partition.id()), Position::new(end.try_into().unwrap_or_default()));
        }
    }
    Ok(answer)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use es_core::backend::Checkpoint;
    use rdkafka::{
        ClientConfig,
        mocking::MockCluster,
        producer::{BaseProducer, BaseRecord, Producer},
    };

    use super::*;
    use crate::{
        source::{feed::KafkaFeed, outbox::Outbox},
        topics::shard,
    };

    const REOPEN_AFTER: Duration = Duration::from_secs(2);

    fn cluster(
        published: u64,
    ) -> (MockCluster<'static, rdkafka::producer::DefaultProducerContext>, Arc<KafkaSourceConfig>) {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("relay-progress", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        let id = uuid::Uuid::nil();
        let value = format!(
            r#"{{"incarnation":"{id}","position":{published},"head":{published},"event_id":"{id}","recorded_at":"2026-01-01T00:00:00Z","offsets":{{}},"positions":{{}},"partitions":{{}}}}"#
        );
        producer.send(BaseRecord::to("relay-progress").partition(0).key("relay").payload(&value)).unwrap();
        producer.flush(Duration::from_secs(10)).unwrap();
        let config = KafkaSourceConfig { reopen_after: REOPEN_AFTER, ..KafkaSourceConfig::new(brokers, "relay") };
        (cluster, Arc::new(config))
    }

    /// A feed whose thread has died with its client: nothing is ever pushed.
    async fn dead_feed(config: Arc<KafkaSourceConfig>, position: u64) -> KafkaFeed {
        use es_core::backend::EventFeed;
        let shard = shard("order-events", 0);
        let outbox = Outbox::new(vec![shard.clone()]);
        let mut feed = KafkaFeed::new(
            outbox,
            es_core::backend::Takeover::Always,
            Watchdog::new(config, Measure::Relay, "reader".into()),
        );
        let checkpoint = Checkpoint { position: Position::new(position), ..Checkpoint::default() };
        feed.start(&shard, &checkpoint).await.unwrap();
        feed
    }

    /// Able to lose: without the call of `look` in `KafkaFeed::next` it waits for ever.
    #[tokio::test]
    async fn a_reader_that_gets_nothing_of_what_was_published_is_reported_and_opened_anew() {
        use es_core::backend::EventFeed;
        let (_cluster, config) = cluster(7);
        let mut feed = dead_feed(config, 3).await;
        let started = Instant::now();
        let error = loop {
            match feed.next().await {
                Ok(delivery) => assert!(matches!(delivery, es_core::backend::Delivery::Idle), "{delivery:?}"),
                Err(error) => break error,
            }
            assert!(started.elapsed() < Duration::from_mins(1), "it is not noticed");
        };
        assert!(error.is_transient() && started.elapsed() >= REOPEN_AFTER, "{error:?}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("order-events/0 stands at position 3, and the relay has published 7"), "{cause}");
    }

    #[tokio::test]
    async fn a_reader_that_has_everything_may_be_silent_for_ever() {
        use es_core::backend::EventFeed;
        let (_cluster, config) = cluster(7);
        let mut feed = dead_feed(config, 7).await;
        let started = Instant::now();
        while started.elapsed() < REOPEN_AFTER * 3 {
            feed.next().await.unwrap();
        }
    }

    /// After a rebuild from the log a reader may pass what it knows for minutes. Seen to fail: it was opened again each
    /// time before it had reached anything new, for ever.
    #[tokio::test]
    async fn r18_a_reader_that_passes_what_it_knows_is_not_taken_for_dead() {
        use es_core::backend::EventFeed;
        let (_cluster, config) = cluster(7);
        let shard = shard("order-events", 0);
        let outbox = Outbox::new(vec![shard.clone()]);
        let watchdog = Watchdog::new(config, Measure::Relay, "reader".into());
        let mut feed = KafkaFeed::new(outbox.clone(), es_core::backend::Takeover::Always, watchdog);
        let checkpoint = Checkpoint { position: Position::new(3), ..Checkpoint::default() };
        feed.start(&shard, &checkpoint).await.unwrap();
        let started = Instant::now();
        while started.elapsed() < REOPEN_AFTER * 3 {
            outbox.reads(&shard);
            feed.next().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_reader_is_not_opened_anew_while_brokers_are_away() {
        use es_core::backend::EventFeed;
        let (cluster, config) = cluster(7);
        cluster.broker_down(1).unwrap();
        let mut feed = dead_feed(config, 3).await;
        let started = Instant::now();
        while started.elapsed() < REOPEN_AFTER * 3 {
            feed.next().await.unwrap();
        }
    }
}
