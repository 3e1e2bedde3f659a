//! Consistency across streams: events with tags, and appends on the condition that no event that matches a query was added
//! since the query was read (a *dynamic consistency boundary*, <https://dcb.events>).

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{
    limits::{MAX_EVENT_NAME_BYTES, MAX_QUERY_ITEMS, MAX_TAG_BYTES, MAX_TAGS},
    stream::Position,
};

/// What an event is about, for example `course:c1`. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Tag(Arc<str>);

impl Tag {
    /// The tag `text`.
    ///
    /// # Errors
    /// [`InvalidTag`] for an empty text, one of more than [`MAX_TAG_BYTES`], or one with control
    /// characters.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidTag> {
        let text = text.as_ref();
        if text.is_empty() || text.len() > MAX_TAG_BYTES || text.chars().any(char::is_control) {
            return Err(InvalidTag);
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A text that cannot be a [`Tag`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tag has 1 to {MAX_TAG_BYTES} bytes and no control characters")]
pub struct InvalidTag;

/// A rule for tags made a text that cannot be a [`Tag`]. (The error does not hold the text, because that is content of the
/// event.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event {event}: the tag rule {rule:?} does not make a valid tag")]
pub struct TagError {
    /// The wire name of the event.
    pub event: &'static str,
    /// The rule, as it is written in the attribute.
    pub rule: &'static str,
    /// Which limit is broken.
    #[source]
    pub reason: InvalidTag,
}

/// The events that matter to a decision: those that match one of its items.
///
/// If every item names a tag, a query is an index look-up. Its cost grows with the number of events after its position that carry
/// the tag, with any name. So prefer a tag of few events.
///
/// An item without a tag ([`named_only`](Self::named_only), [`all`](Self::all)) has no index: it reads the log after the
/// position. As part of a [`Condition`] it does so under the append lock, while all appends wait: some 0.4 µs for each event on
/// Postgres and 3 µs on the embedded file, so 4 ms and 32 ms for 10,000 events. So keep the position of the condition near the
/// end of the log, as [`Decisions`](crate::Decisions) does. Such conditions in one batch are checked one after the other, and
/// reading such a query from the beginning reads the whole log.
///
/// Stores get it as JSON: the list of its items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct EventQuery {
    items: Vec<QueryItem>,
    /// Whether an item without tags and names is intended. (`tagged` with an empty list is a mistake.)
    #[serde(skip)]
    all: bool,
}

/// Events that carry all of `tags` and, unless `names` is empty, have one of these wire names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueryItem {
    /// The event carries all of them.
    pub tags: Vec<Tag>,
    /// One of them is the event's wire name.
    pub names: Vec<Arc<str>>,
}

impl EventQuery {
    /// The events that carry all of `tags`.
    pub fn tagged(tags: impl IntoIterator<Item = Tag>) -> Self {
        Self::item(tags.into_iter().collect(), false)
    }

    /// The events with one of these wire names, with any tags. There is no index for it: see [`EventQuery`].
    pub fn named_only<N: Into<Arc<str>>>(names: impl IntoIterator<Item = N>) -> Self {
        Self::item(Vec::new(), false).named(names)
    }

    /// All events. There is no index for it: see [`EventQuery`].
    pub fn all() -> Self {
        Self::item(Vec::new(), true)
    }

    fn item(tags: Vec<Tag>, all: bool) -> Self {
        Self { items: vec![QueryItem { tags, names: Vec::new() }], all }
    }

    /// Of the events that it matches so far, only those with one of these wire names.
    pub fn named<N: Into<Arc<str>>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let names: Vec<Arc<str>> = names.into_iter().map(Into::into).collect();
        for item in &mut self.items {
            item.names.clone_from(&names);
        }
        self
    }

    /// The events that match this query or the other one.
    pub fn or(mut self, other: Self) -> Self {
        self.items.extend(other.items);
        self.all |= other.all;
        self
    }

