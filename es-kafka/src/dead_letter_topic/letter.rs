//! A record of a dead-letter topic.

use chrono::{DateTime, Utc};

use crate::foreign::{
    forwarded::{Failure, Origin, Story},
    record::Record,
};

/// A record that a consumer could not handle, with its story.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadRecord {
    /// Its partition in the dead-letter topic.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
    /// The name of the consumer.
    pub handler: Option<String>,
    /// The topic that held it first.
    pub original_topic: String,
    /// Its partition there.
    pub original_partition: i32,
    /// Its offset there.
    pub original_offset: i64,
    /// When it was written there.
    pub original_at: Option<DateTime<Utc>>,
    /// In one word, how it failed.
    pub class: String,
    /// Why it failed.
    pub message: String,
    /// When it failed last.
    pub failed_at: Option<DateTime<Utc>>,
    /// How often it was tried.
    pub attempts: u32,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its own headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Its value, where all of it is shown.
    pub value: Option<Vec<u8>>,
}

/// By what a record is one, however often it was forwarded.
pub(super) type Identity = (Option<String>, String, i32, i64);

/// A failure of a record, at its place in the dead-letter topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) at: Option<DateTime<Utc>>,
}

impl DeadRecord {
    pub(super) fn of(record: &Record<'_>, with_value: bool) -> Self {
        let (story, headers) = Story::of(record).unwrap_or_else(|reason| {
            // Another system has written it.
            let failure = Failure { class: "damaged".to_owned(), message: reason, ..Failure::default() };
            (Story { failure, ..Story::first(record) }, record.headers.clone())
        });
        let Story { handler, origin: Origin { topic, partition, offset, millis }, failure, .. } = story;
        let owned = |(name, value): (&str, Option<&[u8]>)| (name.to_owned(), value.map(<[u8]>::to_vec));
        Self {
            partition: record.partition,
            offset: record.offset,
            handler,
            original_topic: topic,
            original_partition: partition,
            original_offset: offset,
            original_at: millis.and_then(DateTime::from_timestamp_millis),
            class: failure.class,
            message: failure.message,
            failed_at: failure.failed_at,
            attempts: failure.attempts,
            key: record.key.map(<[u8]>::to_vec),
            headers: headers.into_iter().map(owned).collect(),
            value: record.value.filter(|_| with_value).map(<[u8]>::to_vec),
        }
    }

    pub(super) fn failed(&self) -> Failed {
        Failed { partition: self.partition, offset: self.offset, at: self.failed_at }
    }

    pub(super) fn identity(&self) -> Identity {
        let Self { handler, original_topic, original_partition, original_offset, .. } = self;
        (handler.clone(), original_topic.clone(), *original_partition, *original_offset)
    }
}

/// Which records of a dead-letter topic are meant: those for which all that is given holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadRecordFilter {
    /// Of this consumer.
    pub handler: Option<String>,
    /// That failed in this way.
    pub class: Option<String>,
    /// That were in this partition of the original topic.
    pub original_partition: Option<i32>,
    /// That had this offset there.
    pub original_offset: Option<i64>,
    /// That failed at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// At this offset of the dead-letter topic.
    pub offset: Option<i64>,
    /// In this partition of the dead-letter topic.
    pub partition: Option<i32>,
}

impl DeadRecordFilter {
    fn matches_text(wanted: Option<&String>, found: Option<&str>) -> bool {
        wanted.is_none_or(|wanted| found == Some(wanted))
    }

    /// Whether `record` is meant.
    pub fn matches(&self, record: &DeadRecord) -> bool {
        let Self { handler, class, original_partition, original_offset, since, offset, partition } = self;
        Self::matches_text(handler.as_ref(), record.handler.as_deref())
            && Self::matches_text(class.as_ref(), Some(&record.class))
            && original_partition.is_none_or(|partition| partition == record.original_partition)
            && original_offset.is_none_or(|offset| offset == record.original_offset)
            && since.is_none_or(|since| record.failed_at.is_some_and(|failed_at| failed_at >= since))
            && offset.is_none_or(|offset| offset == record.offset)
            && partition.is_none_or(|partition| partition == record.partition)
    }
}
