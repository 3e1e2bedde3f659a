//! What a caller asks for.

use es_core::{Append, AppendError, EventQuery, StreamId, Tag, write::rooms::LARGE_BYTES};
use uuid::Uuid;

use crate::write::append::Prepared;

/// One append, or several that are made together.
pub(crate) struct Request {
    pub(crate) appends: Vec<Prepared>,
    /// Whether it must be an entry of its own, since it failed as part of one.
    pub(crate) apart: bool,
}

impl Request {
    pub(crate) fn new(appends: Vec<Prepared>) -> Self {
        Self { appends, apart: false }
    }

    /// The request of one append.
    pub(crate) fn of_one(append: Append) -> Result<Self, AppendError> {
        Ok(Self::new(vec![Prepared::new(append)?]))
    }

    /// The same request, to be an entry of its own.
    pub(crate) fn apart(self) -> Self {
        Self { apart: true, ..self }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.appends.iter().map(|prepared| prepared.bytes).sum()
    }

    /// Whether the others should not wait for it.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes() > LARGE_BYTES
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = &StreamId> + Clone {
        self.appends.iter().map(|prepared| &prepared.append.stream)
    }

    /// The tags that it writes.
    pub(crate) fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.appends.iter().flat_map(|prepared| &prepared.append.events).flat_map(|event| &event.tags)
    }

    /// The queries of its conditions.
    fn queries(&self) -> impl Iterator<Item = &EventQuery> {
        self.appends.iter().flat_map(|prepared| prepared.append.condition_parts()).map(|part| &part.query)
    }

    /// The tags that its conditions are about.
    pub(crate) fn asked(&self) -> impl Iterator<Item = &Tag> {
        self.queries().flat_map(EventQuery::items).flat_map(|item| &item.tags)
    }

    /// Whether its conditions are about events of any tags.
    pub(crate) fn asks_all(&self) -> bool {
        self.queries().any(|query| !query.is_tagged())
    }

    /// What it is remembered by.
    pub(crate) fn remembered(&self) -> impl Iterator<Item = Uuid> {
        self.appends.iter().filter_map(|prepared| prepared.remembered).map(|remembered| remembered.id)
    }
}