    /// Its items.
    pub fn items(&self) -> &[QueryItem] {
        &self.items
    }

    /// The tag that it asks for, if it asks for nothing else.
    pub fn only_tag(&self) -> Option<&Tag> {
        let [QueryItem { tags, names }] = &self.items[..] else { return None };
        let [tag] = &tags[..] else { return None };
        names.is_empty().then_some(tag)
    }

    /// Whether every item names a tag, so that the query is an index look-up.
    pub fn is_tagged(&self) -> bool {
        self.items.iter().all(|item| !item.tags.is_empty())
    }

    /// Whether an event with this wire name and these tags matches.
    pub fn matches(&self, name: &str, tags: &[Tag]) -> bool {
        self.items.iter().any(|item| {
            item.tags.iter().all(|tag| tags.contains(tag))
                && (item.names.is_empty() || item.names.iter().any(|one| **one == *name))
        })
    }

    /// Checks the limits. Every store calls it before it looks (R15).
    ///
    /// # Errors
    /// [`InvalidQuery`].
    pub fn validate(&self) -> Result<(), InvalidQuery> {
        let within = |item: &QueryItem| {
            (self.all || item.tags.len() + item.names.len() > 0)
                && item.tags.len() <= MAX_TAGS
                && item.names.len() <= MAX_TAGS
                && item.names.iter().all(|name| name.len() <= MAX_EVENT_NAME_BYTES)
        };
        if (1..=MAX_QUERY_ITEMS).contains(&self.items.len()) && self.items.iter().all(within) {
            Ok(())
        } else {
            Err(InvalidQuery)
        }
    }
}

/// A query that is empty or larger than its limits, or a condition whose queries are so together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a query, and all queries of a condition together, have 1 to {MAX_QUERY_ITEMS} items, each of at most {MAX_TAGS} \
     tags and {MAX_TAGS} names and at least one of either (EventQuery::all asks for all events)"
)]
pub struct InvalidQuery;

/// The condition that a decision has seen all events that it depends on: for each query, no event after a position matches.
///
/// ```
/// use es_core::{Condition, EventQuery, Position, Tag};
///
/// // A decision on a room and on a guest, which were read at two positions.
/// let (room, guest) = (Tag::new("room:7")?, Tag::new("guest:ada")?);
/// let condition = Condition::new(EventQuery::tagged([room]), Position::new(41))
///     .and(EventQuery::tagged([guest]), Position::new(44));
/// assert_eq!(condition.parts().len(), 2);
/// # Ok::<(), es_core::InvalidTag>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Never empty.
    parts: Vec<ConditionPart>,
}

/// That no event after position `after` matches `query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConditionPart {
    /// What the decision was made on.
    pub query: EventQuery,
    /// The last of the matching events that it saw, or any position up to which it saw them all.
    pub after: Position,
}

impl Condition {
    /// That no event after position `after` matches `query`.
    pub fn new(query: EventQuery, after: Position) -> Self {
        Self { parts: vec![ConditionPart { query, after }] }
    }

    /// That, and that no event after position `after` matches `query`.
    #[must_use]
    pub fn and(mut self, query: EventQuery, after: Position) -> Self {
        self.parts.push(ConditionPart { query, after });
        self
    }

    /// All of `parts`, if there are some.
    pub fn all_of(parts: Vec<ConditionPart>) -> Option<Self> {
        (!parts.is_empty()).then_some(Self { parts })
    }

    /// What it is made of.
    pub fn parts(&self) -> &[ConditionPart] {
        &self.parts
    }

    /// Checks the limits: those of each query, and that all together have no more items than one may (R15).
    ///
    /// # Errors
    /// [`InvalidQuery`].
    pub fn validate(&self) -> Result<(), InvalidQuery> {
        let items: usize = self.parts.iter().map(|part| part.query.items.len()).sum();
        if items > MAX_QUERY_ITEMS {
            return Err(InvalidQuery);
        }
        self.parts.iter().try_for_each(|part| part.query.validate())
    }
}
