//! The session that writes, and what it knows of the log because it has written that itself.
//!
//! The log only grows, and a session does not survive its server. So what a session has once written is there as long as the
//! session is: streams may have gone on meanwhile, but never fall behind. Where it knows a stream to have come as far as an
//! append expects, the unique index tells whether it has gone on, and nothing need be looked up.
//!
//! That it is the same session each statement makes sure (`guard.rs`): behind a pooler, the next one may meet another server,
//! which has lost the end of the log.

use chrono::{DateTime, Utc};
use es_core::{Expected, Position, StreamId, Version, backend::Ending};
use quick_cache::unsync::Cache;

use crate::{
    error,
    guard::Guarded,
    session::Session,
    write::{
        append::{Failed, Fate},
        batch::{Batch, Entry},
        statements::{self, APPEND_NEXT, APPEND_NEXT_IF_FREE, Expectation, Start, Written},
    },
};

/// Of how many streams a session knows the end (some 3 MB).
const MOST_STREAMS: usize = 16_384;

/// After how many undisturbed batches a session first tries the plain `INSERT`.
const UNDISTURBED_AT_FIRST: u64 = 8;

pub(crate) struct Appender {
    connection: Guarded,
    ends: Cache<StreamId, End>,
    /// The last position of the log behind its last batch, if it knows.
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
    /// Other sessions write to it too. What this one knows is too often outdated: a look-up is cheaper than a batch that is refused.
    Shared,
}

/// Whether what is `expected` is the event that was `written`. Where a time is expected and none is known, the database must
/// tell: an event of that id was read, perhaps in another history, and is written here, perhaps again.
fn is_known(expected: Ending, written: Ending) -> bool {
    expected.event_id == written.event_id
        && (expected.recorded_at.is_none() || expected.recorded_at == written.recorded_at)
}

impl Appender {
    pub(crate) async fn open(session: &Session) -> Result<Self, sqlx::Error> {
        let connection = session.open_appender().await?;
        let ends = Cache::new(MOST_STREAMS);
        Ok(Self { connection, ends, head: None, undisturbed: 0, plain_after: UNDISTURBED_AT_FIRST })
    }

    /// The session's process on the server.
    pub(crate) fn process(&self) -> i32 {
        self.connection.process
    }

