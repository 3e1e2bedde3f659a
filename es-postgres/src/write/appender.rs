//! The session that writes, and what it knows of the log because it has written that itself.
//!
//! The log only grows, and a session does not survive its server. So what a session has once written is there as long as the
//! session is: streams may have gone on meanwhile, but never fall behind. Where it knows a stream to have come as far as an
//! append expects, the unique index tells whether it has gone on, and nothing need be looked up.
//!
//! That it is the same session each statement makes sure (`guard.rs`): behind a pooler, the next one may meet another server,
//! which has lost the end of the log.

use chrono::{DateTime, Utc};
use es_core::{Ending, Position, StreamId, Version};
use quick_cache::unsync::Cache;

use crate::{
    error,
    guard::Guarded,
    session::Session,
    write::{
        append::{Failed, Fate},
        batch::{Batch, Entry},
        statements::{self, APPEND_NEXT, APPEND_NEXT_IF_FREE, Expectation},
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
            && let Some((before, recorded_at)) = self.write_all(batch).await?
        {
            return Ok(self.learn(batch, before, recorded_at));
        }
        self.head = None;
        let fates = statements::append_batch(batch, &mut self.connection).await?;
        self.unlearn(batch, &fates);
        Ok(fates)
    }

    /// Writes all of `batch`, or nothing; gives the last position before it, and the time of its events if it is told.
    async fn write_all(&mut self, batch: &Batch) -> Result<Option<(Position, Option<DateTime<Utc>>)>, sqlx::Error> {
        let unknown: Vec<_> = batch.entries().iter().filter_map(|entry| self.unknown(entry, batch)).collect();
        if let Some((prepared, version)) = batch.lone_event()
            && let Some(head) = self.head
            && unknown.is_empty()
            && self.undisturbed > 0
        {
            // That a stream exists already is nothing unusual.
            let plain = version > Version::ZERO && self.undisturbed >= self.plain_after;
            let sql = if plain { APPEND_NEXT } else { APPEND_NEXT_IF_FREE };
            match statements::append_next(sql, prepared, head, version, &mut self.connection).await {
                Ok(true) => return Ok(Some((head, None))),
                Ok(false) => {}
                Err(cause) if plain && error::is_taken(&cause) => {
                    self.plain_after *= 2;
                    self.undisturbed = 0;
                }
                Err(cause) => return Err(cause),
            }
        }
        statements::append_all(batch, &unknown, &mut self.connection).await
    }

    /// What `entry` expects, unless its stream is known to have come so far.
    fn unknown<'a>(&self, entry: &Entry, batch: &'a Batch) -> Option<Expectation<'a>> {
        let stream = batch.stream(entry);
        let (version, last) = (batch.expected(entry).version()?, batch.expected(entry).last());
        let is_known = match self.ends.peek(stream) {
            _ if version == Version::ZERO && last.is_none() => true,
            Some(End::At { version: known, last: written }) => {
                *known == version && last.is_none_or(|last| is_known(last, *written))
            }
            Some(End::Shared) | None => false,
        };
        (!is_known).then_some(Expectation { stream, version, last })
    }

    /// Takes note that all of `batch` was written behind position `before` at the time `recorded_at`, and tells so of each
    /// entry.
    fn learn(&mut self, batch: &Batch, before: Position, recorded_at: Option<DateTime<Utc>>) -> Vec<Fate> {
        let mut position = before;
        let mut fates = Vec::with_capacity(batch.entries().len());
        for entry in batch.entries() {
            let stream = batch.stream(entry);
            let version = batch.expected(entry).version().unwrap_or_default();
            fates.push(Fate::Written { version, position });
            let events = entry.events as u64;
            position = Position::new(position.get() + events);
            if self.ends.peek(stream) != Some(&End::Shared) {
                let last = Ending { event_id: batch.last_event(entry), recorded_at };
                self.ends.insert(stream.clone(), End::At { version: Version::new(version.get() + events), last });
            }
        }
        match self.head.replace(position) {
            Some(head) if head == before => self.undisturbed += 1,
            Some(_) => self.undisturbed = 0,
            None => {}
        }
        fates
    }

    /// Takes note of the streams that had come as far as was expected, and have gone on.
    fn unlearn(&mut self, batch: &Batch, fates: &[Fate]) {
        for (entry, fate) in batch.entries().iter().zip(fates) {
            let stream = batch.stream(entry);
            if let Fate::Failed(Failed { status: Failed::CONFLICT, .. }) = fate
                && self.ends.peek(stream).is_some()
                && self.unknown(entry, batch).is_none()
            {
                self.ends.insert(stream.clone(), End::Shared);
            }
        }
    }
}
