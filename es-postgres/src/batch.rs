//! What goes into one statement together, and in which order it means what its appends mean one after the
//! other.

use std::collections::{HashMap, HashSet};

use es_core::{AppendError, Appended, Expected, Position, StreamId, Tag, Verdict, Version};

use crate::append::{Failed, Fate, Prepared};

/// The most entries of one batch on the same stream: each costs the statement a pass over the batch.
const MOST_WAVES: i32 = 16;

/// What a caller asks for: one append, or several that are made together.
pub(crate) struct Request {
    pub(crate) appends: Vec<Prepared>,
    /// Whether it must be an entry of its own, since it failed as part of one.
    apart: bool,
}

impl Request {
    pub(crate) fn new(appends: Vec<Prepared>) -> Self {
        Self { appends, apart: false }
    }

    /// The same request, to be an entry of its own.
    pub(crate) fn apart(self) -> Self {
        Self { apart: true, ..self }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.appends.iter().map(|prepared| prepared.bytes).sum()
    }

    /// The tags that its conditions are about.
    fn asked(&self) -> impl Iterator<Item = &Tag> {
        let conditions = self.appends.iter().filter_map(|prepared| prepared.append.condition.as_ref());
        conditions.flat_map(|condition| condition.query.items()).flat_map(|item| &item.tags)
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = &StreamId> {
        self.appends.iter().map(|prepared| &prepared.append.stream)
    }
}

/// What goes into one stream side by side and is written whole or not at all: one append, or several of
/// which each builds on the one before it.
pub(crate) struct Entry {
    /// Which appends: of which request, and which of its appends.
    members: Vec<(usize, usize)>,
    /// How many events they have.
    pub(crate) events: usize,
    pub(crate) wave: i32,
    /// Entries of one request are written together.
    pub(crate) group: i32,
}

/// Requests that go into one statement, in the order in which they arrived.
#[derive(Default)]
pub(crate) struct Batch {
    requests: Vec<Request>,
    entries: Vec<Entry>,
    /// The last entry of each stream.
    last_entries: HashMap<StreamId, usize>,
    /// The last wave in which each tag is written.
    last_waves: HashMap<Tag, i32>,
    /// The tags that its conditions are about.
    asked: HashSet<Tag>,
    waves: i32,
    has_groups: bool,
}

/// What to do about a request after its batch.
pub(crate) enum Outcome {
    Answer(Result<Vec<Appended>, AppendError>),
    /// It failed as part of an entry: send it as one of its own.
    Again,
}

impl Outcome {
    /// The last position that was written.
    pub(crate) fn head(&self) -> Option<Position> {
        match self {
            Self::Answer(Ok(appended)) => appended.last().map(|last| last.position),
            _ => None,
        }
    }
}

impl Batch {
    /// The batch of one request.
    pub(crate) fn of_one(appends: Vec<Prepared>) -> Self {
        let mut batch = Self::default();
        let _ = batch.offer(Request::new(appends));
        batch
    }

    /// Takes `request`, or gives it back if it would need too many waves.
    pub(crate) fn offer(&mut self, request: Request) -> Result<(), Request> {
        let index = self.requests.len();
        if let Some(entry) = self.entry_to_join(&request) {
            let prepared = &request.appends[0];
            self.entries[entry].members.push((index, 0));
            self.entries[entry].events += prepared.append.events.len();
            self.note_tags(&request, self.entries[entry].wave);
            self.requests.push(request);
            return Ok(());
        }
        let wave = self.wave_for(&request);
        if wave > MOST_WAVES {
            return Err(request);
        }
        for (number, Prepared { append, .. }) in request.appends.iter().enumerate() {
            self.last_entries.insert(append.stream.clone(), self.entries.len());
            let group = i32::try_from(index).unwrap_or(i32::MAX);
            self.entries.push(Entry { members: vec![(index, number)], events: append.events.len(), wave, group });
        }
        self.note_tags(&request, wave);
        self.waves = self.waves.max(wave);
        self.has_groups |= request.appends.len() > 1;
        self.requests.push(request);
        Ok(())
    }

    /// The entry that `request` continues: if that is written, so is this.
    fn entry_to_join(&self, request: &Request) -> Option<usize> {
        let [prepared] = &request.appends[..] else { return None };
        if request.apart || prepared.append.condition.is_some() {
            return None;
        }
        // The entry may stand before a condition that has not seen this: it must come behind.
        let mut tags = prepared.append.events.iter().flat_map(|event| &event.tags);
        if tags.any(|tag| self.asked.contains(tag)) {
            return None;
        }
        let index = *self.last_entries.get(&prepared.append.stream)?;
        let entry = &self.entries[index];
        let &(last, _) = entry.members.last()?;
        let last = &self.requests[last];
        let [before] = &last.appends[..] else { return None };
        if last.apart || before.append.condition.is_some() {
            return None;
        }
        let known = self.members(entry).next()?.append.expected.version();
        let behind = known.map(|version| Version::new(version.get() + entry.events as u64));
        let fits = match prepared.append.expected {
            Expected::Any | Expected::StreamExists => behind.is_none(),
            Expected::NoStream => false,
            Expected::Exact(version) => behind == Some(version),
            Expected::Last { version, event_id } => {
                behind == Some(version) && before.append.events.last().map(|event| event.id) == Some(event_id)
            }
        };
        // The same command twice: the second one returns the outcome of the first.
        let again = || {
            let id = prepared.remembered.map(|remembered| remembered.id);
            id.is_some() && self.members(entry).any(|member| member.remembered.map(|remembered| remembered.id) == id)
        };
        (fits && !again()).then_some(index)
    }

