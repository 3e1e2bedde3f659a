//! The whole log, and the append of each event.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    attempts::{self, Attempt},
    history::Seen,
    query::{About, Query},
    sent::{Flaw, Key, Sent},
};
use es_core::StreamId;

/// The log at the end. A *rank* is a place in it, from 1. In a correct log it equals the position.
#[derive(Debug)]
pub(super) struct Log<'a> {
    pub(super) events: &'a [Seen],
    ranks: HashMap<Uuid, u64>,
    streams: HashMap<&'a StreamId, Vec<u64>>,
    /// For each rank, whether it is the last of its append.
    last: Vec<bool>,
    /// For each rank, whether it is the last of all appends that were made together.
    closed: Vec<bool>,
    /// For each rank, the name and tags by which queries find it, as they were sent.
    about: Vec<Option<&'a About>>,
}

impl<'a> Log<'a> {
    pub(super) fn new(events: &'a [Seen], writes: &[Write<'a>]) -> Self {
        let mut ranks = HashMap::new();
        let mut streams = HashMap::<_, Vec<u64>>::new();
        for (rank, event) in (1..).zip(events) {
            ranks.entry(event.id).or_insert(rank);
            streams.entry(&event.stream).or_default().push(rank);
        }
        let flags = vec![false; events.len()];
        let about = vec![None; events.len()];
        let mut log = Self { events, ranks, streams, last: flags.clone(), closed: flags, about };
        for write in writes {
            log.note(write);
        }
        log
    }

    fn note(&mut self, write: &Write<'a>) {
        for event in &write.sent.events {
            let Some(rank) = self.rank(event.id).map(index) else { continue };
            self.about[rank] = event.about.as_ref();
            let is_last = |sent: Option<&Sent>| sent.and_then(|sent| sent.events.last()) == Some(event);
            self.last[rank] = is_last(Some(write.sent));
            self.closed[rank] = is_last(write.group.last());
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.events.len() as u64
    }

    /// The first rank of the event.
    pub(super) fn rank(&self, id: Uuid) -> Option<u64> {
        self.ranks.get(&id).copied()
    }

    pub(super) fn at(&self, rank: u64) -> Option<&'a Seen> {
        self.events.get(index(rank))
    }

    /// The events of a stream, as ranks.
    pub(super) fn stream(&self, stream: &StreamId) -> &[u64] {
        self.streams.get(stream).map_or(&[], Vec::as_slice)
    }

    /// The version of a stream when the log had `length` events.
    pub(super) fn version(&self, stream: &StreamId, length: u64) -> u64 {
        self.stream(stream).partition_point(|rank| *rank <= length) as u64
    }

    /// Whether a read of the stream up to this rank ends between two appends, not within one.
    pub(super) fn is_last(&self, rank: u64) -> bool {
        self.last.get(index(rank)).copied().unwrap_or(false)
    }

    /// Whether a read of the log up to this rank ends between two appends, not within one or within a group that was made
    /// together.
    pub(super) fn is_boundary(&self, rank: u64) -> bool {
        rank == 0 || self.closed.get(index(rank)).copied().unwrap_or(false)
    }

    /// Whether the event at this rank matches the query.
    pub(super) fn matches(&self, query: &Query, rank: u64) -> bool {
        self.about.get(index(rank)).copied().flatten().is_some_and(|about| query.matches(about))
    }

    /// The last event of a stream at this version; `None` at version 0.
    pub(super) fn last_of(&self, stream: &StreamId, version: u64) -> Option<u64> {
        self.stream(stream).get(index(version)).copied()
    }

    /// The rank of the first event of the append, if it is in the log.
    pub(super) fn rank_of(&self, sent: &Sent) -> Option<u64> {
        sent.events.first().and_then(|first| self.rank(first.id))
    }

    /// The rank of the first event of any of these appends.
    pub(super) fn rank_of_any(&self, group: &[Sent]) -> Option<u64> {
        group.iter().filter_map(|sent| self.rank_of(sent)).min()
    }

    /// The outcome of an append whose first event is at `rank`: version and position of its last event.
    pub(super) fn outcome(&self, rank: u64, events: usize) -> Option<(u64, u64)> {
        self.at(rank + events as u64 - 1).map(|last| (last.version, last.position))
    }
}

fn index(rank: u64) -> usize {
    usize::try_from(rank).unwrap_or(usize::MAX).wrapping_sub(1)
}

/// An append with all its attempts: the calls that sent the same events.
#[derive(Debug)]
pub(super) struct Write<'a> {
    pub(super) sent: &'a Sent,
    /// The appends that were made together, including this one.
    pub(super) group: &'a [Sent],
    pub(super) attempts: Vec<Attempt<'a>>,
}

impl<'a> Write<'a> {
    /// All appends that have events, in the order in which they were sent first.
    pub(super) fn all(attempts: &[Attempt<'a>]) -> Vec<Self> {
        let mut writes = Vec::<Self>::new();
        let mut known = HashMap::new();
        for attempt in attempts {
            let Some(sent) = attempt.sent() else { continue };
            let Some(first) = sent.events.first() else { continue };
            let index = *known.entry(first.id).or_insert(writes.len());
            if index == writes.len() {
                writes.push(Self { sent, group: attempt.group(), attempts: Vec::new() });
            }
            writes[index].attempts.push(*attempt);
        }
        writes
    }

    /// When it was sent first.
    pub(super) fn begun(&self) -> usize {
        self.attempts.iter().map(|attempt| attempt.called).min().unwrap_or(0)
    }

    pub(super) fn first(&self) -> Uuid {
        self.sent.events[0].id
    }

    /// Whether it is the first of those that are made together.
    pub(super) fn leads(&self) -> bool {
        self.group.first() == Some(self.sent)
    }

    /// The flaw of it, or of an append that was made together with it.
    pub(super) fn flaw(&self) -> Option<Flaw> {
        attempts::flaw(self.group)
    }

    /// The key and the stream within which it is unique.
    pub(super) fn key(&self) -> Option<(&'a StreamId, &'a Key)> {
        self.sent.key.as_ref().map(|key| (&self.sent.stream, key))
    }
}
