//! What goes into one statement together, and in which order it means what its appends mean one after the
//! other.

use std::collections::{HashMap, HashSet};

use es_core::{Append, Expected, StreamId, Tag, Version, backend::Ending};
use uuid::Uuid;

use crate::write::{
    append::Prepared,
    entry::{Entry, Slot},
    request::Request,
};

/// The most entries of one batch on the same stream: each costs the statement a pass over the batch.
const MOST_WAVES: i32 = 16;

/// The server stores an event of more than some 2 kB apart from its row.
const STORED_APART_BYTES: usize = 2_300;

/// Requests that go into one statement, in the order in which they arrived.
#[derive(Default)]
pub(crate) struct Batch {
    requests: Vec<Request>,
    slots: Vec<Slot>,
    /// The last entry of each stream.
    last_slots: HashMap<StreamId, usize>,
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
        if let Some(slot) = self.slot_to_join(&request) {
            let slot = &mut self.slots[slot];
            slot.members.push((index, 0));
            slot.events += request.appends[0].append.events.len();
            let wave = slot.wave;
            self.note(&request, wave);
            self.requests.push(request);
            return Ok(());
        }
        let wave = self.wave_for(&request);
        if wave > MOST_WAVES {
            return Err(request);
        }
        for (number, Prepared { append, .. }) in request.appends.iter().enumerate() {
            self.last_slots.insert(append.stream.clone(), self.slots.len());
            let group = i32::try_from(index).unwrap_or(i32::MAX);
            self.slots.push(Slot { members: vec![(index, number)], events: append.events.len(), wave, group });
        }
        self.note(&request, wave);
        self.waves = self.waves.max(wave);
        self.has_groups |= request.appends.len() > 1;
        self.requests.push(request);
        Ok(())
    }

    /// The entry that `request` continues: if that is written, so is this.
    fn slot_to_join(&self, request: &Request) -> Option<usize> {
        let [prepared] = &request.appends[..] else { return None };
        if request.apart || self.asked_all || prepared.append.condition.is_some() {
            return None;
        }
        // The entry may stand before a condition that has not seen this: it must come after that.
        if request.tags().any(|tag| self.asked.contains(tag)) {
            return None;
        }
        let index = *self.last_slots.get(&prepared.append.stream)?;
        let entry = self.entry(&self.slots[index]);
        let &(last, _) = entry.slot.members.last()?;
        let last = &self.requests[last];
        let [before] = &last.appends[..] else { return None };
        if last.apart || before.append.condition.is_some() {
            return None;
        }
        let end = entry.expected().version().map(|version| Version::new(version.get() + entry.events() as u64));
        let fits = match prepared.append.expected {
            Expected::Any | Expected::StreamExists => end.is_none(),
            Expected::NoStream => false,
            Expected::Exact(version) => end == Some(version),
            // One that has a time was read in the log: if the event before is the same, it is sent again, and about to be
            // written at another time.
            Expected::Last { version, last: Ending { event_id, recorded_at } } => {
                end == Some(version)
                    && recorded_at.is_none()
                    && before.append.events.last().map(|event| event.id) == Some(event_id)
            }
        };
        // The same command twice: the second one returns the outcome of the first.
        let again = || {
            let id = prepared.remembered.map(|remembered| remembered.id);
            id.is_some() && entry.members().any(|member| member.remembered.map(|remembered| remembered.id) == id)
        };
        (fits && !again()).then_some(index)
    }

    /// The first wave in which `request` finds everything that came before it and concerns it: what is in its streams,
    /// what its conditions are about, and its own command, which may be a decision's and go to any stream.
    fn wave_for(&self, request: &Request) -> i32 {
        if request.asks_all() {
            return 1 + self.waves;
        }
        let streams = request.streams().filter_map(|stream| self.last_slots.get(stream));
        let streams = streams.map(|slot| self.slots[*slot].wave);
        let tags = request.asked().filter_map(|tag| self.last_waves.get(tag)).copied();
        let commands = request.remembered().filter_map(|id| self.last_commands.get(&id)).copied();
        1 + streams.chain(tags).chain(commands).max().unwrap_or(0)
    }

    fn note(&mut self, request: &Request, wave: i32) {
        self.asked.extend(request.asked().cloned());
        self.asked_all |= request.asks_all();
        self.last_commands.extend(request.remembered().map(|id| (id, wave)));
        for tag in request.tags() {
            let last = self.last_waves.entry(tag.clone()).or_default();
            *last = wave.max(*last);
        }
    }

    fn entry<'a>(&'a self, slot: &'a Slot) -> Entry<'a> {
        Entry { slot, requests: &self.requests }
    }

    pub(crate) fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        self.slots.iter().map(|slot| self.entry(slot))
    }

    pub(crate) fn requests(&self) -> &[Request] {
        &self.requests
    }

    pub(crate) fn appends(&self) -> impl Iterator<Item = &Append> {
        self.requests.iter().flat_map(|request| &request.appends).map(|prepared| &prepared.append)
    }

    pub(crate) fn into_requests(self) -> Vec<Request> {
        self.requests
    }

    /// The append, if its one event is all there is to the batch.
    pub(crate) fn lone_event(&self) -> Option<&Prepared> {
        let [Request { appends, .. }] = &self.requests[..] else { return None };
        let [prepared @ Prepared { remembered: None, append, .. }] = &appends[..] else { return None };
        let Append { events, condition: None, .. } = append else { return None };
        matches!(&events[..], [event] if event.tags.is_empty()).then_some(prepared)
    }

    /// Whether no entry builds on another one, and no condition reads the log.
    pub(crate) fn is_plain(&self) -> bool {
        self.waves == 1 && !self.asked_all
    }

    /// Whether there is no more to it than one large request whose events are mostly so large that the server stores them
    /// apart from their rows: then these can be written before the append lock is taken, and get their numbers under it.
    pub(crate) fn has_large_events(&self) -> bool {
        let [request] = &self.requests[..] else { return false };
        let events: usize = self.slots.iter().map(|slot| slot.events).sum();
        request.is_large() && request.bytes() / events.max(1) >= STORED_APART_BYTES
    }

    /// Whether something in it goes to `stream`.
    pub(crate) fn writes_to(&self, stream: &StreamId) -> bool {
        self.last_slots.contains_key(stream)
    }

    pub(crate) fn waves(&self) -> i32 {
        self.waves
    }

    pub(crate) fn has_groups(&self) -> bool {
        self.has_groups
    }
}
