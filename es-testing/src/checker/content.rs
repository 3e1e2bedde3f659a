//! The content of an append: a pure function of its place in the plan, so that another process can send it again.

use bytes::Bytes;
use uuid::Uuid;

use super::{
    draft::{Draft, Look},
    history::Seen,
    operation::Operation,
    plan::{Plan, mixed},
    query::{About, Given, Item, Query, tag},
    sent::{Expectation, Flaw, Key, Sent, Written},
};
use es_core::{
    Append, Condition, EventData, Expected, IdempotencyKey, Metadata, NewEvent, RecordedEvent,
    backend::{CommandKey, Fingerprint, MAX_METADATA_BYTES, MAX_PAYLOAD_BYTES},
};

/// The name of the events that the store refuses by a constraint of its own, if the plan says so.
pub const REFUSED_NAME: &str = "checker.refused";

const HAPPENED: &str = "checker.happened";
const DECIDED: &str = "checker.decided";

/// The most events of an append of the plan, so that the ids of all drafts of an operation differ.
const MOST_EVENTS: u64 = 1_000;

/// A place in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) actor: u32,
    pub(super) number: u32,
    /// The number among the appends that are sent at once, else 0.
    pub(super) link: usize,
}

/// The state on which an append was decided. It stays the same when the append is sent again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Basis {
    pub(super) expected: Expectation,
    /// The position of each query of its condition.
    pub(super) afters: Vec<u64>,
}

impl Basis {
    pub(super) fn of(sent: &Sent) -> Self {
        Self { expected: sent.expected, afters: sent.conditions.iter().map(|given| given.after).collect() }
    }
}

/// The drafts of an append: one, or several that are made together; none if the operation is no append.
pub(super) fn drafts(plan: &Plan, origin: Origin) -> &[Draft] {
    let operation = plan.clients.get(origin.actor as usize).and_then(|all| all.get(origin.number as usize));
    match operation {
        Some(Operation::Append { drafts, .. }) => drafts,
        Some(Operation::AtOnce { links, .. }) => links.get(origin.link..=origin.link).unwrap_or_default(),
        _ => &[],
    }
}

/// The appends of a place in the plan, and their form in the history.
pub(super) fn appends(plan: &Plan, origin: Origin, bases: &[Basis]) -> Vec<(Append, Sent)> {
    let drafts = (origin.link..).zip(drafts(plan, origin));
    drafts.zip(bases).map(|((place, draft), basis)| append(plan, origin, place, draft, basis)).collect()
}

/// The id of no event.
pub(super) fn strange_id(plan: &Plan, origin: Origin) -> Uuid {
    id(!plan.seed, origin, 0, 0)
}

fn append(plan: &Plan, origin: Origin, place: usize, draft: &Draft, basis: &Basis) -> (Append, Sent) {
    let Draft { stream, events, tags, key, conditions, flaw, .. } = draft;
    let stream = plan.stream(*stream);
    let tags: Vec<String> = tags.iter().map(|tag| tag_name(*tag)).collect();
    let mut events: Vec<NewEvent> = events
        .iter()
        .enumerate()
        .map(|(index, padding)| {
            event(id(plan.seed, origin, place, index), origin, index, *padding)
                .with_tags(tags.iter().map(|name| tag(name)))
        })
        .collect();
    let mut expectation = basis.expected;
    let given = |(look, after): (&Look, &u64)| Given { query: query(look), after: *after };
    let mut conditions: Vec<_> = conditions.iter().zip(&basis.afters).map(given).collect();
    if let (Some(flaw), Some(last)) = (*flaw, events.last_mut()) {
        spoil(last, flaw);
        match flaw {
            Flaw::Overflow => expectation = Expectation::Exact(u64::MAX),
            Flaw::Query => conditions = vec![Given { query: Query { items: Vec::new() }, after: 0 }],
            _ => {}
        }
    }
    let key = key.map(|(key, content)| Key { key: key_name(key), content: format!("content {content}") });
    let about = |event: &NewEvent| About { name: event.data.name.to_string(), tags: tags.clone() };
    let written = |event: &NewEvent| Written {
        id: event.id,
        content: digest(&event.data, &event.metadata),
        about: Some(about(event)),
    };
    let sent = Sent {
        stream: stream.clone(),
        expected: expectation,
        events: events.iter().map(written).collect(),
        key: key.clone(),
        conditions: conditions.clone(),
        flaw: *flaw,
    };
    let command =
        key.map(|key| CommandKey::new(IdempotencyKey::new(key.key).expect("a valid key"), fingerprint(&key.content)));
    let condition = Condition::all_of(conditions.iter().map(Into::into).collect());
    (Append { command, condition, ..Append::new(stream, Expected::from(expectation), events) }, sent)
}

