//! Decides the outcome of each append of a batch, in queue order, against the log and the accepted earlier appends of
//! the same batch.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use es_core::{
    Append, AppendError, Appended, NewEvent, Position, StreamId, Tag, Version,
    backend::{CommandRecord, ConditionPart, QueryItem, Verdict, Witness},
};
use uuid::Uuid;

use crate::queue::{Encoded, Outcome, Prepared};

/// What the log holds that decides one append.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    /// The version of its stream.
    pub(crate) version: Version,
    /// The last event of its stream.
    pub(crate) last: Option<Witness>,
    /// The event after the expected version.
    pub(crate) next: Option<Event>,
    /// The recorded outcome of its command id.
    pub(crate) command: Option<CommandRecord>,
    /// The first event that matches its condition, and so makes it fail.
    pub(crate) matched: Option<Position>,
}

/// An event's id and position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) position: Position,
}

/// Decides the appends of one batch, one after the other.
#[derive(Debug)]
pub(crate) struct Judge<'a> {
    head: Position,
    /// The time of the accepted events.
    now: DateTime<Utc>,
    /// The accepted appends, by stream and version of their first events, with the positions of these.
    accepted: BTreeMap<(&'a StreamId, Version), (&'a Append, Position)>,
    commands: HashMap<Uuid, CommandRecord>,
    /// The accepted events with each tag, in order.
    tagged: HashMap<&'a Tag, Vec<(Position, &'a NewEvent)>>,
    /// All accepted events, in order.
    all: Vec<(Position, &'a NewEvent)>,
}

impl<'a> Judge<'a> {
    /// For a log that ends at `head`. Accepted events get the time `now`.
    pub(crate) fn new(head: Position, now: DateTime<Utc>) -> Self {
        Self { head, now, accepted: BTreeMap::new(), commands: HashMap::new(), tagged: HashMap::new(), all: Vec::new() }
    }

    /// The outcome of `prepared`; `known` has one entry for each of its appends. Accepted appends get the next positions of
    /// the log. None is accepted before all are decided.
    pub(crate) fn decide(&mut self, prepared: &'a Prepared, known: &[Known]) -> Outcome {
        let members = || prepared.members().zip(known);
        let verdicts: Vec<_> = members().map(|((append, encoded), known)| self.judge(append, encoded, known)).collect();
        match Verdict::of_all(prepared.appends.iter().zip(verdicts))? {
            Some(repeated) => Ok(repeated),
            None => Ok(members().map(|((append, encoded), known)| self.accept(append, encoded, known)).collect()),
        }
    }

    fn judge(&self, append: &'a Append, encoded: &Encoded, known: &Known) -> Verdict {
        if let Some(remembered) = encoded.remembered {
            let earlier = self.commands.get(&remembered.id).copied().or(known.command);
            if let Some(record) = earlier {
                return record.repeat(remembered.fingerprint).map_or_else(Verdict::Refused, Verdict::Repeated);
            }
        }
        let (actual, last) = self.tip(append, known);
        if !append.expected.holds(actual, last) {
            let conflict = append.conflict(actual);
            return self.repeated(append, known).map_or_else(|| Verdict::Refused(conflict.into()), Verdict::Repeated);
        }
        let matched = known.matched.or_else(|| append.condition_parts().filter_map(|part| self.matched(part)).min());
        matched.map_or(Verdict::Possible, |position| Verdict::Refused(AppendError::ConditionFailed { position }))
    }

    fn accept(&mut self, append: &'a Append, encoded: &Encoded, known: &Known) -> Appended {
        let (before, _) = self.tip(append, known);
        self.accepted.insert((&append.stream, before.next()), (append, self.head.next()));
        for new in &append.events {
            self.head = self.head.next();
            self.all.push((self.head, new));
            for tag in &new.tags {
                self.tagged.entry(tag).or_default().push((self.head, new));
            }
        }
        let version = Version::new(before.get() + append.events.len() as u64);
        let appended = Appended { version, position: self.head, repeated: false };
        if let Some(remembered) = encoded.remembered {
            let record = CommandRecord { fingerprint: remembered.fingerprint, appended };
            self.commands.insert(remembered.id, record);
        }
        appended
    }