    /// Takes note that another connection of this process writes, namely to these streams: so that neither a refused plain `INSERT` nor
    /// a stream that seems to be shared makes it slower for longer than that.
    pub(crate) fn expect_others<'a>(&mut self, streams: impl Iterator<Item = &'a StreamId>) {
        self.undisturbed = 0;
        for stream in streams {
            self.ends.remove(stream);
        }
    }

    pub(crate) async fn close(self) {
        let _ = self.connection.close().await;
    }

    /// Writes `batch` and tells the fate of each of its entries, in their order.
    ///
    /// Most batches fit as they are, so that is tried first. Only what does not is judged entry by entry.
    pub(crate) async fn write(&mut self, batch: &Batch) -> Result<Vec<Fate>, sqlx::Error> {
        if batch.has_large_events() {
            return statements::append_large(batch, &mut self.connection).await;
        }
        if batch.is_plain()
            && let Some(written) = self.write_all(batch).await?
        {
            return Ok(self.learn(batch, &written));
        }
        self.head = None;
        let fates = statements::append_batch(batch, &mut self.connection).await?;
        self.learn_fates(batch, &fates);
        Ok(fates)
    }

    /// Writes all of `batch`, or nothing.
    async fn write_all(&mut self, batch: &Batch) -> Result<Option<Written>, sqlx::Error> {
        let starts: Option<Vec<_>> = batch.entries().iter().map(|entry| self.start(entry, batch)).collect();
        let Some(starts) = starts else { return Ok(None) };
        if let Some((prepared, version)) = batch.lone_event()
            && let Some(head) = self.head
            && let [Start::Known(_)] = starts[..]
            && self.undisturbed > 0
        {
            // That a stream exists already is nothing unusual.
            let plain = version > Version::ZERO && self.undisturbed >= self.plain_after;
            let sql = if plain { APPEND_NEXT } else { APPEND_NEXT_IF_FREE };
            match statements::append_next(sql, prepared, head, version, &mut self.connection).await {
                Ok(true) => return Ok(Some(Written { before: head, recorded_at: None, versions: vec![version] })),
                Ok(false) => {}
                Err(cause) if plain && error::is_taken(&cause) => {
                    self.plain_after *= 2;
                    self.undisturbed = 0;
                }
                Err(cause) => return Err(cause),
            }
        }
        statements::append_all(batch, &starts, &mut self.connection).await
    }

    /// After which version of its stream `entry` goes; `None` if only `append_batch()` can tell whether it may be written.
    fn start<'a>(&self, entry: &Entry, batch: &'a Batch) -> Option<Start<'a>> {
        let stream = batch.stream(entry);
        let end = self.ends.peek(stream);
        let (version, last) = match (batch.expected(entry), end) {
            // If it has gone on meanwhile, the unique index refuses the event.
            (Expected::Any | Expected::StreamExists, Some(End::At { version, .. })) => {
                return Some(Start::Known(*version));
            }
            (Expected::Any, _) => return Some(Start::LookedUp(stream)),
            (expected, _) => (expected.version()?, expected.last()),
        };
        let is_known = match end {
            _ if version == Version::ZERO && last.is_none() => true,
            Some(End::At { version: known, last: written }) => {
                *known == version && last.is_none_or(|last| is_known(last, *written))
            }
            Some(End::Shared) | None => false,
        };
        Some(if is_known { Start::Known(version) } else { Start::Checked(Expectation { stream, version, last }) })
    }

    /// Takes note of what was written, which is all of `batch`, and tells the fate of each entry.
    fn learn(&mut self, batch: &Batch, written: &Written) -> Vec<Fate> {
        let mut position = written.before;
        let mut fates = Vec::with_capacity(batch.entries().len());
        for (entry, version) in batch.entries().iter().zip(&written.versions) {
            fates.push(Fate::Written { version: *version, position });
            position = Position::new(position.get() + entry.events as u64);
            self.learn_end(batch, entry, *version, written.recorded_at);
        }
        match self.head.replace(position) {
            Some(head) if head == written.before => self.undisturbed += 1,
            Some(_) => self.undisturbed = 0,
            None => {}
        }
        fates
    }

    /// Takes note of what became of each entry of `batch`. If a stream that this session knew has another end, other
    /// sessions write to it too.
    fn learn_fates(&mut self, batch: &Batch, fates: &[Fate]) {
        for (entry, fate) in batch.entries().iter().zip(fates) {
            let stream = batch.stream(entry);
            let known = match self.start(entry, batch) {
                Some(Start::Known(version)) if self.ends.peek(stream).is_some() => Some(version),
                _ => None,
            };
            match (*fate, known) {
                (Fate::Failed(Failed { status: Failed::CONFLICT, .. }), Some(_)) => {
                    self.ends.insert(stream.clone(), End::Shared);
                }
                (Fate::Written { version, .. }, Some(known)) if version != known => {
                    self.ends.insert(stream.clone(), End::Shared);
                }
                (Fate::Written { version, .. }, _) => self.learn_end(batch, entry, version, None),
                (Fate::Failed(_), _) => {}
            }
        }
    }

    /// Takes note that `entry` was written after `version` of its stream, at the time `recorded_at`, if that is known.
    fn learn_end(&mut self, batch: &Batch, entry: &Entry, version: Version, recorded_at: Option<DateTime<Utc>>) {
        let stream = batch.stream(entry);
        if self.ends.peek(stream) != Some(&End::Shared) {
            let last = Ending { event_id: batch.last_event(entry), recorded_at };
            let version = Version::new(version.get() + entry.events as u64);
            self.ends.insert(stream.clone(), End::At { version, last });
        }
    }
}
