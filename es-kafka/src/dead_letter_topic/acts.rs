//! The topic beside a dead-letter topic, which notes what operators did.

use chrono::{DateTime, Utc};
use es_core::Act;
use serde::{Deserialize, Serialize};

use super::letter::{DeadRecord, Failed, Identity};

/// The name of the topic with the acts on `dead`.
pub(super) fn acts_topic(dead: &str) -> String {
    format!("{dead}.acts")
}

/// What an operator did with a record, under its identity as the key.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Done {
    /// `replay` or `discard`.
    what: String,
    /// To where it was replayed.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// The place of the record in the dead-letter topic. It concerns all before it in that partition, which are copies of it.
    partition: i32,
    offset: i64,
    /// When the record had failed: a topic that was deleted and created again has others at these offsets.
    failed_at: Option<DateTime<Utc>>,
    actor: String,
    reason: String,
    at: DateTime<Utc>,
}

impl Done {
    pub(super) fn new(record: &DeadRecord, what: &str, to: Option<&str>, act: &Act) -> Self {
        Self {
            what: what.to_owned(),
            to: to.map(str::to_owned),
            partition: record.partition,
            offset: record.offset,
            failed_at: record.failed_at,
            actor: act.actor().to_owned(),
            reason: act.reason().to_owned(),
            at: Utc::now(),
        }
    }

    /// Whether the failure of a record of the same identity was done with.
    pub(super) fn concerns(&self, failed: &Failed) -> bool {
        self.partition == failed.partition && self.offset >= failed.offset && self.failed_at >= failed.at
    }
}

/// The key under which the last act on a record stands.
pub(super) fn key(identity: &Identity) -> String {
    serde_json::to_string(identity).expect("texts and numbers")
}

/// What such a key says.
pub(super) fn identity(key: &[u8]) -> Option<Identity> {
    serde_json::from_slice(key).ok()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use super::*;
    use crate::foreign::record::Record;

    fn record(offset: i64, failed_at: &str) -> DeadRecord {
        let headers = vec![("failed-at", Some(failed_at.as_bytes()))];
        let (topic, partition, unreadable) = ("payments.dlq", 0, None);
        let record = Record { topic, partition, offset, millis: None, key: None, headers, value: None, unreadable };
        DeadRecord::of(&record, false)
    }

    /// Seen to fail where an act holds for its record alone, and where offsets alone are compared.
    #[test]
    fn an_act_concerns_a_record_and_the_copies_before_it() {
        let act = Act::new("ada", "ticket 7").unwrap();
        let done = Done::new(&record(7, "2026-01-02T00:00:00Z"), "discard", None, &act);
        let concerns = |offset, failed_at| done.concerns(&record(offset, failed_at).failed());
        assert!(concerns(7, "2026-01-02T00:00:00Z") && concerns(3, "2026-01-01T00:00:00Z"));
        assert!(!concerns(8, "2026-01-03T00:00:00Z"), "it has failed again");
        // The topic was deleted and created again.
        assert!(!concerns(3, "2026-01-03T00:00:00Z"));
        let identity = record(7, "2026-01-02T00:00:00Z").identity();
        assert_eq!(super::identity(key(&identity).as_bytes()), Some(identity));
        assert_eq!(super::identity(b"other"), None);
    }
}
