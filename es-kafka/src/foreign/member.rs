//! A partition that this member of a group reads, and what its reader should be told of it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use es_core::{
    Position, RecordedEvent,
    backend::{Batch, Checkpoint, Shard, Witness},
};

use crate::source::{group::Told, member::Need};

/// What was read.
struct Taken {
    event: Option<RecordedEvent>,
    /// The offset after it.
    next: i64,
    /// When it may be handed on.
    due: Instant,
}

pub(super) struct Member {
    /// What was read and not handed on.
    events: Vec<RecordedEvent>,
    /// What follows, from the first record on whose time has not come.
    waiting: VecDeque<Taken>,
    /// Whether the client reads no more of the partition until then. It is told to go on once at the beginning: it may remember
    /// that of an earlier assignment.
    pub(super) is_paused: bool,
    /// The offset after the last record that was read.
    pub(super) next: i64,
    /// Up to which offset the reader was told.
    told: i64,
    told_at: Option<Instant>,
    /// Whether the reader knows where the partition begins for it. A batch of which it handles a part continues from there.
    said_begin: bool,
    /// The last event that was handed on.
    witness: Option<Witness>,
}

impl Member {
    /// A partition that is read from the offset `begin` on.
    pub(super) fn new(begin: i64, checkpoint: &Checkpoint) -> Self {
        let said_begin = checkpoint.cursor.is_some();
        Self {
            events: Vec::new(),
            waiting: VecDeque::new(),
            is_paused: true,
            next: begin,
            told: begin,
            told_at: None,
            said_begin,
            witness: checkpoint.witness,
        }
    }

    /// Everything before the offset `next` was read; the last of it is `event`, unless that is passed over. It is handed on after
    /// `wait`.
    pub(super) fn take(&mut self, event: Option<RecordedEvent>, next: i64, wait: Duration) {
        if wait.is_zero() && self.waiting.is_empty() {
            self.events.extend(event);
            self.next = self.next.max(next);
        } else if event.is_some() || self.waiting.back().is_none_or(|last| last.next < next) {
            let now = Instant::now();
            let due = now.checked_add(wait).unwrap_or(now);
            self.waiting.push_back(Taken { event, next, due });
        }
    }

    /// Lets everything go whose time has come, in order.
    pub(super) fn release(&mut self) {
        let now = Instant::now();
        while let Some(Taken { event, next, .. }) = self.waiting.pop_front_if(|taken| taken.due <= now) {
            self.events.extend(event);
            self.next = self.next.max(next);
        }
    }

    /// Whether the time of the next record has not come.
    pub(super) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether events wait to be handed on.
    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// What the reader does not know yet: events, where the partition begins, or that it goes on without events.
    pub(super) fn need(&self, advance_every: Duration) -> Option<Need> {
        let is_due = self.told_at.is_none_or(|told_at| told_at.elapsed() >= advance_every);
        if !self.said_begin {
            Some(Need::Advance)
        } else if self.has_events() {
            Some(Need::Events)
        } else {
            (is_due && self.next > self.told).then_some(Need::Advance)
        }
    }

    pub(super) fn batch(&mut self, shard: Shard) -> Batch {
        let is_begin = !std::mem::replace(&mut self.said_begin, true);
        let events = if is_begin { Vec::new() } else { std::mem::take(&mut self.events) };
        // The records that were read are not behind a checkpoint at the begin.
        self.told = if is_begin { self.told } else { self.next };
        self.told_at = Some(Instant::now());
        self.witness = events.last().map(Witness::of).or(self.witness);
        let position = Position::new(u64::try_from(self.told).unwrap_or_default());
        let checkpoint = Checkpoint { position, witness: self.witness, cursor: Some(self.told.to_string()) };
        Batch { shard, events: events.into(), checkpoint, end: None }
    }
}

impl Told for Member {
    fn told_at(&self) -> Option<Instant> {
        self.told_at
    }

    fn is_withheld(&self) -> bool {
        self.waits()
    }
}
