//! Where the events of one document are.

use crate::{
    event::{Categories, Event},
    stream::StreamId,
    tag::{EventQuery, Tag},
};

/// Where the events of one document are: in streams, or under tags, or in several such places together.
///
/// ```
/// # use es_core::testing::account::AccountEvent;
/// use es_core::KeyEvents;
///
/// let (account, bank) = ("ada", "north");
/// let _all = KeyEvents::stream::<AccountEvent>(account).or(KeyEvents::tagged(format!("bank:{bank}")));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyEvents(pub(super) Vec<Place>);

/// One of these places. Its events are read in order, by an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Stream(StreamId),
    Matching(EventQuery),
}

impl KeyEvents {
    /// The stream of the aggregate `id` with events of this kind. An id that no stream can have has no events.
    pub fn stream<E: Event>(id: &str) -> Self {
        Self::with_id(&Categories::Only(vec![E::CATEGORY]), id)
    }

    /// The events with this tag, in any stream. A text that no tag can be has no events.
    pub fn tagged(tag: impl AsRef<str>) -> Self {
        Self(Tag::new(tag).ok().map(|tag| Place::Matching(EventQuery::tagged([tag]))).into_iter().collect())
    }

    /// The events that match `query`, each of whose items must have a tag: otherwise there is no index for it, and reads end with
    /// [`LiveError::NotIndexed`](super::LiveError::NotIndexed).
    pub fn matching(query: EventQuery) -> Self {
        Self(vec![Place::Matching(query)])
    }

    /// These and the `other` ones, in the order of the log. An event that is in both counts once. With several places a read first asks
    /// for the end of the log, so that it sees all of them at one moment.
    #[must_use]
    pub fn or(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    pub(super) fn with_id(categories: &Categories, id: &str) -> Self {
        match categories {
            Categories::All => Self::matching(EventQuery::all()),
            Categories::Only(names) => {
                Self(names.iter().filter_map(|name| StreamId::new(name, id).ok()).map(Place::Stream).collect())
            }
        }
    }

    pub(super) fn are_of_one_stream(&self) -> bool {
        matches!(self.0[..], [Place::Stream(_)])
    }

    pub(super) fn are_indexed(&self) -> bool {
        self.0.iter().all(|place| match place {
            Place::Stream(_) => true,
            Place::Matching(query) => query.is_tagged(),
        })
    }
}
