//! Drafts: appends of the plan, before the state on which they are decided is known.

use fastrand::Rng;

use super::{sent::Flaw, size::Size};

/// The expected version of an append, relative to what the client knows of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The version that the client knows, which may be out of date.
    Known,
    /// The last event that the client knows, which may be out of date; or the version, if it knows no event.
    Last,
    /// The version that the client knows, and an event that was never appended.
    Strange,
    /// This many versions before the known one.
    Stale(u64),
    /// This many versions after the known one.
    Ahead(u64),
    /// [`Expected::NoStream`](es_core::Expected::NoStream).
    NoStream,
    /// [`Expected::Any`](es_core::Expected::Any).
    Any,
    /// [`Expected::StreamExists`](es_core::Expected::StreamExists).
    StreamExists,
}

/// An append of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The stream.
    pub stream: u32,
    /// The version that it expects there.
    pub expect: Expect,
    /// The bytes of padding of each event.
    pub events: Vec<usize>,
    /// The tags of the events.
    pub tags: Vec<u32>,
    /// The idempotency key, and the content for which it is used.
    pub key: Option<(u32, u32)>,
    /// The condition: queries that no later event may match, each with a position of its own.
    pub conditions: Vec<Look>,
    /// The flaw that makes it invalid, if any.
    pub flaw: Option<Flaw>,
}

/// A query, and the position after which it applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The tags of each item, and whether the item matches decisions only.
    pub items: Vec<(Vec<u32>, bool)>,
    /// The distance before the last position that the client knows; `None` is the beginning of the log.
    pub back: Option<u64>,
}

/// Tags that all clients use all the time.
const HOT_TAGS: u32 = 3;

/// One more than the most appends that are made together.
const MOST_TOGETHER: usize = 5;

/// One more than the most appends that are sent at once.
const MOST_LINKS: usize = 12;

impl Draft {
    pub(super) fn random(rng: &mut Rng, size: &Size, number: u32) -> Self {
        let expect = match rng.u32(0..40) {
            0..10 => Expect::Known,
            10..16 => Expect::Last,
            16 => Expect::Strange,
            17..19 => Expect::Stale(rng.u64(1..4)),
            19..21 => Expect::Ahead(rng.u64(1..4)),
            21..25 => Expect::NoStream,
            25..36 => Expect::Any,
            _ => Expect::StreamExists,
        };
        let events = match rng.u32(0..30) {
            0 => rng.usize(20..120),
            1..8 => rng.usize(2..8),
            _ => 1,
        };
        let events = (0..events).map(|_| padding(rng, events)).collect();
        // Few keys at a time, so that clients use the same ones; sometimes for another content.
        let key = (rng.u32(0..3) == 0).then(|| (key(rng, number), u32::from(rng.u32(0..8) == 0)));
        let conditions = if rng.u32(0..4) == 0 { rng.usize(0..5) / 3 + 1 } else { 0 };
        let conditions: Vec<_> = (0..conditions).map(|_| Look::random(rng, number)).collect();
        // Most appends that depend on a query also match it, so they change what other clients find.
        let tags = match conditions.first() {
            Some(look) if rng.u32(0..4) > 0 => look.items[0].0.clone(),
            _ if rng.u32(0..4) == 0 => tags(rng, number),
            _ => Vec::new(),
        };
        Self { stream: stream(rng, size, number), expect, events, tags, key, conditions, flaw: None }
    }

    fn small(rng: &mut Rng, size: &Size, number: u32) -> Self {
        let events = vec![8; rng.usize(1..4)];
        Self { events, ..Self::random(rng, size, number) }
    }
}

impl Look {
    pub(super) fn random(rng: &mut Rng, number: u32) -> Self {
        // Sometimes all events, or all decisions, with any tags.
        let about = |rng: &mut Rng| if rng.u32(0..16) == 0 { Vec::new() } else { tags(rng, number) };
        let items = (0..=rng.usize(0..8) / 6).map(|_| (about(rng), rng.u32(0..5) == 0)).collect();
        let back = match rng.u32(0..8) {
            0..5 => Some(0),
            5..7 => Some(rng.u64(1..40)),
            _ => None,
        };
        Self { items, back }
    }
}

