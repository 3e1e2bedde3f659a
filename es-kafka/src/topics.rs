//! Which topic holds what, and what its partitions are called.

use es_core::backend::{Categories, Shard};

/// The names of the topics of one log: `<prefix><category>-events` for the events of each
/// category, and `<prefix>relay-progress`.
///
/// A prefix ends in `.` or `-`, which no category holds: so the topics of the prefix `shop.` are never
/// taken for those of `shop`. Otherwise a dot is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
}

impl Topics {
    /// The topics whose names start with `prefix`, which may be empty.
    pub fn new(prefix: impl Into<String>) -> Self {
        let mut prefix = prefix.into();
        if !prefix.is_empty() && !prefix.ends_with(['.', '-']) {
            prefix.push('.');
        }
        Self { prefix }
    }

    /// The topic with the events of `category`.
    pub fn events(&self, category: &str) -> String {
        format!("{}{category}-events", self.prefix)
    }

    /// The topic in which relays tell how far they have come.
    pub fn progress(&self) -> String {
        format!("{}relay-progress", self.prefix)
    }

    /// The category whose events are in `topic`, if it is a topic of events of this log.
    pub fn category<'a>(&self, topic: &'a str) -> Option<&'a str> {
        let category = topic.strip_prefix(&self.prefix)?.strip_suffix("-events")?;
        es_core::backend::check_category(category).is_ok().then_some(category)
    }

    /// Whether `topic` holds events of `categories`.
    pub(crate) fn holds(&self, topic: &str, categories: &Categories) -> bool {
        self.category(topic).is_some_and(|category| categories.contains(category))
    }

    /// What a consumer group subscribes to.
    pub(crate) fn subscription(&self, categories: &Categories) -> Vec<String> {
        match categories {
            Categories::Only(names) => names.iter().map(|category| self.events(category)).collect(),
            Categories::All => vec![format!("^{}[a-z][a-z0-9_]*-events$", escaped(&self.prefix))],
        }
    }
}

/// Topic names are `[a-zA-Z0-9._-]`; only the dot has a meaning in a pattern.
fn escaped(prefix: &str) -> String {
    prefix.replace('.', "\\.")
}

/// The one shard of a merged source.
pub(crate) fn merged() -> Shard {
    Shard::from("merged")
}

/// The shard that is one partition.
pub(crate) fn shard(topic: &str, partition: i32) -> Shard {
    Shard::partition(topic, partition.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_tells_its_category_and_foreign_topics_tell_none() {
        let topics = Topics::new("shop.");
        assert_eq!(topics.events("order"), "shop.order-events");
        assert_eq!(topics.category("shop.order-events"), Some("order"));
        assert_eq!(topics.category("order-events"), None);
        assert_eq!(topics.category("shop.relay-progress"), None);
        assert_eq!(topics.category("shop.eu-order-events"), None);
        assert_eq!(topics.subscription(&Categories::All), ["^shop\\.[a-z][a-z0-9_]*-events$"]);
    }

    #[test]
    fn a_prefix_that_begins_alike_is_another_one() {
        let shop = Topics::new("shop");
        assert_eq!(shop.events("order"), "shop.order-events");
        assert_eq!(shop.progress(), "shop.relay-progress");
        for other in ["", "shopstaging_", "shop-eu", "shop.eu"] {
            let topic = Topics::new(other).events("order");
            assert_eq!(shop.category(&topic), None, "{topic}");
            assert_eq!(Topics::new(other).category("shop.order-events"), None, "{other}");
        }
    }
}
