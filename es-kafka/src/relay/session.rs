//! From one producer's birth to its end.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use es_core::{
    Position, RecordedEvent,
    backend::{check_contiguous, is_last_page},
    telemetry::spans,
};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Relay,
    claims::{self, Claims},
    create::TopicMaker,
    failure::{Failure, PublishError, RelayError, Suspect},
    look::Look,
    pace::Pace,
    publisher::Publisher,
    size,
};
use crate::{
    aside,
    client::{self, Quiet, told},
    progress::Progress,
    topics::Topics,
};

/// How long brokers that accept this client take at most, as a rule, to answer it.
const SOON: Duration = Duration::from_secs(1);
/// How long brokers may refuse this client: one that is starting may not know the accounts yet.
const ASKED: Duration = Duration::from_secs(10);

impl Relay {
    /// Publishes until the shutdown or the first failure.
    pub(super) async fn session(&self, pace: &mut Pace, shutdown: &CancellationToken) -> Result<(), Failure> {
        // A relay that cannot read its log must not fence one that can.
        let Some(head) = shutdown.run_until_cancelled(self.store.head()).await else { return Ok(()) };
        head.map_err(Failure::read)?;
        let Some(opened) = shutdown.run_until_cancelled(self.open(shutdown)).await else { return Ok(()) };
        let Opened { mut maker, publisher, mut progress, mut last } = opened?;
        let mut look = Look::new(&self.config);
        // Not the one of before: another relay may have told of a later end until it was fenced.
        let Some(head) = shutdown.run_until_cancelled(self.store.head()).await else { return Ok(()) };
        let mut head = head.map_err(Failure::read)?;
        tracing::info!(relay = self.config.name, position = %last, %head, "relay publishes");
        // A read model that is built meanwhile must not take what is in Kafka for the whole log.
        let names = self.config.names();
        tell(&publisher, &mut progress, head, &names).await?;
        let (mut pending, mut is_behind) = (VecDeque::new(), true);
        loop {
            let looked = look.look(&self.config, &mut maker, progress.as_ref());
            let Some(looked) = shutdown.run_until_cancelled(looked).await else { break };
            looked?;
            if pending.is_empty() {
                let Some(read) = shutdown.run_until_cancelled(self.read(last, pace)).await else { break };
                (pending, head, is_behind) = read?;
            }
            if pending.is_empty() {
                // The log may have lost its end: what was told of does not come.
                tell(&publisher, &mut progress, head, &names).await?;
                let news = look.until_due(self.store.wait_past(last));
                let Some(waited) = shutdown.run_until_cancelled(news).await else { break };
                waited.transpose().map_err(Failure::read)?;
                continue;
            }
            let mut batch = self.cut(&mut pending, pace);
            let Some(made) = shutdown.run_until_cancelled(self.ensure_topics(&mut maker, &batch)).await else { break };
            made?;
            size::split(&mut batch, &mut pending, &maker, &self.config).map_err(Failure::Final)?;
            let put = claims::put(&mut batch, &mut pending, &self.config);
            let Some(put) = shutdown.run_until_cancelled(put).await else { break };
            let claims = put?;
            let Some(end) = batch.last().map(|event| event.position) else { continue };
            let count = batch.len();
            // Only of one event is it known that it is the one that is too large.
            let suspect = (count == 1).then(|| Suspect::of(&batch[0], &maker, &self.config));
            let (began, span) = (Instant::now(), spans::publish(&self.config.name, &batch));
            // While Kafka works on this transaction, the store reads the next one. At the end of the log it does not: what is
            // written meanwhile would miss the next transaction.
            let reads = is_behind && pending.is_empty();
            let read_ahead = async { if reads { self.read(end, pace).await.map(Some) } else { Ok(None) } };
            let publish = async {
                let outcome = publisher.publish(batch, claims, head).instrument(span).await;
                match &outcome {
                    Ok(_) => self.meter.committed(count, began.elapsed()),
                    Err(_) => self.meter.failed(began.elapsed()),
                }
                outcome
            };
            let (outcome, ahead) = tokio::join!(publish, read_ahead);
            match outcome {
                Ok(published) => {
                    last = published.position;
                    progress = Some(published);
                }
                Err(PublishError::TooLarge { by_client }) => {
                    if let Some(suspect) = suspect {
                        let error = if by_client { suspect.too_large_for_client() } else { suspect.too_large() };
                        return Err(Failure::Final(error));
                    }
                    // The broker refused a batch as a whole: find the event that is too large by halves.
                    pace.slow_down(count / 2, end);
                    return Err(Failure::Again);
                }
                Err(error) => return Err(Failure::publish(error)),
            }
            pace.passed(last);
            self.published.send_replace(last);
            match ahead {
                Ok(Some(read)) => (pending, head, is_behind) = read,
                Ok(None) => {}
                Err(error) => return Err(error),
            }
            if shutdown.is_cancelled() {
                break;
            }
        }
        publisher.close().await;
        Ok(())
    }