/// Appends that are made together. Half of the groups are likely to succeed, so that groups are written at all.
pub(super) fn together(rng: &mut Rng, size: &Size, number: u32) -> Vec<Draft> {
    let mut drafts: Vec<Draft> = Vec::new();
    let easy = rng.bool();
    for _ in 0..rng.usize(2..MOST_TOGETHER) {
        let mut draft = Draft::small(rng, size, number);
        while drafts.iter().any(|other| other.stream == draft.stream) {
            draft.stream = if rng.bool() { stream(rng, size, number) } else { draft.stream + 1 };
        }
        if easy {
            let key = draft.key.filter(|_| rng.bool());
            draft = Draft { expect: Expect::Any, key, conditions: Vec::new(), ..draft };
        }
        drafts.push(draft);
    }
    // One append at a random place that may make all others fail.
    if easy && rng.bool() {
        let (one, expect) = (rng.usize(0..drafts.len()), Draft::random(rng, size, number).expect);
        drafts[one].expect = expect;
    }
    drafts
}

/// Appends to one stream. Few of them have a command or a condition, since those are written alone.
pub(super) fn chain(rng: &mut Rng, size: &Size, number: u32) -> Vec<Draft> {
    let stream = stream(rng, size, number);
    let link = |rng: &mut Rng| {
        let draft = Draft::small(rng, size, number);
        let is_plain = rng.u32(0..8) > 0;
        if is_plain {
            return Draft { stream, expect: Expect::Last, key: None, conditions: Vec::new(), ..draft };
        }
        Draft { stream, expect: Expect::Last, ..draft }
    };
    (0..rng.usize(2..MOST_LINKS)).map(|_| link(rng)).collect()
}

/// Appends with few streams, few tags, and conditions on these: a store that writes them in one batch must get the same
/// result as one that writes them one after the other.
pub(super) fn crowd(rng: &mut Rng, size: &Size, number: u32) -> Vec<Draft> {
    let streams = [stream(rng, size, number), stream(rng, size, number), stream(rng, size, number)];
    let tag = tags(rng, number)[0];
    let one = |rng: &mut Rng| {
        let decides = rng.u32(0..3) == 0;
        let look = Look { items: vec![(vec![tag], false)], back: Some(0) };
        Draft {
            stream: *rng.choice(&streams).expect("not empty"),
            expect: if rng.u32(0..4) == 0 { Expect::Last } else { Expect::Any },
            tags: if rng.bool() { vec![tag] } else { Vec::new() },
            key: None,
            conditions: decides.then_some(look).into_iter().collect(),
            ..Draft::small(rng, size, number)
        }
    };
    (0..rng.usize(3..MOST_LINKS)).map(|_| one(rng)).collect()
}

/// One invalid append, sometimes among valid ones.
pub(super) fn flawed(rng: &mut Rng, size: &Size, number: u32) -> Vec<Draft> {
    let flaw = if size.refuses && rng.bool() { Flaw::Refused } else { rng.choice(Flaw::INVALID).expect("not empty") };
    let mut drafts = if rng.u32(0..4) == 0 {
        let drafts = together(rng, size, number);
        drafts
            .into_iter()
            .map(|draft| Draft { expect: Expect::Any, key: None, conditions: Vec::new(), ..draft })
            .collect()
    } else {
        let draft = Draft::small(rng, size, number);
        vec![Draft { expect: Expect::Any, key: None, conditions: Vec::new(), ..draft }]
    };
    let (one, other) = (rng.usize(0..drafts.len()), drafts[0].stream);
    let bad = &mut drafts[one];
    bad.flaw = Some(flaw);
    if one > 0 && rng.u32(0..4) == 0 {
        bad.flaw = Some(Flaw::SameStream);
        bad.stream = other;
    } else if flaw == Flaw::Empty {
        bad.events.clear();
    }
    drafts
}

fn padding(rng: &mut Rng, events: usize) -> usize {
    match rng.u32(0..100) {
        0 if events < 8 => rng.usize(50_000..300_000),
        1..6 if events < 8 => rng.usize(1_000..20_000),
        _ => rng.usize(0..200),
    }
}

/// A hot stream, or the cold one that all clients use at about this time.
pub(super) fn stream(rng: &mut Rng, size: &Size, number: u32) -> u32 {
    if size.hot_streams > 0 && rng.u32(0..10) < 6 {
        rng.u32(0..size.hot_streams)
    } else {
        size.hot_streams + number / 4 + rng.u32(0..4)
    }
}

pub(super) fn key(rng: &mut Rng, number: u32) -> u32 {
    number / 8 + rng.u32(0..3)
}

/// One tag or two: a hot one, or the cold one that all clients use at about this time.
fn tags(rng: &mut Rng, number: u32) -> Vec<u32> {
    let one = |rng: &mut Rng| if rng.bool() { rng.u32(0..HOT_TAGS) } else { HOT_TAGS + number / 4 + rng.u32(0..2) };
    (0..=rng.usize(0..4) / 3).map(|_| one(rng)).collect()
}
