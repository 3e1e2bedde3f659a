//! Something for each of many partitions: the next offset, the last position.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A value for each partition of some topics.
///
/// As JSON: `{"order-events": {"0": 17, "2": 5}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PerPartition<T>(BTreeMap<String, BTreeMap<i32, T>>);

/// For each partition the offset after the last record that matters; 0 if there was none.
pub type Offsets = PerPartition<i64>;

impl<T> Default for PerPartition<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Copy> PerPartition<T> {
    /// The value of a partition.
    pub fn get(&self, topic: &str, partition: i32) -> Option<T> {
        self.0.get(topic)?.get(&partition).copied()
    }

    /// Every partition with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i32, T)> {
        self.0.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |(partition, value)| (topic.as_str(), *partition, *value))
        })
    }

    /// Sets the value of a partition, and returns the one that it had.
    pub(crate) fn set(&mut self, topic: &str, partition: i32, value: T) -> Option<T> {
        if let Some(partitions) = self.0.get_mut(topic) {
            return partitions.insert(partition, value);
        }
        self.0.insert(topic.to_owned(), BTreeMap::from([(partition, value)]));
        None
    }
}

impl Offsets {
    /// Forgets a topic.
    pub(crate) fn forget(&mut self, topic: &str) {
        self.0.remove(topic);
    }

    /// That of one partition.
    pub(crate) fn one(topic: &str, partition: i32, next: i64) -> Self {
        let mut offsets = Self::default();
        offsets.set(topic, partition, next);
        offsets
    }

    /// The next offset of a partition.
    pub fn next(&self, topic: &str, partition: i32) -> i64 {
        self.get(topic, partition).unwrap_or(0)
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
