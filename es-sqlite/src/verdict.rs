//! What becomes of each append of a batch, decided in queue order against the log and against what earlier appends
//! of the same batch are about to write.

use std::collections::HashMap;

use es_core::{Append, Appended, CommandRecord, Conflict, Position, StreamId, Version};
use uuid::Uuid;

use crate::queue::{Prepared, Verdict};

/// What the log knows of one append.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    /// The version of its stream.
    pub(crate) version: Version,
    /// The event behind the expected version.
    pub(crate) next: Option<Event>,
    /// The outcome under which it is remembered.
    pub(crate) command: Option<CommandRecord>,
}

/// An event by its identity and place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) position: Position,
}

/// Decides the appends of one batch, one after the other.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    head: Position,
    versions: HashMap<&'a StreamId, Version>,
    /// The first event of each accepted append, by its place.
    firsts: HashMap<(&'a StreamId, Version), Event>,
    commands: HashMap<Uuid, CommandRecord>,
}

impl<'a> Judge<'a> {
    /// A judge for a log that ends at `head`.
    pub(crate) fn new(head: Position) -> Self {
        Self { head, versions: HashMap::new(), firsts: HashMap::new(), commands: HashMap::new() }
    }

    /// The verdict on `prepared`, of which the log knows `known`. What it accepts lies at the end of the log.
    pub(crate) fn decide(&mut self, prepared: &'a Prepared, known: Known) -> Verdict {
        let Prepared { append, remembered, .. } = prepared;
        if let Some(remembered) = remembered {
            let earlier = self.commands.get(&remembered.id).copied().or(known.command);
            if let Some(record) = earlier {
                return record.repeat(remembered.fingerprint);
            }
        }
        let actual = self.versions.get(&append.stream).copied().unwrap_or(known.version);
        if !append.expected.holds(actual) {
            let conflict = Conflict { expected: append.expected, actual };
            return self.repeated(append, known).ok_or_else(|| conflict.into());
        }
        let events = append.events.len() as u64;
        let first = Event { id: append.events[0].id, position: self.head.next() };
        let version = Version::new(actual.get() + events);
        self.head = Position::new(self.head.get() + events);
        self.firsts.insert((&append.stream, actual.next()), first);
        self.versions.insert(&append.stream, version);
        let appended = Appended { version, position: self.head, repeated: false };
        if let Some(remembered) = remembered {
            let record = CommandRecord { fingerprint: remembered.fingerprint, appended };
            self.commands.insert(remembered.id, record);
        }
        Ok(appended)
    }

    /// The first outcome of an append that comes again: the event behind the expected version is its own first one.
    fn repeated(&self, append: &Append, known: Known) -> Option<Appended> {
        let expected = append.expected.version()?;
        let next = self.firsts.get(&(&append.stream, expected.next())).copied().or(known.next)?;
        let events = append.events.len() as u64;
        (next.id == append.events[0].id).then(|| Appended {
            version: Version::new(expected.get() + events),
            // Its events lie side by side.
            position: Position::new(next.position.get() + events - 1),
            repeated: true,
        })
    }
}

/// What the tries of one batch have written, or may have. A batch that is tried again after its commit failed finds
/// the work of the try before, if that was committed after all; to its author it is not repeated.
#[derive(Debug)]
pub(crate) struct Own(Vec<Option<Position>>);

impl Own {
    /// For a batch of `appends`.
    pub(crate) fn new(appends: usize) -> Self {
        Self(vec![None; appends])
    }

    /// Takes note of what this try is about to commit, and puts right what an earlier one has. A place in the log is
    /// witness enough: what stands there is this very append, and this batch was the one to write it there. (Should
    /// the try have been rolled back and another process have written the same append to the same place in that very
    /// moment, the flag is wrong; the rest of the outcome is right.)
    pub(crate) fn recognise(&mut self, verdicts: &mut [Verdict]) {
        for (own, verdict) in self.0.iter_mut().zip(verdicts) {
            let Ok(appended) = verdict else { continue };
            if !appended.repeated {
                *own = Some(appended.position);
            } else if *own == Some(appended.position) {
                appended.repeated = false;
            }
        }
    }
}
