//! What the callers of a batch are answered, given what became of its entries.

use chrono::{DateTime, Utc};
use es_core::{AppendError, Appended, Position, RecordedEvent, Version, backend::Verdict};

use crate::{
    error::UnexpectedAnswer,
    write::{
        append::Prepared,
        batch::Batch,
        entry::Entry,
        fate::{Failed, Fate},
        request::Request,
    },
};

/// What to do about a request after its batch.
pub(crate) enum Outcome {
    Answer(Result<Vec<Appended>, AppendError>),
    /// It failed as part of an entry: send it as one of its own.
    Again,
}

impl Outcome {
    /// The last position that was written, now or before.
    pub(crate) fn head(&self) -> Option<Position> {
        match self {
            Self::Answer(Ok(appended)) => appended.last().map(|last| last.position),
            _ => None,
        }
    }

    /// Whether it was written now.
    fn is_written(&self) -> bool {
        matches!(self, Self::Answer(Ok(appended)) if appended.iter().any(|appended| !appended.repeated))
    }
}

/// What is known of an append after its batch.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Found {
    Written(Appended),
    Failed(Failed),
}

impl Batch {
    /// What becomes of each request, given the fates of the entries.
    pub(crate) fn outcomes(&self, fates: &[Fate]) -> Vec<Outcome> {
        // Of all appends, request by request.
        let mut starts = Vec::with_capacity(self.requests().len());
        let mut appends = 0;
        for request in self.requests() {
            starts.push(appends);
            appends += request.appends.len();
        }
        let mut found = vec![None; appends];
        for (entry, fate) in self.entries().zip(fates) {
            match *fate {
                Fate::Written { mut version, mut position } => {
                    for (member, (request, append)) in entry.members().zip(&entry.slot.members) {
                        let events = member.append.events.len() as u64;
                        version = Version::new(version.get() + events);
                        position = Position::new(position.get() + events);
                        let appended = Appended { version, position, repeated: false };
                        found[starts[*request] + append] = Some(Found::Written(appended));
                    }
                }
                Fate::Failed(failed) => {
                    for (request, append) in &entry.slot.members[..known(entry, failed)] {
                        found[starts[*request] + append] = Some(Found::Failed(failed));
                    }
                }
            }
        }
        let outcome =
            |(request, start): (&Request, usize)| outcome(request, &found[start..start + request.appends.len()]);
        self.requests().iter().zip(starts).map(outcome).collect()
    }

    /// The events that were written at this time, in the order of the log.
    pub(crate) fn recorded(&self, fates: &[Fate], recorded_at: DateTime<Utc>) -> Vec<RecordedEvent> {
        let mut recorded = Vec::new();
        for (entry, fate) in self.entries().zip(fates) {
            let Fate::Written { mut version, mut position } = *fate else { continue };
            for new in entry.members().flat_map(|member| &member.append.events) {
                (version, position) = (version.next(), position.next());
                recorded.push(new.clone().into_recorded(entry.stream().clone(), version, position, recorded_at));
            }
        }
        recorded.sort_unstable_by_key(|event| event.position);
        recorded
    }

    /// Of which request the event at `position` is; `None` where none of them has written it.
    pub(crate) fn request_at(&self, fates: &[Fate], position: Position) -> Option<usize> {
        self.entries().zip(fates).find_map(|(entry, fate)| {
            let Fate::Written { position: mut last, .. } = *fate else { return None };
            entry.members().zip(&entry.slot.members).find_map(|(member, (request, _))| {
                let first = last.next();
                last = Position::new(last.get() + member.append.events.len() as u64);
                (first..=last).contains(&position).then_some(*request)
            })
        })
    }

    /// Of each request, whether it was written.
    pub(crate) fn are_written(&self, fates: &[Fate]) -> Vec<bool> {
        self.outcomes(fates).iter().map(Outcome::is_written).collect()
    }

    /// How many events were written.
    pub(crate) fn events_written(&self, fates: &[Fate]) -> usize {
        let written = self.entries().zip(fates).filter(|(_, fate)| matches!(fate, Fate::Written { .. }));
        written.map(|(entry, _)| entry.events()).sum()
    }

    /// The outcome of the only request.
    pub(crate) fn outcome_of_one(self, fates: &[Fate]) -> Result<Vec<Appended>, AppendError> {
        match self.outcomes(fates).pop() {
            Some(Outcome::Answer(answer)) => answer,
            // A request that is alone is no part of an entry of several.
            _ => Err(UnexpectedAnswer::Missing.into()),
        }
    }
}

/// The last position before the events that were written; `None` where none was.
pub(crate) fn before(fates: &[Fate]) -> Option<Position> {
    let written = fates.iter().filter_map(|fate| match fate {
        Fate::Written { position, .. } => Some(*position),
        Fate::Failed(_) => None,
    });
    written.min()
}

/// Of how many appends of an entry it is known what becomes of them, if the entry was not written. Of several only the first
/// was checked. If its stream is not as it expected, then the event after which the next one goes was not written either,
/// and so on; all others must be checked by themselves.
fn known(entry: Entry<'_>, failed: Failed) -> usize {
    let follows = |member: &&Prepared| member.remembered.is_none() && member.append.expected.last().is_some();
    match (entry.slot.members.len(), failed) {
        (1, _) => 1,
        (_, Failed::Conflict { .. }) => 1 + entry.members().skip(1).take_while(follows).count(),
        _ => 0,
    }
}

/// What becomes of a request, given what was found of each of its appends.
fn outcome(request: &Request, found: &[Option<Found>]) -> Outcome {
    if found.contains(&None) {
        return Outcome::Again;
    }
    let found = found.iter().copied().flatten();
    let written = found.clone().map(|found| match found {
        Found::Written(appended) => Some(appended),
        Found::Failed(_) => None,
    });
    if let Some(written) = written.collect() {
        return Outcome::Answer(Ok(written));
    }
    let verdicts = request.appends.iter().zip(found).map(|(prepared, found)| match found {
        // (Of appends that were to be made together none is written if one is not.)
        Found::Written(_) => (&prepared.append, Verdict::Possible),
        Found::Failed(failed) => (&prepared.append, failed.verdict(&prepared.append)),
    });
    Outcome::Answer(match Verdict::of_all(verdicts) {
        Ok(Some(repeated)) => Ok(repeated),
        // All could be written, and none was.
        Ok(None) => Err(UnexpectedAnswer::Missing.into()),
        Err(error) => Err(error),
    })
}
