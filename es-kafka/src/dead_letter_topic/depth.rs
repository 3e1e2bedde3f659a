//! How many records of one handler wait in a dead-letter topic, and since when.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use es_core::backend::SourceError;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::{
    DeadLetterTopic, DeadRecord,
    acts::{self, Done, acts_topic},
    letter::{Failed, Identity},
    scan,
};
use crate::{
    client::{Quiet, unavailable},
    foreign::{record::Record, topics::partitions_of},
    offsets::Offsets,
    source::begin::PATIENCE,
};

/// The records that wait, kept up to date by what was added to the topic and to its acts since the last look.
#[derive(Debug, Default)]
pub(crate) struct Depth {
    /// Up to where both topics were read.
    read: Offsets,
    waiting: BTreeMap<Identity, Failed>,
}

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waits {
    pub(crate) records: usize,
    /// When the first of them failed.
    pub(crate) since: Option<DateTime<Utc>>,
}

impl Depth {
    /// Looks at what was added, and blocks meanwhile. After an error it has forgotten nothing.
    pub(crate) fn look(&mut self, of: &DeadLetterTopic, handler: &str) -> Result<Waits, SourceError> {
        let consumer: BaseConsumer<Quiet> = of.reader().create_with_context(Quiet).map_err(unavailable)?;
        let (dead, mut read, mut done) = (of.name(), self.read.clone(), Vec::new());
        // The acts first: what they concern was there before them, and so is in what is read now or was read before.
        added(&consumer, &mut read, &acts_topic(&dead), |record| done.extend(act(record)))?;
        let mut letters = Vec::new();
        let lows = added(&consumer, &mut read, &dead, |record| {
            let letter = DeadRecord::of(record, false);
            if letter.handler.as_deref() == Some(handler) {
                letters.push((letter.identity(), letter.failed()));
            }
        })?;
        match lows {
            Some(lows) => self.waiting.retain(|_, failed| {
                lows.iter().any(|(partition, low)| *partition == failed.partition && failed.offset >= *low)
            }),
            // It was deleted, or deleted and created again.
            None => self.waiting.clear(),
        }
        self.waiting.extend(letters);
        for (identity, done) in done {
            if self.waiting.get(&identity).is_some_and(|failed| done.concerns(failed)) {
                self.waiting.remove(&identity);
            }
        }
        self.read = read;
        let since = self.waiting.values().filter_map(|failed| failed.at).min();
        Ok(Waits { records: self.waiting.len(), since })
    }
}

fn act(record: &Record<'_>) -> Option<(Identity, Done)> {
    let done = serde_json::from_slice(record.value?).ok()?;
    Some((acts::identity(record.key?)?, done))
}

/// Passes what was added to `topic` since it was `read` to `see`. Returns the first offset of each partition; `None` where it is another
/// topic than the one that was read, or there is none.
fn added(
    consumer: &BaseConsumer<Quiet>,
    read: &mut Offsets,
    topic: &str,
    mut see: impl FnMut(&Record<'_>),
) -> Result<Option<Vec<(i32, i64)>>, SourceError> {
    let Some(partitions) = partitions_of(consumer.client(), topic)? else {
        read.forget(topic);
        return Ok(None);
    };
    let mut bounds = Vec::new();
    for partition in 0..partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).map_err(unavailable)?;
        bounds.push((partition, low, high));
    }
    let is_another = bounds.iter().any(|(partition, _, high)| *high < read.next(topic, *partition));
    if is_another {
        read.forget(topic);
    }
    for (partition, low, high) in &bounds {
        let first = read.next(topic, *partition).max(*low);
        if first < *high {
            scan::one(consumer, (topic, *partition), first, *high, &mut see)?;
        }
        read.advance(topic, *partition, *high);
    }
    Ok((!is_another).then(|| bounds.iter().map(|(partition, low, _)| (*partition, *low)).collect()))
}
