//! Where records go that a consumer could not handle, and what their headers say.

#[cfg(test)]
mod tests;

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

use super::record::Record;

/// The name of the `nth` retry topic of `topic`; the first has the number 1.
pub(crate) fn retry_topic(topic: &str, nth: usize) -> String {
    format!("{topic}.retry.{nth}")
}

/// The name of the dead-letter topic of `topic`.
pub(crate) fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.dlq")
}

/// The number of `read`, one of the retry topics of `topic`; 0 is the topic itself.
pub(crate) fn stage(topic: &str, read: &str) -> usize {
    let number = read.strip_prefix(topic).and_then(|rest| rest.strip_prefix(".retry."));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// What the framework adds to a record that it forwards, behind its own headers, and [`HANDLER`](names::HANDLER) first. They are read from
/// there on: a record may have had headers of these names.
pub(crate) mod names {
    pub(crate) const HANDLER: &str = "handler";
    pub(crate) const ORIGINAL_TOPIC: &str = "original-topic";
    pub(crate) const ORIGINAL_PARTITION: &str = "original-partition";
    pub(crate) const ORIGINAL_OFFSET: &str = "original-offset";
    pub(crate) const ORIGINAL_TIMESTAMP: &str = "original-timestamp";
    pub(crate) const ATTEMPTS: &str = "attempts";
    pub(crate) const ERROR_CLASS: &str = "error-class";
    pub(crate) const ERROR_MESSAGE: &str = "error-message";
    pub(crate) const FAILED_AT: &str = "failed-at";
    pub(crate) const RETRY_COUNT: &str = "retry-count";
    pub(crate) const RETRY_AFTER: &str = "retry-after";

    pub(crate) const ALL: [&str; 11] = [
        HANDLER,
        ORIGINAL_TOPIC,
        ORIGINAL_PARTITION,
        ORIGINAL_OFFSET,
        ORIGINAL_TIMESTAMP,
        ATTEMPTS,
        ERROR_CLASS,
        ERROR_MESSAGE,
        FAILED_AT,
        RETRY_COUNT,
        RETRY_AFTER,
    ];
}

/// The most bytes of an error message in a header.
const MOST_MESSAGE_BYTES: usize = 4_096;

/// Where a record was first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Its timestamp there, in milliseconds since 1970.
    pub(crate) millis: Option<i64>,
}

/// Why and how often a record has failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) class: String,
    pub(crate) message: String,
    pub(crate) failed_at: Option<DateTime<Utc>>,
    /// In all topics together.
    pub(crate) attempts: u32,
}

/// The headers of a record.
pub(crate) type Headers<'a> = Vec<(&'a str, Option<&'a [u8]>)>;

/// What a record that was forwarded says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Story {
    /// The consumer that it is for; every one if it names none.
    pub(crate) handler: Option<String>,
    pub(crate) origin: Origin,
    pub(crate) failure: Failure,
    /// How often it was put into a retry topic.
    pub(crate) retries: u32,
    pub(crate) retry_after: Option<DateTime<Utc>>,
}

impl Story {
    /// The story of a `record` that was not forwarded yet.
    pub(crate) fn first(record: &Record<'_>) -> Self {
        let Record { topic, partition, offset, millis, .. } = *record;
        Self {
            handler: None,
            origin: Origin { topic: topic.to_owned(), partition, offset, millis },
            failure: Failure::default(),
            retries: 0,
            retry_after: None,
        }
    }

