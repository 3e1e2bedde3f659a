//! What a reader does with events otherwise than to handle them as the log has them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use bytes::Bytes;

use super::shards::Shard;
use crate::{counted::counted, stream::Position};

/// What a reader does with one event for one key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Treatment<'a> {
    /// It handles the event as the log has it.
    Handle,
    /// It does not handle the event, and goes on with the next one of the key.
    LeaveOut,
    /// It handles the event with this payload.
    Instead(&'a Bytes),
    /// It handles neither this event nor a later one of the key for now: the key is parked, or the reader has stopped.
    Wait,
}

impl fmt::Debug for Treatment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A payload may hold personal data.
        match self {
            Self::Handle => f.write_str("Handle"),
            Self::LeaveOut => f.write_str("LeaveOut"),
            Self::Instead(payload) => write!(f, "Instead({})", counted(payload.len(), "byte")),
            Self::Wait => f.write_str("Wait"),
        }
    }
}

/// An event that a reader takes otherwise than the log has it, since an operator has decided so: it was skipped, or its dead letter
/// was discarded or edited.
#[derive(Clone, PartialEq, Eq)]
pub struct Amendment {
    /// The position of the event.
    pub position: Position,
    /// For what it holds.
    pub extent: Extent,
    /// The payload that is handled; `None`: the event is left out.
    pub payload: Option<Bytes>,
}

/// For what an [`Amendment`] holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// One key: its dead letter was discarded or edited.
    Key(String),
    /// All keys of a shard: the event was skipped there.
    Shard(Shard),
}

impl fmt::Debug for Amendment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, extent, payload } = self;
        write!(f, "{extent:?} at {position}: {:?}", payload.as_ref().map_or(Treatment::LeaveOut, Treatment::Instead))
    }
}

/// What a reader does with events otherwise than to handle them as the log has them, at one moment: its dead letters, the events at
/// which it has stopped, and what operators have decided about these (R22).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// Each parked key, with the position of its first letter.
    parked: HashMap<String, Position>,
    stopped: Vec<(Shard, Position)>,
    amended: BTreeMap<Position, Vec<Amendment>>,
}

impl Exceptions {
    /// Notes that `key` is parked, and that its first letter has this `position`.
    pub fn park(&mut self, key: impl Into<String>, position: Position) {
        self.parked.insert(key.into(), position);
    }

    /// Notes that the reader has stopped in `shard` at the event at `position`.
    pub fn stop(&mut self, shard: Shard, position: Position) {
        self.stopped.push((shard, position));
    }

    /// Notes what an operator has decided.
    pub fn amend(&mut self, amendment: Amendment) {
        self.amended.entry(amendment.position).or_default().push(amendment);
    }

    /// What the reader does with the event at `position` for `key`, if the event touches that.
    pub fn of(&self, key: &str, position: Position) -> Treatment<'_> {
        let is_past = |first: &Position| position >= *first;
        if self.parked.get(key).is_some_and(is_past) {
            return Treatment::Wait;
        }
        let holds = |amendment: &&Amendment| match &amendment.extent {
            Extent::Key(named) => named == key,
            Extent::Shard(shard) => shard.slice().holds(key),
        };
        if let Some(amendment) = self.amended.get(&position).and_then(|amended| amended.iter().find(holds)) {
            return amendment.payload.as_ref().map_or(Treatment::LeaveOut, Treatment::Instead);
        }
        if self.stopped.iter().any(|(shard, first)| is_past(first) && shard.slice().holds(key)) {
            return Treatment::Wait;
        }
        Treatment::Handle
    }

    /// Whether the event at `position` was skipped, or the reader has stopped there, in some shard. If it cannot be decoded, no
    /// shard has handled it, and none needs its keys.
    pub fn is_passed_over(&self, position: Position) -> bool {
        let is_skipped = |amendment: &Amendment| matches!(amendment.extent, Extent::Shard(_));
        self.amended.get(&position).is_some_and(|amended| amended.iter().any(is_skipped))
            || self.stopped.iter().any(|(_, first)| *first == position)
    }

    /// The parked keys.
    pub fn parked(&self) -> impl Iterator<Item = &String> {
        self.parked.keys()
    }

    /// What operators have decided, in the order of the positions.
    pub fn amendments(&self) -> impl Iterator<Item = &Amendment> {
        self.amended.values().flatten()
    }

    /// The same without what concerns the events at `positions`: a key that is parked from one of them, a stop at one of them, and
    /// what was decided about them.
    pub(crate) fn without(&self, positions: impl Fn(Position) -> bool) -> Self {
        let mut rest = self.clone();
        rest.parked.retain(|_, first| !positions(*first));
        rest.stopped.retain(|(_, first)| !positions(*first));
        rest.amended.retain(|position, _| !positions(*position));
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Treatment::{Handle, Instead, LeaveOut},
        *,
    };

    fn left_out(position: u64, extent: Extent) -> Amendment {
        Amendment { position: Position::new(position), extent, payload: None }
    }

    #[test]
    fn the_parked_keys_are_told() {
        let mut exceptions = Exceptions::default();
        exceptions.park("a", Position::new(3));
        assert!(exceptions.parked().eq(["a"]));
    }

    #[test]
    fn r22_an_amendment_holds_for_its_key_or_its_shard_alone() {
        let shards = Shard::split("log", 2);
        let (mine, other) =
            if shards[0].slice().holds("a") { (&shards[0], &shards[1]) } else { (&shards[1], &shards[0]) };
        let payload = Bytes::from_static(b"{}");
        let mut exceptions = Exceptions::default();
        exceptions.amend(left_out(3, Extent::Shard(mine.clone())));
        exceptions.amend(left_out(4, Extent::Shard(other.clone())));
        exceptions.amend(left_out(5, Extent::Shard(Shard::whole("log"))));
        exceptions.amend(Amendment {
            position: Position::new(6),
            extent: Extent::Key("a".into()),
            payload: Some(payload.clone()),
        });
        let treated = (1..=7).map(|position| exceptions.of("a", Position::new(position)));
        assert!(treated.eq([Handle, Handle, LeaveOut, Handle, LeaveOut, Instead(&payload), Handle]));
        assert_eq!(exceptions.of("b", Position::new(6)), Handle);
        let passed = (1..=7).filter(|position| exceptions.is_passed_over(Position::new(*position)));
        assert!(passed.eq([3, 4, 5]), "an edited event is handled");
        let rest = exceptions.without(|position| position.get() == 5);
        assert_eq!((rest.of("a", Position::new(5)), rest.amendments().count()), (Handle, 3));
    }

    #[test]
    fn r19_a_parked_key_waits_from_its_first_letter_on() {
        let mut exceptions = Exceptions::default();
        exceptions.park("a", Position::new(3));
        exceptions.stop(Shard::whole("log"), Position::new(9));
        let waits = |key, position| exceptions.of(key, Position::new(position)) == Treatment::Wait;
        assert_eq!([2, 3, 8].map(|position| waits("a", position)), [false, true, true]);
        assert_eq!([3, 8, 9, 10].map(|position| waits("b", position)), [false, false, true, true]);
        assert!(exceptions.is_passed_over(Position::new(9)) && !exceptions.is_passed_over(Position::new(3)));
        let rest = exceptions.without(|position| position.get() == 3);
        assert_eq!(
            (rest.of("a", Position::new(3)), rest.of("a", Position::new(9))),
            (Treatment::Handle, Treatment::Wait)
        );
    }
}