    /// The first wave in which `request` finds everything that came before it and concerns it.
    fn wave_for(&self, request: &Request) -> i32 {
        let streams = request.streams().filter_map(|stream| self.last_entries.get(stream));
        let streams = streams.map(|entry| self.entries[*entry].wave);
        let tags = request.asked().filter_map(|tag| self.last_waves.get(tag)).copied();
        1 + streams.chain(tags).max().unwrap_or(0)
    }

    fn note_tags(&mut self, request: &Request, wave: i32) {
        self.asked.extend(request.asked().cloned());
        let events = request.appends.iter().flat_map(|prepared| &prepared.append.events);
        for tag in events.flat_map(|event| &event.tags) {
            let last = self.last_waves.entry(tag.clone()).or_default();
            *last = wave.max(*last);
        }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The appends of `entry`, in order.
    pub(crate) fn members(&self, entry: &Entry) -> impl Iterator<Item = &Prepared> {
        entry.members.iter().map(|(request, append)| &self.requests[*request].appends[*append])
    }

    /// The append, and the version that it names, if there is no more to the batch than its one event.
    pub(crate) fn lone_event(&self) -> Option<(&Prepared, Version)> {
        let [Request { appends, .. }] = &self.requests[..] else { return None };
        let [prepared @ Prepared { append, remembered: None, .. }] = &appends[..] else { return None };
        let [event] = &append.events[..] else { return None };
        let is_plain = append.condition.is_none() && event.tags.is_empty();
        append.expected.version().filter(|_| is_plain).map(|version| (prepared, version))
    }

    pub(crate) fn waves(&self) -> i32 {
        self.waves
    }

    pub(crate) fn has_groups(&self) -> bool {
        self.has_groups
    }

    pub(crate) fn into_requests(self) -> Vec<Request> {
        self.requests
    }

    /// The outcome of the only request.
    pub(crate) fn outcome_of_one(self, fates: &[Fate]) -> Result<Vec<Appended>, AppendError> {
        match self.outcomes(fates).pop() {
            Some(Outcome::Answer(answer)) => answer,
            _ => unreachable!("a request that is alone has joined no entry"),
        }
    }

    /// What becomes of each request, given the fates of the entries.
    pub(crate) fn outcomes(&self, fates: &[Fate]) -> Vec<Outcome> {
        let mut found: Vec<Vec<Option<Found>>> =
            self.requests.iter().map(|request| vec![None; request.appends.len()]).collect();
        for (entry, fate) in self.entries.iter().zip(fates) {
            match *fate {
                Fate::Written { mut version, mut position } => {
                    for (member, (request, append)) in self.members(entry).zip(&entry.members) {
                        let events = member.append.events.len() as u64;
                        version = Version::new(version.get() + events);
                        position = Position::new(position.get() + events);
                        let appended = Appended { version, position, repeated: false };
                        found[*request][*append] = Some(Found::Written(appended));
                    }
                }
                Fate::Failed(failed) => self.judge(entry, failed, &mut found),
            }
        }
        self.requests.iter().zip(found).map(|(request, found)| request.outcome(found)).collect()
    }

    /// Tells what is known of the appends of an entry that was not written. Of several only the first was
    /// looked at. If its stream is not as it expected, then the event behind which the next one goes was not
    /// written either, and so on; whatever else there is must be looked at by itself.
    fn judge(&self, entry: &Entry, failed: Failed, found: &mut [Vec<Option<Found>>]) {
        let follows = |member: &&Prepared| member.remembered.is_none() && member.append.expected.last().is_some();
        let known = match entry.members.len() {
            1 => 1,
            _ if failed.status == Failed::CONFLICT => 1 + self.members(entry).skip(1).take_while(follows).count(),
            _ => 0,
        };
        for (request, append) in &entry.members[..known] {
            found[*request][*append] = Some(Found::Failed(failed));
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Found {
    Written(Appended),
    Failed(Failed),
}

impl Request {
    fn outcome(&self, found: Vec<Option<Found>>) -> Outcome {
        let Some(found) = found.into_iter().collect::<Option<Vec<_>>>() else { return Outcome::Again };
        if let Some(written) = found.iter().map(Found::written).collect::<Option<Vec<_>>>() {
            return Outcome::Answer(Ok(written));
        }
        let verdicts = self.appends.iter().zip(found).map(|(prepared, found)| match found {
            // (Of appends that were to be made together none is written if one is not.)
            Found::Written(_) => (&prepared.append, Verdict::Possible),
            Found::Failed(failed) => (&prepared.append, prepared.verdict(failed)),
        });
        match Verdict::of_all(verdicts) {
            Ok(repeated) => Outcome::Answer(Ok(repeated.unwrap_or_default())),
            Err(error) => Outcome::Answer(Err(error)),
        }
    }
}

impl Found {
    fn written(&self) -> Option<Appended> {
        match self {
            Self::Written(appended) => Some(*appended),
            Self::Failed(_) => None,
        }
    }
}
