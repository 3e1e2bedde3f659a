//! What a worker passes its events to: a projector, a builder, a policy.

use std::{
    collections::{BTreeMap, HashSet},
    mem,
    sync::LazyLock,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::{
    event::{EventSet, RecordedEvent},
    read::{
        engine_error::EngineError,
        failure::FailureSettings,
        read_model::{Changes, Checkpoint, FieldChange, Inbox, Lease, NewLetter, Reader, Shard, Slice},
        source::{BatchEvents, DecodedEvents},
    },
    stream::Position,
};

/// Handles the events of a batch.
#[async_trait]
pub(crate) trait Handler: Send + Sync {
    /// Handles the first of the events, as many as fit into one commit; it is called again for the rest. When `stop` is
    /// cancelled it handles no further event and returns what it has.
    async fn handle(&self, reader: &Reader, events: Events<'_>, stop: &CancellationToken) -> Handled;

    /// What it does about failures; `None`: it ends at any of them.
    fn failures(&self) -> Option<&FailureSettings> {
        None
    }

    /// Reports a failure that does not end it.
    fn failed(&self, _failure: &EngineError) {}

    /// This worker has the shard now.
    fn takes(&self, _shard: &Shard) {}

    /// Another worker has the shard now: what was kept of it is of no use.
    fn forget(&self, _shard: &Shard) {}
}

/// What a handler gets at once.
#[derive(Clone, Copy)]
pub(crate) struct Events<'a> {
    pub(crate) list: &'a [RecordedEvent],
    /// The batch that begins with them, which other readers may have too.
    pub(crate) batch: Option<&'a BatchEvents>,
    /// Their shard.
    pub(crate) shard: &'a Shard,
    /// The last position of the shard that is handled: that before the first of the events.
    pub(crate) after: Position,
    /// Whether all that is handled is to be committed now: the source has no more events, or the worker ends.
    pub(crate) keeps_nothing: bool,
    /// Whether the commit of the events before them is on its way: what a handler loads may be older. It was told by
    /// [`Handled::goes_on`] that the handler needs nothing of that. One that does handles none of the events, and is called again after
    /// the commit.
    pub(crate) is_ahead: bool,
    pub(crate) course: Course<'a>,
    /// The lease on the shard, and what the worker commits beside the handler's own changes when so many of the events are handled:
    /// for a handler that commits by itself.
    pub(crate) lease: &'a Lease,
    pub(crate) changes: &'a (dyn Fn(usize) -> Changes + Send + Sync),
}

/// What a handler has to heed beside the events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Course<'a> {
    /// The keys of the shard: others are left to other shards.
    pub(crate) slice: Slice,
    /// Keys whose events go to the dead letters.
    pub(crate) parked: &'a HashSet<String>,
    /// The event of which the keys that fail are parked.
    pub(crate) gives_up: Option<Position>,
    /// Those of its keys that fail because a commit was refused, and why.
    pub(crate) refused: &'a BTreeMap<String, String>,
    /// The event that has failed last, and how often.
    pub(crate) tried: Option<(Position, u32)>,
    /// How many letters there may be.
    pub(crate) room: usize,
    /// The only key for which events are handled.
    pub(crate) only: Option<&'a str>,
}

impl<'a> Course<'a> {
    /// How often the event at `position` has failed.
    pub(crate) fn attempts(&self, position: Position) -> u32 {
        self.tried.filter(|(tried, _)| *tried == position).map_or(0, |(_, attempts)| attempts)
    }

    /// Only `key` is handled, for which nothing may fail.
    pub(crate) fn only(key: &'a str) -> Self {
        Self { only: Some(key), ..Self::default() }
    }
}

impl Default for Course<'_> {
    /// Nothing is parked, and nothing is given up.
    fn default() -> Self {
        static NONE: LazyLock<HashSet<String>> = LazyLock::new(HashSet::new);
        static NO_CAUSES: BTreeMap<String, String> = BTreeMap::new();
        Self { slice: Slice::ALL, parked: &NONE, gives_up: None, refused: &NO_CAUSES, tried: None, room: 0, only: None }
    }
}

impl Events<'_> {
    /// The decoded events, if they are decoded once for several readers.
    pub(crate) async fn decoded<S: EventSet>(&self) -> Option<DecodedEvents<S>> {
        self.batch?.decoded().await
    }
}

#[cfg(test)]
impl<'a> Events<'a> {
    /// Events of the log.
    pub(crate) fn of_log(list: &'a [RecordedEvent]) -> Self {
        static LOG: LazyLock<Shard> = LazyLock::new(crate::read::source::LogSource::shard);
        static LEASE: LazyLock<Lease> = LazyLock::new(|| {
            let reader = Reader { id: 1, name: "test".to_owned() };
            let (owner, ttl) = (uuid::Uuid::nil(), std::time::Duration::ZERO);
            Lease::new(reader, LOG.clone(), owner, 1, ttl, crate::read::read_model::Checkpoint::default())
        });
        let after = list.first().map_or(Position::ZERO, |first| Position::new(first.position.get() - 1));
        let (course, lease, changes) = (Course::default(), &*LEASE, &|_| Changes::default());
        let (batch, keeps_nothing, is_ahead) = (None, false, false);
        Self { list, batch, shard: &LOG, after, keeps_nothing, is_ahead, course, lease, changes }
    }
}

/// What a handler has done.
#[derive(Debug, Default)]
pub(crate) struct Handled {
    /// How many events it has handled. Their changes commit together, with a checkpoint at the last of them.
    pub(crate) done: usize,
    pub(crate) upserts: Vec<(String, Bytes)>,
    pub(crate) deletes: Vec<String>,
    /// The fields of these documents.
    pub(crate) fields: Vec<FieldChange>,
    /// Of the events that it has handled.
    pub(crate) letters: Vec<NewLetter>,
    /// Messages among them that are to be known from now on.
    pub(crate) inbox: Option<Inbox>,
    /// The handler has committed them by itself.
    pub(crate) is_committed: bool,
    /// The handler keeps their changes in memory, and returns them with those of later events.
    pub(crate) kept: bool,
    /// The handler can handle the next events while their changes are being committed: it keeps all documents that these change.
    pub(crate) goes_on: bool,
    /// Why the next event stops the engine. What was kept before is lost.
    pub(crate) failure: Option<EngineError>,
}

impl Handled {
    /// What is to be committed, with `checkpoint`.
    pub(crate) fn take_changes(&mut self, checkpoint: Checkpoint) -> Changes {
        let Self { upserts, deletes, fields, letters, inbox, .. } = self;
        let (upserts, deletes) = (mem::take(upserts), mem::take(deletes));
        let (fields, letters, inbox) = (mem::take(fields), mem::take(letters), inbox.take());
        Changes { upserts, deletes, fields, checkpoint, letters, inbox, ..Changes::default() }
    }

    /// Whether the worker can handle the next events before it knows how the commit ends. Of a unique value that is taken, and of
    /// letters, the next events must know.
    pub(super) fn may_be_sent(&self) -> bool {
        let is_plain = self.failure.is_none() && self.letters.is_empty() && !self.kept && !self.is_committed;
        self.goes_on && is_plain && !self.fields.iter().any(|field| field.is_unique)
    }
}
