//! Which topic holds what, and what its partitions are called.

use std::collections::BTreeMap;

use es_core::backend::{Categories, Shard, SourceError};

use crate::routes::{EVENTS, PROGRESS};

/// The names of the topics of one log: `<prefix><category>-events` for the events of each
/// category, unless [`Routes`](crate::Routes) say otherwise, and `<prefix>relay-progress`.
///
/// A prefix ends in `.` or `-`, which no category holds: so the topics of the prefix `shop.` are never
/// taken for those of `shop`. Otherwise a dot is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    prefix: String,
    /// The topics of categories that have not the usual one; `None`: these are not published.
    targets: BTreeMap<String, Option<String>>,
}

impl Topics {
    /// The topics whose names start with `prefix`, which may be empty.
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: separated(prefix), targets: BTreeMap::new() }
    }

    /// The same, but for the categories of `targets`: those of a relay's [`Routes`](crate::Routes), or of its progress.
    pub(crate) fn with_targets(self, targets: BTreeMap<String, Option<String>>) -> Self {
        Self { targets, ..self }
    }

    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn targets(&self) -> &BTreeMap<String, Option<String>> {
        &self.targets
    }

    /// The topic with the events of `category`: the usual one too if they are not published.
    pub fn events(&self, category: &str) -> String {
        let target = self.targets.get(category).cloned().flatten();
        target.unwrap_or_else(|| format!("{}{category}{EVENTS}", self.prefix))
    }

    /// The topic with the events of `category`, unless they are not published.
    pub(crate) fn target(&self, category: &str) -> Option<String> {
        self.publishes(category).then(|| self.events(category))
    }

    /// Whether the events of `category` are published.
    pub(crate) fn publishes(&self, category: &str) -> bool {
        !matches!(self.targets.get(category), Some(None))
    }

    /// Refuses a reader that listens to what is not published, and would wait for it for ever.
    pub(crate) fn check(&self, categories: &Categories) -> Result<(), SourceError> {
        let unpublished = |category: &String| !self.publishes(category) && categories.contains(category);
        match self.targets.keys().find(|category| unpublished(category)) {
            Some(category) => Err(SourceError::Unfit {
                place: self.progress(),
                reason: format!(
                    "the relay does not publish the events of the category {category:?}, to which this reader listens: let it follow the \
                     log"
                ),
            }),
            None => Ok(()),
        }
    }

    /// The topic in which relays tell how far they have come.
    pub fn progress(&self) -> String {
        format!("{}{PROGRESS}", self.prefix)
    }

    /// The category whose events are in `topic`, if it is a topic of events of this log.
    pub fn category<'a>(&'a self, topic: &'a str) -> Option<&'a str> {
        let routed = self.targets.iter().find(|(_, target)| target.as_deref() == Some(topic));
        if let Some((category, _)) = routed {
            return Some(category);
        }
        let category = topic.strip_prefix(&self.prefix)?.strip_suffix(EVENTS)?;
        let is_usual = !self.targets.contains_key(category) && es_core::backend::check_category(category).is_ok();
        is_usual.then_some(category)
    }

    /// Whether `topic` holds events of `categories`.
    pub(crate) fn holds(&self, topic: &str, categories: &Categories) -> bool {
        self.category(topic).is_some_and(|category| categories.contains(category))
    }

    /// What a consumer group subscribes to.
    pub(crate) fn subscription(&self, categories: &Categories) -> Vec<String> {
        match categories {
            Categories::Only(names) => names.iter().map(|category| self.events(category)).collect(),
            // It also names the usual topics of categories that go elsewhere: these are not read.
            Categories::All => std::iter::once(format!("^{}[a-z][a-z0-9_]*{EVENTS}$", escaped(&self.prefix)))
                .chain(self.targets.values().flatten().cloned())
                .collect(),
        }
    }
}

/// A prefix of topics or groups that is none of a longer one: it is empty, ends in `.` or `-`, or gets a dot.
pub(crate) fn separated(prefix: impl Into<String>) -> String {
    let mut prefix = prefix.into();
    if !prefix.is_empty() && !prefix.ends_with(['.', '-']) {
        prefix.push('.');
    }
    prefix
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
