//! Tags, and queries for them, as the history has them.

use es_core::{EventQuery, Position, Tag, backend::ConditionPart};
use serde::{Deserialize, Serialize};

/// The name and tags by which queries find an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Its wire name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A query: it matches the events that match one of the items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Query {
    /// The items.
    pub items: Vec<Item>,
}

/// Matches events with all of the tags, if there are any, and one of the names, if there are any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in QueryItem")]
pub struct Item {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// The condition that no event after a position matches a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in Condition")]
pub struct Given {
    pub query: Query,
    pub after: u64,
}

impl Query {
    /// Whether an event with this name and these tags matches. This is independent of the code that stores use, so that the
    /// checker finds its errors.
    pub fn matches(&self, about: &About) -> bool {
        self.items.iter().any(|Item { tags, names }| {
            tags.iter().all(|tag| about.tags.contains(tag)) && (names.is_empty() || names.contains(&about.name))
        })
    }
}

impl From<&Query> for EventQuery {
    fn from(query: &Query) -> Self {
        let items = query.items.iter().map(|Item { tags, names }| {
            let all = if tags.is_empty() { Self::all() } else { Self::tagged(tags.iter().map(|text| tag(text))) };
            all.named(names.iter().map(String::as_str))
        });
        // A query without items becomes one with an empty list of tags, which every store refuses.
        items.reduce(Self::or).unwrap_or_else(|| Self::tagged([]))
    }
}

impl From<&Given> for ConditionPart {
    fn from(given: &Given) -> Self {
        Self { query: (&given.query).into(), after: Position::new(given.after) }
    }
}

pub(super) fn tag(text: &str) -> Tag {
    Tag::new(text).expect("a valid tag")
}
