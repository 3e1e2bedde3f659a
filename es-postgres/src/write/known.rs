//! What a session knows of the log because it has written that itself.
//!
//! The log only grows, and a session does not survive its server. So what a session has once written is there as long as the
//! session is: streams may have gone on meanwhile, but are never shorter. Where the session knows that a stream has come as
//! far as an append expects, the unique index tells whether it has gone on, and nothing need be looked up.
//!
//! That it is the same session each statement makes sure (`guard.rs`): a pooler could send the next one to another server,
//! which has lost the end of the log.

use chrono::{DateTime, Utc};
use es_core::{Expected, Position, StreamId, Version, backend::Ending};
use quick_cache::unsync::Cache;

use crate::write::{
    batch::Batch,
    entry::Entry,
    fate::{Failed, Fate},
};

/// Of how many streams a session knows the end (some 3 MB).
const MOST_STREAMS: usize = 16_384;

/// After how many undisturbed batches a session first tries the plain `INSERT`.
const UNDISTURBED_AT_FIRST: u64 = 8;

pub(crate) struct Known {
    ends: Cache<StreamId, End>,
    /// The last position of the log after its last batch, if it knows.
    head: Option<Position>,
    /// In how many batches, one after the other, no other session had written in between.
    undisturbed: u64,
    /// How many there must be before it tries the plain `INSERT`. Twice as many after each time that another session had
    /// written in between: that is an error in the server's log.
    plain_after: u64,
}

/// What is known of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It has come so far. The time of the event is not known where the statement gives none.
    At { version: Version, last: Ending },
    /// Other sessions write to it too. What this one knows is too often outdated: a look-up is cheaper than a batch that is
    /// refused.
    Shared,
}

/// After which version of its stream an entry is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// The session knows that the stream has come so far, or nothing is expected in it.
    Known(Version),
    /// The statement checks that the stream ends so.
    Checked(Version, Option<Ending>),
    /// After the last one, which the statement looks up.
    LookedUp,
}

/// What is told of a batch of which everything was written.
pub(crate) struct Written {
    /// The last position before it.
    pub(crate) before: Position,
    /// The time of its events, if it is told.
    pub(crate) recorded_at: Option<DateTime<Utc>>,
    /// After which version of its stream each entry was written.
    pub(crate) versions: Vec<Version>,
}

impl Written {
    /// The fate of each entry of `batch`, which was written whole.
    pub(crate) fn fates(&self, batch: &Batch) -> Vec<Fate> {
        let mut next = self.before;
        let fate = |(entry, version): (Entry<'_>, &Version)| {
            let position = next;
            next = Position::new(position.get() + entry.events() as u64);
            Fate::Written { version: *version, position }
        };
        batch.entries().zip(&self.versions).map(fate).collect()
    }
}

/// Whether what is `expected` is the event that was `written`. Where a time is expected and none is known, the database must
/// tell: an event of that id was read, perhaps in another history, and is written here, perhaps again.
fn is_same(expected: Ending, written: Ending) -> bool {
    expected.event_id == written.event_id
        && (expected.recorded_at.is_none() || expected.recorded_at == written.recorded_at)
}

impl Known {
    pub(crate) fn nothing() -> Self {
        Self { ends: Cache::new(MOST_STREAMS), head: None, undisturbed: 0, plain_after: UNDISTURBED_AT_FIRST }
    }

    /// The last position of the log, if no other session has written between the last two batches.
    pub(crate) fn undisturbed_head(&self) -> Option<Position> {
        self.head.filter(|_| self.undisturbed > 0)
    }

    /// Whether it is so unlikely that another session writes that a plain `INSERT` is tried.
    pub(crate) fn is_alone(&self) -> bool {
        self.undisturbed >= self.plain_after
    }

    /// After which version of its stream `entry` goes; `None` if the entry must be checked by itself.
    pub(crate) fn start(&self, entry: Entry<'_>) -> Option<Start> {
        let end = self.ends.peek(entry.stream());
        let (version, last) = match (entry.expected(), end) {
            // If it has gone on meanwhile, the unique index refuses the event.
            (Expected::Any | Expected::StreamExists, Some(End::At { version, .. })) => {
                return Some(Start::Known(*version));
            }
            (Expected::Any, _) => return Some(Start::LookedUp),
            (expected, _) => (expected.version()?, expected.last()),
        };
        let is_known = match end {
            _ if version == Version::ZERO && last.is_none() => true,
            Some(End::At { version: known, last: written }) => {
                *known == version && last.is_none_or(|last| is_same(last, *written))
            }
            Some(End::Shared) | None => false,
        };
        Some(if is_known { Start::Known(version) } else { Start::Checked(version, last) })
    }

    /// Takes note that another connection of this process writes, namely to these streams: so that neither a refused plain
    /// `INSERT` nor a stream that seems to be shared makes it slower for longer than that.
    pub(crate) fn expect_others<'a>(&mut self, streams: impl Iterator<Item = &'a StreamId>) {
        self.undisturbed = 0;
        for stream in streams {
            self.ends.remove(stream);
        }
    }

    /// Takes note that a plain `INSERT` was refused.
    pub(crate) fn learn_disturbance(&mut self) {
        self.plain_after *= 2;
        self.undisturbed = 0;
    }

    /// Takes note of what was written, which is all of `batch`.
    pub(crate) fn learn(&mut self, batch: &Batch, written: &Written) {
        let mut head = written.before.get();
        for (entry, version) in batch.entries().zip(&written.versions) {
            head += entry.events() as u64;
            self.learn_end(entry, *version, written.recorded_at);
        }
        match self.head.replace(Position::new(head)) {
            Some(before) if before == written.before => self.undisturbed += 1,
            Some(_) => self.undisturbed = 0,
            None => {}
        }
    }

    /// Takes note of what became of each entry of `batch`, which was checked by itself. If a stream that this session knew
    /// has another end, other sessions write to it too.
    pub(crate) fn learn_fates(&mut self, batch: &Batch, fates: &[Fate]) {
        self.head = None;
        for (entry, fate) in batch.entries().zip(fates) {
            let known = match self.start(entry) {
                Some(Start::Known(version)) if self.ends.peek(entry.stream()).is_some() => Some(version),
                _ => None,
            };
            match (*fate, known) {
                (Fate::Failed(Failed::Conflict { .. }), Some(_)) => {
                    self.ends.insert(entry.stream().clone(), End::Shared);
                }
                (Fate::Written { version, .. }, Some(known)) if version != known => {
                    self.ends.insert(entry.stream().clone(), End::Shared);
                }
                (Fate::Written { version, .. }, _) => self.learn_end(entry, version, None),
                (Fate::Failed(_), _) => {}
            }
        }
    }

    /// Takes note that `entry` was written after `version` of its stream, at the time `recorded_at`, if that is known.
    fn learn_end(&mut self, entry: Entry<'_>, version: Version, recorded_at: Option<DateTime<Utc>>) {
        if self.ends.peek(entry.stream()) != Some(&End::Shared) {
            let last = Ending { event_id: entry.last_event(), recorded_at };
            let version = Version::new(version.get() + entry.events() as u64);
            self.ends.insert(entry.stream().clone(), End::At { version, last });
        }
    }
}
