//! The answers to the commands of this process.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use es_core::{
    Backoff,
    backend::{CommandAnswer, SourceError},
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::BorrowedMessage,
};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    answer::{self, CAUSE},
    create::Place,
};
use crate::{
    aside,
    client::{Quiet, check_reading, told, unavailable},
    foreign::{record::Record, topics::partitions_of},
    record::place,
    source::begin::watermarks,
};

const POLL: Duration = Duration::from_millis(100);
/// How often is looked whether the topic has got more partitions.
const LOOK: Duration = Duration::from_secs(2);
/// The pauses before a client is replaced that has failed.
const FAILED: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// Hands the answers in a topic to those who wait for them, until it is dropped.
pub(super) struct Replies(Arc<Waiting>);

/// Those who wait, by the ids of the messages that they have sent.
#[derive(Default)]
struct Waiting(Mutex<HashMap<Uuid, oneshot::Sender<CommandAnswer>>>);

impl Waiting {
    fn all(&self) -> MutexGuard<'_, HashMap<Uuid, oneshot::Sender<CommandAnswer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands `record` on, if it is the answer to a command of this process that is waited for.
    fn take(&self, record: &BorrowedMessage<'_>) {
        if self.all().is_empty() {
            return;
        }
        let read = Record::of(record);
        let Some(cause) = read.optional(CAUSE).and_then(|cause| cause.parse::<Uuid>().ok()) else { return };
        if !self.all().contains_key(&cause) {
            return;
        }
        let name = read.optional("ce_type").unwrap_or_default();
        match answer::read(name, read.value.unwrap_or_default()) {
            Ok(answer) => {
                if let Some(waiter) = self.all().remove(&cause) {
                    // It may have given up a moment ago.
                    drop(waiter.send(answer));
                }
            }
            Err(reason) => tracing::warn!(place = place(record), reason, "an answer to a command cannot be read"),
        }
    }
}

/// One who waits for the answer to a message. Once it is dropped, nothing is kept of it.
pub(super) struct Waiter {
    id: Uuid,
    waiting: Arc<Waiting>,
    answer: oneshot::Receiver<CommandAnswer>,
}

impl Waiter {
    /// The answer; `None`: the reader has ended.
    pub(super) async fn answer(mut self) -> Option<CommandAnswer> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiting.all().remove(&self.id);
    }
}

impl Replies {
    /// Reads `topic` from its end on. What is answered after this has returned is seen.
    pub(super) async fn open(at: &Place, topic: &str) -> Result<Self, SourceError> {
        let mut client = at.observer(topic);
        // What was deleted meanwhile was for callers that have given up.
        client.set("auto.offset.reset", "earliest");
        let (asking, name) = (client.clone(), topic.to_owned());
        let asked = aside::done(move || {
            let consumer: BaseConsumer<Quiet> = asking.create_with_context(Quiet).map_err(unavailable)?;
            ends(&consumer, &name).map_err(|error| told(&consumer).map_or(error, unavailable))
        });
        let next = asked.await.map_err(SourceError::Unavailable)??;
        let waiting = Arc::new(Waiting::default());
        let (topic, weak) = (topic.to_owned(), Arc::downgrade(&waiting));
        let thread = std::thread::Builder::new().name("kafka-replies".to_owned());
        thread
            .spawn(move || run(&client, &topic, next, &weak))
            .map_err(|error| SourceError::Unavailable(error.into()))?;
        Ok(Self(waiting))
    }

    /// Waits for the answer to the message `id` from now on.
    pub(super) fn wait(&self, id: Uuid) -> Waiter {
        let (sender, answer) = oneshot::channel();
        self.0.all().insert(id, sender);
        Waiter { id, waiting: self.0.clone(), answer }
    }
}

/// The offsets after the last records of the partitions.
fn ends(consumer: &BaseConsumer<Quiet>, topic: &str) -> Result<HashMap<i32, i64>, SourceError> {
    // Another broker may not know yet that it was created.
    let unknown = || SourceError::Unavailable(format!("the topic {topic:?} is not there yet").into());
    let partitions =
        partitions_of(consumer.client(), topic)?.filter(|partitions| *partitions > 0).ok_or_else(unknown)?;
    (0..partitions).map(|partition| Ok((partition, watermarks(consumer, topic, partition, 0)?.1))).collect()
}

/// Reads from the offsets `next` on for as long as one may wait, with one client after the other.
fn run(client: &ClientConfig, topic: &str, mut next: HashMap<i32, i64>, waiting: &Weak<Waiting>) {
    let mut failures = 0;
    while waiting.strong_count() > 0 {
        let began = Instant::now();
        let Err(error) = read(client, topic, &mut next, waiting) else { continue };
        failures = if began.elapsed() > LOOK { 1 } else { failures + 1 };
        tracing::warn!(
            topic,
            error = &error as &dyn std::error::Error,
            "the answers to commands cannot be read for now"
        );
        std::thread::sleep(FAILED.pause(failures));
    }
}

/// Reads until no one can wait any more, or the topic has more partitions.
fn read(
    client: &ClientConfig,
    topic: &str,
    next: &mut HashMap<i32, i64>,
    waiting: &Weak<Waiting>,
) -> Result<(), SourceError> {
    let consumer: BaseConsumer<Quiet> = client.create_with_context(Quiet).map_err(unavailable)?;
    let mut list = TopicPartitionList::new();
    for (partition, offset) in &*next {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).map_err(unavailable)?;
    }
    consumer.assign(&list).map_err(unavailable)?;
    let mut looked = Instant::now();
    while waiting.strong_count() > 0 {
        match consumer.poll(POLL) {
            Some(Ok(record)) => {
                next.insert(record.partition(), record.offset() + 1);
                if let Some(waiting) = waiting.upgrade() {
                    waiting.take(&record);
                }
            }
            Some(Err(error)) => check_reading(error, "while reading answers").map_err(unavailable)?,
            None => {}
        }
        if looked.elapsed() >= LOOK {
            looked = Instant::now();
            // Without brokers, those that are known are enough.
            let partitions = partitions_of(consumer.client(), topic).ok().flatten().unwrap_or_default();
            let new: Vec<_> = (0..partitions).filter(|partition| !next.contains_key(partition)).collect();
            if !new.is_empty() {
                next.extend(new.into_iter().map(|partition| (partition, 0)));
                return Ok(());
            }
        }
    }
    Ok(())
}
