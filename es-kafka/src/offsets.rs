//! The next offset of many partitions: what a relay has written, what a reader has read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// For each partition the offset behind the last record that matters; 0 where there was none.
///
/// As JSON: `{"order-events": {"0": 17, "2": 5}}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offsets(BTreeMap<String, BTreeMap<i32, i64>>);

impl Offsets {
    /// The next offset of a partition.
    pub fn next(&self, topic: &str, partition: i32) -> i64 {
        self.0.get(topic).and_then(|partitions| partitions.get(&partition)).copied().unwrap_or(0)
    }

    /// Every partition with its next offset.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, next)| (topic.as_str(), *partition, *next))
        })
    }

    pub(crate) fn set(&mut self, topic: &str, partition: i32, next: i64) {
        match self.0.get_mut(topic) {
            Some(partitions) => _ = partitions.insert(partition, next),
            None => _ = self.0.insert(topic.to_owned(), BTreeMap::from([(partition, next)])),
        }
    }

    /// Moves a partition forward, never back.
    pub(crate) fn advance(&mut self, topic: &str, partition: i32, next: i64) {
        if next > self.next(topic, partition) {
            self.set(topic, partition, next);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn offsets_survive_json_and_never_go_back() {
        let mut offsets = Offsets::default();
        offsets.advance("order-events", 2, 5);
        offsets.advance("order-events", 0, 17);
        offsets.advance("order-events", 2, 4);
        let text = serde_json::to_string(&offsets).unwrap();
        assert_eq!(text, r#"{"order-events":{"0":17,"2":5}}"#);
        assert_eq!(serde_json::from_str::<Offsets>(&text).unwrap(), offsets);
        assert_eq!(offsets.next("order-events", 1), 0);
    }
}
