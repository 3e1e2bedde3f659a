//! What goes into one statement together, and in which order it means what its appends mean one after the
//! other.

use std::collections::{HashMap, HashSet};

use es_core::{
    Append, AppendError, Appended, EventQuery, Expected, Position, StreamId, Tag, Version,
    backend::{Ending, Verdict},
    write::rooms::LARGE_BYTES,
};

use uuid::Uuid;

use crate::write::append::{Failed, Fate, Prepared};

/// The most entries of one batch on the same stream: each costs the statement a pass over the batch.
const MOST_WAVES: i32 = 16;

/// The server stores an event of more than some 2 kB apart from its row.
const STORED_APART_BYTES: usize = 2_300;

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

    /// Whether the others should not wait for it.
    pub(crate) fn is_large(&self) -> bool {
        self.bytes() > LARGE_BYTES
    }

    /// The queries of its conditions.
    fn queries(&self) -> impl Iterator<Item = &EventQuery> {
        self.appends.iter().flat_map(|prepared| prepared.append.condition_parts()).map(|part| &part.query)
    }

    /// The tags that its conditions are about.
    fn asked(&self) -> impl Iterator<Item = &Tag> {
        self.queries().flat_map(EventQuery::items).flat_map(|item| &item.tags)
    }

    /// Whether its conditions are about events of any tags.
    fn asks_all(&self) -> bool {
        self.queries().any(|query| !query.is_tagged())
    }

    /// What it is remembered by.
    fn remembered(&self) -> impl Iterator<Item = Uuid> {
        self.appends.iter().filter_map(|prepared| prepared.remembered).map(|remembered| remembered.id)
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = &StreamId> + Clone {
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
    /// The wave in which each command is remembered.
    last_commands: HashMap<Uuid, i32>,
    /// The tags that its conditions are about.
    asked: HashSet<Tag>,
    /// Whether a condition is about events of any tags.
    asked_all: bool,
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
            self.note(&request, self.entries[entry].wave);
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
        self.note(&request, wave);
        self.waves = self.waves.max(wave);
        self.has_groups |= request.appends.len() > 1;
        self.requests.push(request);
        Ok(())
    }

    /// The entry that `request` continues: if that is written, so is this.
    fn entry_to_join(&self, request: &Request) -> Option<usize> {
        let [prepared] = &request.appends[..] else { return None };
        if request.apart || self.asked_all || prepared.append.condition.is_some() {
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
        let known = self.expected(entry).version();
        let behind = known.map(|version| Version::new(version.get() + entry.events as u64));
        let fits = match prepared.append.expected {
            Expected::Any | Expected::StreamExists => behind.is_none(),
            Expected::NoStream => false,
            Expected::Exact(version) => behind == Some(version),
            // One that has a time was read in the log: if the event before is the same, it is sent again, and about to be
            // written at another time.
            Expected::Last { version, last: Ending { event_id, recorded_at } } => {
                behind == Some(version)
                    && recorded_at.is_none()
                    && before.append.events.last().map(|event| event.id) == Some(event_id)
            }
        };
        // The same command twice: the second one returns the outcome of the first.
        let again = || {
            let id = prepared.remembered.map(|remembered| remembered.id);
            id.is_some() && self.members(entry).any(|member| member.remembered.map(|remembered| remembered.id) == id)
        };
        (fits && !again()).then_some(index)
    }

    /// The first wave in which `request` finds everything that came before it and concerns it: what is in its streams,
    /// what its conditions are about, and its own command, which may be a decision's and go to any stream.
    fn wave_for(&self, request: &Request) -> i32 {
        if request.asks_all() {
            return 1 + self.waves;
        }
        let streams = request.streams().filter_map(|stream| self.last_entries.get(stream));
        let streams = streams.map(|entry| self.entries[*entry].wave);
        let tags = request.asked().filter_map(|tag| self.last_waves.get(tag)).copied();
        let commands = request.remembered().filter_map(|id| self.last_commands.get(&id)).copied();
        1 + streams.chain(tags).chain(commands).max().unwrap_or(0)
    }

    fn note(&mut self, request: &Request, wave: i32) {
        self.asked.extend(request.asked().cloned());
        self.asked_all |= request.asks_all();
        self.last_commands.extend(request.remembered().map(|id| (id, wave)));
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

    /// The append with which `entry` begins.
    fn first(&self, entry: &Entry) -> &Append {
        let (request, append) = entry.members[0];
        &self.requests[request].appends[append].append
    }

    /// Where `entry` goes.
    pub(crate) fn stream(&self, entry: &Entry) -> &StreamId {
        &self.first(entry).stream
    }

    /// What its stream must be like.
    pub(crate) fn expected(&self, entry: &Entry) -> Expected {
        self.first(entry).expected
    }

    /// Its first event.
    pub(crate) fn first_event(&self, entry: &Entry) -> Uuid {
        self.first(entry).events[0].id
    }

    /// Its last event.
    pub(crate) fn last_event(&self, entry: &Entry) -> Uuid {
        let events = self.members(entry).flat_map(|member| &member.append.events);
        events.last().map(|event| event.id).unwrap_or_default()
    }

    /// The append and the version after which it goes, if there is no more to the batch than its one event.
    pub(crate) fn lone_event(&self) -> Option<(&Prepared, Version)> {
        let [Request { appends, .. }] = &self.requests[..] else { return None };
        let [prepared @ Prepared { remembered: None, .. }] = &appends[..] else { return None };
        let Append { expected, events, condition: None, .. } = &prepared.append else { return None };
        let version = expected.version()?;
        matches!(&events[..], [event] if event.tags.is_empty()).then_some((prepared, version))
    }

    /// Whether `append_all()` can write it: no entry builds on another one, and no condition reads the log.
    pub(crate) fn is_plain(&self) -> bool {
        self.waves == 1 && !self.asked_all
    }

    /// How many events were written.
    pub(crate) fn events_written(&self, fates: &[Fate]) -> usize {
        let written = self.entries.iter().zip(fates).filter(|(_, fate)| matches!(fate, Fate::Written { .. }));
        written.map(|(entry, _)| entry.events).sum()
    }

    /// Whether there is no more to it than one large request whose events are mostly so large that the server stores them
    /// apart from their rows: then these can be written before the append lock is taken, and get their numbers under it.
    pub(crate) fn has_large_events(&self) -> bool {
        let [request] = &self.requests[..] else { return false };
        let events: usize = self.entries.iter().map(|entry| entry.events).sum();
        request.is_large() && request.bytes() / events.max(1) >= STORED_APART_BYTES
    }

    /// Whether something in it goes to `stream`.
    pub(crate) fn writes_to(&self, stream: &StreamId) -> bool {
        self.last_entries.contains_key(stream)
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
        // Of all appends, request by request.
        let mut starts = Vec::with_capacity(self.requests.len());
        let mut appends = 0;
        for request in &self.requests {
            starts.push(appends);
            appends += request.appends.len();
        }
        let mut found = vec![None; appends];
        for (entry, fate) in self.entries.iter().zip(fates) {
            match *fate {
                Fate::Written { mut version, mut position } => {
                    for (member, (request, append)) in self.members(entry).zip(&entry.members) {
                        let events = member.append.events.len() as u64;
                        version = Version::new(version.get() + events);
                        position = Position::new(position.get() + events);
                        let appended = Appended { version, position, repeated: false };
                        found[starts[*request] + append] = Some(Found::Written(appended));
                    }
                }
                Fate::Failed(failed) => {
                    for (request, append) in &entry.members[..self.known(entry, failed)] {
                        found[starts[*request] + append] = Some(Found::Failed(failed));
                    }
                }
            }
        }
        let outcome =
            |(request, start): (&Request, usize)| request.outcome(&found[start..start + request.appends.len()]);
        self.requests.iter().zip(starts).map(outcome).collect()
    }

    /// Of how many of its appends it is known what becomes of them, if `entry` was not written. Of several only the
    /// first was looked at. If its stream is not as it expected, then the event behind which the next one goes was not
    /// written either, and so on; whatever else there is must be looked at by itself.
    fn known(&self, entry: &Entry, failed: Failed) -> usize {
        let follows = |member: &&Prepared| member.remembered.is_none() && member.append.expected.last().is_some();
        match entry.members.len() {
            1 => 1,
            _ if failed.status == Failed::CONFLICT => 1 + self.members(entry).skip(1).take_while(follows).count(),
            _ => 0,
        }
    }
}

/// What is known of an append after its batch.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Found {
    Written(Appended),
    Failed(Failed),
}

impl Request {
    /// What becomes of it, given what was found of each of its appends.
    fn outcome(&self, found: &[Option<Found>]) -> Outcome {
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