    async fn open(&self, shutdown: &CancellationToken) -> Result<Opened, Failure> {
        let mut maker = TopicMaker::new(&self.config).map_err(Failure::kafka)?;
        self.make_progress_topic(&maker).await.map_err(Failure::kafka)?;
        let opened = Publisher::open(&self.config, self.hook.clone(), shutdown).await;
        let (publisher, progress) = opened.map_err(Failure::publish)?;
        let topics = progress.iter().flat_map(|progress| progress.partitions.keys().cloned());
        maker.check(topics.chain([Topics::new(&self.config.topic_prefix).progress()]).collect()).await?;
        let last = self.resume(progress.as_ref()).await?;
        self.published.send_replace(last);
        Ok(Opened { maker, publisher, progress, last })
    }

    /// Where the brokers refuse this client, creating the topic takes a minute to fail, and says nothing of it.
    async fn make_progress_topic(&self, maker: &TopicMaker) -> KafkaResult<()> {
        let denied = async {
            tokio::time::sleep(SOON).await;
            self.denied().await
        };
        tokio::select! {
            made = maker.progress() => match made {
                Ok(()) => Ok(()),
                Err(error) => Err(self.denied().await.unwrap_or(error)),
            },
            Some(refused) = denied => Err(refused),
        }
    }

    /// What the brokers refuse this client. The client that creates topics does not say, so another one asks.
    async fn denied(&self) -> Option<KafkaError> {
        let config = self.config.clone();
        let asked = aside::done(move || {
            let client = client::consumer(&config.brokers, &config.transactional_id(), &config.settings);
            let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet).ok()?;
            consumer.fetch_metadata(None, ASKED).err()?;
            told(&consumer)
        });
        asked.await.ok().flatten()
    }

    async fn ensure_topics(&self, maker: &mut TopicMaker, batch: &[RecordedEvent]) -> Result<(), Failure> {
        for event in batch {
            if maker.topics.publishes(event.stream.category()) {
                maker.events(event.stream.category()).await?;
            }
        }
        Ok(())
    }

    /// The position after which to continue, once the log is known to be the one that was published.
    async fn resume(&self, progress: Option<&Progress>) -> Result<Position, Failure> {
        let published = progress.filter(|progress| progress.position > Position::ZERO);
        let Some(progress) = published else { return Ok(Position::ZERO) };
        let (position, published) = (progress.position, progress.witness());
        let found = progress.found_in(&self.store).await.map_err(Failure::read)?;
        if found == Some(published) {
            Ok(position)
        } else {
            let progress = Topics::new(&self.config.topic_prefix).progress();
            Err(Failure::Final(RelayError::OtherHistory { position, published, found, progress }))
        }
    }

    /// The next events, where the log ends, and whether that is behind them.
    async fn read(&self, after: Position, pace: &Pace) -> Result<(VecDeque<RecordedEvent>, Position, bool), Failure> {
        let events = self.store.read_log(after, pace.limit).await.map_err(Failure::read)?;
        let last = check_contiguous(after, &events).map_err(Failure::read)?;
        // Only a relay that lags has to ask.
        let is_behind = !is_last_page(&events, pace.limit);
        let head = if is_behind { self.store.head().await.map_err(Failure::read)? } else { last };
        Ok((events.into(), head, is_behind))
    }

    /// The events of one transaction from the front of `pending`.
    fn cut(&self, pending: &mut VecDeque<RecordedEvent>, pace: &mut Pace) -> Vec<RecordedEvent> {
        let total: usize = pending.iter().map(|event| event.data.payload.len()).sum();
        pace.adapt(pending.len(), total, self.config.batch_bytes);
        let mut bytes = 0;
        let fitting = pending.iter().take(pace.limit).take_while(|event| {
            bytes += event.data.payload.len();
            bytes <= self.config.batch_bytes
        });
        let count = fitting.count().max(1).min(pending.len());
        pending.drain(..count).collect()
    }
}

/// What a session begins with.
struct Opened {
    maker: TopicMaker,
    publisher: Publisher,
    /// How far the relay had come.
    progress: Option<Progress>,
    last: Position,
}

/// Commits that the log ends at `head`, and where events go, unless that is what was told last.
async fn tell(
    publisher: &Publisher,
    progress: &mut Option<Progress>,
    head: Position,
    names: &Topics,
) -> Result<(), Failure> {
    let told = progress.as_ref().map(|progress| (progress.head, &progress.targets));
    if told != Some((head, names.targets())) {
        *progress = Some(publisher.publish(Vec::new(), Claims::new(), head).await.map_err(Failure::publish)?);
    }
    Ok(())
}