    /// The version of the stream of `append`, and its last event.
    fn tip(&self, append: &'a Append, known: &Known) -> (Version, Option<Witness>) {
        match self.accepted_at(append, Version::new(u64::MAX)) {
            Some((first, accepted, _)) => {
                let version = Version::new(first.get() + accepted.events.len() as u64 - 1);
                (version, accepted.events.last().map(|last| Witness { event_id: last.id, recorded_at: self.now }))
            }
            None => (known.version, known.last),
        }
    }

    /// The first outcome of a repeated append, recognised by its own first event after the expected version.
    fn repeated(&self, append: &'a Append, known: &Known) -> Option<Appended> {
        let expected = append.expected.version()?;
        let accepted = self.accepted_at(append, expected.next()).and_then(|(first, accepted, position)| {
            let nth = expected.next().get() - first.get();
            let new = accepted.events.get(usize::try_from(nth).ok()?)?;
            Some(Event { id: new.id, position: Position::new(position.get() + nth) })
        });
        let next = accepted.or(known.next)?;
        let events = append.events.len() as u64;
        (next.id == append.events[0].id).then(|| Appended {
            version: Version::new(expected.get() + events),
            // The events of one append have consecutive positions.
            position: Position::new(next.position.get() + events - 1),
            repeated: true,
        })
    }

    /// The last accepted append to the stream of `append` that starts at `version` or before, with the version and the
    /// position of its first event.
    fn accepted_at(&self, append: &'a Append, version: Version) -> Option<(Version, &'a Append, Position)> {
        let (&(stream, first), &(accepted, position)) =
            self.accepted.range(..=(&append.stream, version)).next_back()?;
        (*stream == append.stream).then_some((first, accepted, position))
    }

    /// The first accepted event that matches this part of a condition.
    fn matched(&self, ConditionPart { query, after }: &ConditionPart) -> Option<Position> {
        let fails =
            |(position, new): &&(Position, &NewEvent)| position > after && query.matches(&new.data.name, &new.tags);
        let candidates = |item: &QueryItem| match item.tags.first() {
            Some(tag) => self.tagged.get(tag),
            None => Some(&self.all),
        };
        query
            .items()
            .iter()
            .filter_map(candidates)
            .filter_map(|events| events.iter().find(fails))
            .map(|(position, _)| *position)
            .min()
    }
}

/// The positions that the tries of one batch have written, or may have written. A commit can fail and still be durable;
/// then the next try finds the events of the try before. To the caller these are not repeated.
#[derive(Debug)]
pub(crate) struct Written(Vec<Option<Position>>);

impl Written {
    /// For a batch of `entries` of the queue.
    pub(crate) fn new(entries: usize) -> Self {
        Self(vec![None; entries])
    }

    /// Of the entries of which `are_first` says so, and of the others.
    pub(crate) fn divided(self, are_first: &[bool]) -> (Self, Self) {
        let (first, second): (Vec<_>, Vec<_>) = self.0.into_iter().zip(are_first).partition(|(_, is_first)| **is_first);
        let positions =
            |entries: Vec<(Option<Position>, &bool)>| Self(entries.into_iter().map(|(position, _)| position).collect());
        (positions(first), positions(second))
    }

    /// Records what this try is about to commit, and clears `repeated` where an earlier try of this batch wrote the
    /// append. The position is enough to recognise that: the append was found there, and this batch had written it there.
    /// (If the earlier try was rolled back, and another process then wrote the same append to the same position, the flag
    /// is wrong; the rest of the outcome is right.)
    pub(crate) fn recognise(&mut self, outcomes: &mut [Outcome]) {
        for (own, outcome) in self.0.iter_mut().zip(outcomes) {
            // An entry is written as a whole or not at all, so its last append stands for all.
            let Ok(appended) = outcome else { continue };
            let Some(last) = appended.last() else { continue };
            if !last.repeated {
                *own = Some(last.position);
            } else if *own == Some(last.position) {
                for appended in appended {
                    appended.repeated = false;
                }
            }
        }
    }
}