/// The query of a client.
pub(super) fn query(look: &Look) -> Query {
    let item = |(tags, decided): &(Vec<u32>, bool)| Item {
        tags: tags.iter().map(|tag| tag_name(*tag)).collect(),
        names: decided.then(|| DECIDED.to_owned()).into_iter().collect(),
    };
    Query { items: look.items.iter().map(item).collect() }
}

fn tag_name(tag: u32) -> String {
    format!("tag:{tag}")
}

/// The text of an idempotency key.
pub(super) fn key_name(key: u32) -> String {
    format!("key-{key}")
}

/// The fingerprint of a command's content.
pub(super) fn fingerprint(content: &str) -> Fingerprint {
    Fingerprint::of(content.as_bytes())
}

/// The form in which the history keeps an event that was read.
pub(super) fn seen(event: &RecordedEvent) -> Seen {
    Seen {
        position: event.position.get(),
        stream: event.stream.clone(),
        version: event.version.get(),
        id: event.id,
        content: digest(&event.data, &event.metadata),
    }
}

/// The id of the event with this index in the draft at this place of an operation.
fn id(seed: u64, origin: Origin, place: usize, index: usize) -> Uuid {
    let high = mixed(seed, u64::from(origin.actor) << 32 | u64::from(origin.number));
    let low = mixed(high, place as u64 * MOST_EVENTS + index as u64);
    uuid::Builder::from_custom_bytes((u128::from(high) << 64 | u128::from(low)).to_be_bytes()).into_uuid()
}

fn event(id: Uuid, origin: Origin, index: usize, padding: usize) -> NewEvent {
    // Some events carry metadata. White space and the form of numbers must be kept as well.
    let metadata =
        Metadata { actor: (index % 2 == 1).then(|| format!("client {}", origin.actor)), ..Metadata::default() };
    let payload = format!("{{ \"by\": \"{id}\",\n \"n\": 1.50, \"padding\": \"{}\"}}", "ä".repeat(padding / 2));
    let name = if origin.number.is_multiple_of(5) { DECIDED } else { HAPPENED };
    let data = EventData { name: name.into(), schema_version: 1 + origin.number % 3, payload: payload.into() };
    NewEvent { id, metadata, ..NewEvent::new(data) }
}

fn spoil(event: &mut NewEvent, flaw: Flaw) {
    match flaw {
        // The flaw of these is not in an event.
        Flaw::Empty | Flaw::Overflow | Flaw::Query | Flaw::SameStream => {}
        Flaw::Oversize => event.data.payload = format!("\"{}\"", "x".repeat(MAX_PAYLOAD_BYTES)).into(),
        Flaw::NotJson => event.data.payload = Bytes::from_static(b"{"),
        Flaw::NotUtf8 => event.data.payload = Bytes::from_static(b"\"\xff\""),
        Flaw::Nul => event.data.payload = Bytes::from_static(br#"{"a":"\u0000"}"#),
        Flaw::EventName => event.data.name = "Checker Happened".into(),
        Flaw::SchemaVersion => event.data.schema_version = 0,
        Flaw::Metadata => event.metadata.actor = Some("x".repeat(MAX_METADATA_BYTES)),
        Flaw::Refused => event.data.name = REFUSED_NAME.into(),
    }
}

/// A checksum of everything of an event that is read back, except its place, id and time.
fn digest(data: &EventData, metadata: &Metadata) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(data.name.as_bytes());
    hasher.update(&data.schema_version.to_be_bytes());
    hasher.update(&metadata.encode().unwrap_or_default());
    hasher.update(&[0]);
    hasher.update(&data.payload);
    hasher.finalize()
}
