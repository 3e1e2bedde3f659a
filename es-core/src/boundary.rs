//! Consistency that no single stream can carry: events with tags, and appends on the condition that
//! nothing which matches a query has been added since it was read (a *dynamic consistency boundary*,
//! <https://dcb.events>).

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{
    append::{Append, MAX_EVENT_NAME_BYTES},
    event::{EventSet, Recorded},
    schema::DecodeError,
    store::{AppendError, Appended, EventStore, ReadError},
    stream::Position,
};

/// The most tags of one event, and of one item of a query.
pub const MAX_TAGS: usize = 32;

/// The longest tag, in bytes.
pub const MAX_TAG_BYTES: usize = 255;

/// The most items of one query.
pub const MAX_QUERY_ITEMS: usize = 64;

/// How many events are read at once.
const PAGE: usize = 1_000;

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

/// A rule for tags made a text of an event that cannot be a [`Tag`]. (The text itself is the event's content and
/// stays out of errors.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("event {event}: the tag rule {rule:?} does not make a valid tag")]
pub struct TagError {
    /// The wire name of the event.
    pub event: &'static str,
    /// The rule, as it is written above the event's variant.
    pub rule: &'static str,
    /// Which limit is broken.
    #[source]
    pub reason: InvalidTag,
}

/// Which events matter to a decision: those that match one of its items.
///
/// Every item names a tag at least, so that a query is a look-up and never a scan of the log. What it costs
/// grows with the events that carry the tag behind the position from which on it looks, whatever their
/// names: prefer a tag of few events.
///
/// As JSON, which stores take it as, it is the list of its items.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct EventQuery {
    items: Vec<QueryItem>,
}

/// Events that carry all of `tags` and, unless `names` is empty, have one of these wire names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueryItem {
    /// All of them are on the event.
    pub tags: Vec<Tag>,
    /// One of them is the event's wire name.
    pub names: Vec<Arc<str>>,
}

impl EventQuery {
    /// The events that carry all of `tags`.
    pub fn tagged(tags: impl IntoIterator<Item = Tag>) -> Self {
        Self { items: vec![QueryItem { tags: tags.into_iter().collect(), names: Vec::new() }] }
    }

    /// Of what it matches so far, only the events with one of these wire names.
    pub fn named<N: Into<Arc<str>>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        let names: Vec<Arc<str>> = names.into_iter().map(Into::into).collect();
        for item in &mut self.items {
            item.names.clone_from(&names);
        }
        self
    }

    /// What either matches.
    pub fn or(mut self, other: Self) -> Self {
        self.items.extend(other.items);
        self
    }

    /// Its items.
    pub fn items(&self) -> &[QueryItem] {
        &self.items
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
            (1..=MAX_TAGS).contains(&item.tags.len())
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

/// A query that is empty or larger than its limits, or has an item without a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a query has 1 to {MAX_QUERY_ITEMS} items of 1 to {MAX_TAGS} tags and at most {MAX_TAGS} names")]
pub struct InvalidQuery;

/// That no event after position `after` matches `query`: whoever decided has seen all that do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What the decision was made on.
    pub query: EventQuery,
    /// The last of the matching events that it saw, or any position up to which it saw them all.
    pub after: Position,
}

/// Decides on all events that match `query` and appends what was decided, together and on the
/// condition that nothing which matches has been added meanwhile; if something has, decides again, up
/// to `attempts` times.
///
/// The events must carry the tags that other decisions look for. A decision without appends is final.
///
/// ```
/// use es_core::{Append, Event, EventQuery, Expected, MemoryStore, NewEvent, StreamId, Tag, decide};
///
/// # #[derive(Debug, Clone, PartialEq, Event)]
/// # #[event(category = "user")]
/// # enum UserEvent {
/// #     #[event(name = "user.registered")]
/// #     Registered { name: String },
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // A user name is unique, although every user is a stream of its own.
/// let store = MemoryStore::new();
/// let name = Tag::new("name:ada")?;
/// let claim = |id: &'static str| {
///     let tag = name.clone();
///     decide(&store, EventQuery::tagged([name.clone()]), 3, move |claims: &[es_core::Recorded<UserEvent>]| {
///         if !claims.is_empty() {
///             return Err("the name is taken");
///         }
///         let registered = UserEvent::Registered { name: "ada".into() };
///         let event = NewEvent::of(&registered).expect("text").with_tags([tag.clone()]);
///         let stream = StreamId::new("user", id).expect("a valid name");
///         Ok(vec![Append::new(stream, Expected::NoStream, vec![event])])
///     })
/// };
/// assert!(claim("1").await.is_ok());
/// assert!(claim("2").await.is_err());
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`DecideError::Rejected`] is the decision's own refusal.
///
/// # Cancel safety
/// Dropping the future leaves either none or all of the appends in the log (R7).
pub async fn decide<E: EventSet, R>(
    store: &dyn EventStore,
    query: EventQuery,
    attempts: u32,
    decision: impl Fn(&[Recorded<E>]) -> Result<Vec<Append>, R>,
) -> Result<Vec<Appended>, DecideError<R>> {
    let mut seen = Vec::new();
    let mut after = Position::ZERO;
    for _ in 0..attempts.max(1) {
        loop {
            let page = store.read_matching(&query, after, PAGE).await?;
            for event in &page {
                after = event.position;
                seen.extend(event.decode::<E>()?);
            }
            if page.len() < PAGE {
                break;
            }
        }
        let mut appends = decision(&seen).map_err(DecideError::Rejected)?;
        let Some(first) = appends.first_mut() else { return Ok(Vec::new()) };
        // All are made or none is, so one of them carries the condition for all.
        first.condition = Some(Condition { query: query.clone(), after });
        match store.append_together(appends).await {
            Err(AppendError::ConditionFailed { .. }) => {}
            outcome => return Ok(outcome?),
        }
    }
    Err(DecideError::Contended { attempts: attempts.max(1) })
}

/// Why a decision was not made, or not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError<R> {
    /// The decision's own refusal, untouched.
    #[error("the decision is a refusal")]
    Rejected(R),
    /// Others were faster every time.
    #[error("other decisions were faster, {attempts} times")]
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// The events could not be read.
    #[error("the events cannot be read")]
    Read(#[from] ReadError),
    /// An event cannot be read (R14).
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The events could not be appended.
    #[error("the events cannot be appended")]
    Append(#[from] AppendError),
}