    /// The story of a `record` that was forwarded, and its own headers.
    ///
    /// # Errors
    /// Which header cannot be read.
    pub(crate) fn of<'a>(record: &Record<'a>) -> Result<(Self, Headers<'a>), String> {
        let mut headers = record.headers.clone();
        // What stands before is the record's own. One that another system has put there may name no handler.
        let begins = headers.iter().rposition(|(key, _)| *key == names::HANDLER).unwrap_or(0);
        let mut taken: [Option<&[u8]>; names::ALL.len()] = [None; names::ALL.len()];
        for (name, value) in names::ALL.iter().zip(&mut taken) {
            let found = headers.iter().rposition(|(key, _)| key == name);
            if let Some(place) = found.filter(|place| *place >= begins) {
                *value = headers.remove(place).1;
            }
        }
        let find = |name: &str| {
            let place = names::ALL.iter().position(|known| *known == name);
            let text = place.and_then(|place| taken[place]).map(std::str::from_utf8).transpose();
            text.map_err(|_| format!("header {name} is not UTF-8"))
        };
        let moment = |name: &str| match find(name)? {
            Some(text) => text.parse().map(Some).map_err(|_| format!("header {name} is no time")),
            None => Ok::<Option<DateTime<Utc>>, String>(None),
        };
        let own = || (record.topic.to_owned(), record.partition, record.offset);
        let (topic, partition, offset) = match find(names::ORIGINAL_TOPIC)? {
            None => own(),
            Some(topic) => {
                let (partition, offset) = (find(names::ORIGINAL_PARTITION)?, find(names::ORIGINAL_OFFSET)?);
                (
                    topic.to_owned(),
                    number(names::ORIGINAL_PARTITION, partition)?,
                    number(names::ORIGINAL_OFFSET, offset)?,
                )
            }
        };
        let count = |name: &str| find(name)?.map_or(Ok(0), |text| number(name, Some(text)));
        let millis = match find(names::ORIGINAL_TIMESTAMP)? {
            Some(text) => Some(number(names::ORIGINAL_TIMESTAMP, Some(text))?),
            None => record.millis,
        };
        let owned = |name: &str| Ok::<_, String>(find(name)?.unwrap_or_default().to_owned());
        let story = Self {
            handler: find(names::HANDLER)?.map(str::to_owned),
            origin: Origin { topic, partition, offset, millis },
            failure: Failure {
                class: owned(names::ERROR_CLASS)?,
                message: owned(names::ERROR_MESSAGE)?,
                failed_at: moment(names::FAILED_AT)?,
                attempts: count(names::ATTEMPTS)?,
            },
            retries: count(names::RETRY_COUNT)?,
            retry_after: moment(names::RETRY_AFTER)?,
        };
        Ok((story, headers))
    }

    /// `record`, whose own headers are these, as it was first.
    pub(crate) fn original<'a>(&'a self, record: Record<'a>, headers: Headers<'a>) -> Record<'a> {
        let Origin { topic, partition, offset, millis } = &self.origin;
        Record { topic, partition: *partition, offset: *offset, millis: *millis, headers, ..record }
    }

    /// The headers to add to those of the record.
    pub(crate) fn headers(&self) -> Vec<(&'static str, String)> {
        let Self { handler, origin, failure, retries, retry_after } = self;
        let mut headers = Vec::with_capacity(names::ALL.len());
        headers.extend(handler.clone().map(|handler| (names::HANDLER, handler)));
        headers.extend([
            (names::ORIGINAL_TOPIC, origin.topic.clone()),
            (names::ORIGINAL_PARTITION, origin.partition.to_string()),
            (names::ORIGINAL_OFFSET, origin.offset.to_string()),
        ]);
        headers.extend(origin.millis.map(|millis| (names::ORIGINAL_TIMESTAMP, millis.to_string())));
        headers.extend([
            (names::ATTEMPTS, failure.attempts.to_string()),
            (names::ERROR_CLASS, failure.class.clone()),
            (names::ERROR_MESSAGE, shortened(&failure.message)),
        ]);
        headers.extend(failure.failed_at.map(|at| (names::FAILED_AT, written(at))));
        headers.push((names::RETRY_COUNT, retries.to_string()));
        headers.extend(retry_after.map(|after| (names::RETRY_AFTER, written(after))));
        headers
    }

    /// How long the record still waits.
    pub(crate) fn waits(&self, now: DateTime<Utc>) -> Duration {
        let wait = self.retry_after.map(|after| after - now);
        wait.and_then(|wait| wait.to_std().ok()).unwrap_or_default()
    }
}

fn number<T: std::str::FromStr>(name: &str, text: Option<&str>) -> Result<T, String> {
    let text = text.ok_or_else(|| format!("header {name} is missing"))?;
    text.parse().map_err(|_| format!("header {name} is no number"))
}

fn written(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// `text`, or its beginning.
fn shortened(text: &str) -> String {
    if text.len() <= MOST_MESSAGE_BYTES {
        return text.to_owned();
    }
    let end = (0..=MOST_MESSAGE_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &text[..end])
}
