//! Appends: their limits, and how a repeated one is recognised.

#[cfg(test)]
mod tests;

use std::{collections::HashSet, fmt};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    codec::text::{self, BadText},
    event::NewEvent,
    limits::{
        MAX_APPEND_BYTES, MAX_EVENT_NAME_BYTES, MAX_EVENTS, MAX_METADATA_BYTES, MAX_NESTING, MAX_PAYLOAD_BYTES,
        MAX_TAGS,
    },
    stream::{Conflict, Expected, StreamId, Version},
    tag::{Condition, ConditionPart, InvalidQuery},
};

/// Events that go into one stream together.
#[derive(Debug, Clone)]
pub struct Append {
    /// The stream.
    pub stream: StreamId,
    /// The state in which the stream must be.
    pub expected: Expected,
    /// The events to write.
    pub events: Vec<NewEvent>,
    /// The command whose outcome these events are, if the store must remember it.
    pub command: Option<CommandKey>,
    /// The events that must not have been added meanwhile, in any stream.
    pub condition: Option<Condition>,
}

impl Append {
    /// An append without a command to remember and without a condition on other streams.
    pub fn new(stream: StreamId, expected: Expected, events: Vec<NewEvent>) -> Self {
        Self { stream, expected, events, command: None, condition: None }
    }

    /// The same append, on `condition`.
    pub fn on(self, condition: Condition) -> Self {
        Self { condition: Some(condition), ..self }
    }

    /// The queries of the condition, each with its position.
    pub fn condition_parts(&self) -> impl Iterator<Item = &ConditionPart> {
        self.condition.iter().flat_map(Condition::parts)
    }

    /// The conflict of a stream that is at `actual` and not as expected.
    pub fn conflict(&self, actual: Version) -> Conflict {
        Conflict { stream: self.stream.clone(), expected: self.expected, actual }
    }

    /// Checks all limits and texts. Every store calls it before it writes anything (R15).
    ///
    /// # Errors
    /// [`InvalidAppend`] names the event by its index in the append.
    pub fn validate(&self) -> Result<(), InvalidAppend> {
        if self.events.is_empty() {
            return Err(InvalidAppend::Empty);
        }
        if self.events.len() > MAX_EVENTS {
            return Err(InvalidAppend::TooManyEvents { events: self.events.len() });
        }
        let highest = i64::MAX as u64 - MAX_EVENTS as u64;
        if self.expected.version().is_some_and(|version| version.get() > highest) {
            return Err(InvalidAppend::VersionOverflow);
        }
        let mut bytes = 0;
        for (event, new) in self.events.iter().enumerate() {
            check_event(event, new)?;
            bytes += new.bytes();
        }
        if bytes > MAX_APPEND_BYTES {
            return Err(InvalidAppend::AppendTooLarge { bytes });
        }
        if let Some(condition) = &self.condition {
            condition.validate()?;
        }
        Ok(())
    }
}

/// Checks appends that are to be made together: each for itself, and that all of them keep the limits
/// of one (R15).
///
/// # Errors
/// [`InvalidAppend`] names an event by its index in its append.
pub fn validate_together(appends: &[Append]) -> Result<(), InvalidAppend> {
    let mut streams = HashSet::new();
    let (mut events, mut bytes) = (0, 0);
    for append in appends {
        append.validate()?;
        if !streams.insert(&append.stream) {
            return Err(InvalidAppend::SameStream { stream: append.stream.clone() });
        }
        events += append.events.len();
        bytes += append.events.iter().map(NewEvent::bytes).sum::<usize>();
    }
    match events {
        0 => Err(InvalidAppend::Empty),
        _ if events > MAX_EVENTS => Err(InvalidAppend::TooManyEvents { events }),
        _ if bytes > MAX_APPEND_BYTES => Err(InvalidAppend::AppendTooLarge { bytes }),
        _ => Ok(()),
    }
}

/// How a repeated append is recognised (R6): the id under which stores remember it, and its fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// A hash of the key and of its key space.
    pub id: Uuid,
    /// The fingerprint of the content.
    pub fingerprint: Fingerprint,
}

impl Append {
    /// What the store must remember of this append: its command; for an append without a command
    /// that names no version, its first event's id. (If a version is named, the log itself is enough: a store compares the id of
    /// the event after that version with the id of the first new event.)
    pub fn remembered(&self) -> Option<Remembered> {
        let first = self.events.first()?.id;
        match &self.command {
            Some(CommandKey { key, fingerprint, scope }) => {
                let scope = scope.as_ref().unwrap_or(&self.stream);
                Some(Remembered { id: command_id(scope, key), fingerprint: *fingerprint })
            }
            None if self.expected.version().is_none() => {
                Some(Remembered { id: append_id(&self.stream, first), fingerprint: Fingerprint::of(first.as_bytes()) })
            }
            None => None,
        }
    }
}

/// The id under which stores remember the command `key` of `scope`, a stream or a kind of decision: 128 bits of a
/// SHA-256.
pub fn command_id(scope: &StreamId, key: &IdempotencyKey) -> Uuid {
    let mut hasher = Sha256::new();
    hasher.update(scope.as_str().as_bytes());
    hasher.update([0]);
    hasher.update(key.as_str().as_bytes());
    let digest: [u8; 32] = hasher.finalize().into();
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(id).into_uuid()
}

/// The id under which stores remember an append without a command. It begins with the first six bytes of its first event's
/// id, which are the time if that is a UUID of version 7: new ids then stand side by side in a store's index.
fn append_id(stream: &StreamId, first: Uuid) -> Uuid {
    let mut id = command_id(stream, &first.into()).into_bytes();
    id[..6].copy_from_slice(&first.as_bytes()[..6]);
    Uuid::from_bytes(id)
}

fn check_event(event: usize, new: &NewEvent) -> Result<(), InvalidAppend> {
    let name = &new.data.name;
    let well_formed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-');
    if name.is_empty() || name.len() > MAX_EVENT_NAME_BYTES || !name.bytes().all(well_formed) {
        let name = name.chars().take(MAX_EVENT_NAME_BYTES).collect();
        return Err(InvalidAppend::EventName { event, name });
    }
    if new.data.schema_version == 0 || new.data.schema_version > i32::MAX as u32 {
        return Err(InvalidAppend::SchemaVersion { event });
    }
    let bytes = new.data.payload.len();
    if bytes > MAX_PAYLOAD_BYTES {
        return Err(InvalidAppend::PayloadTooLarge { event, bytes });
    }
    check_json(event, &new.data.payload)?;
    if let Some(metadata) = new.metadata.encode() {
        if metadata.len() > MAX_METADATA_BYTES {
            return Err(InvalidAppend::MetadataTooLarge { event, bytes: metadata.len() });
        }
        check_json(event, &metadata)?;
    }
    if new.tags.len() > MAX_TAGS {
        return Err(InvalidAppend::TooManyTags { event, tags: new.tags.len() });
    }
    Ok(())
}

/// JSON that every database and every decoder accepts.
fn check_json(event: usize, text: &[u8]) -> Result<(), InvalidAppend> {
    text::check(text).map_err(|bad| match bad {
        BadText::NotUtf8 => InvalidAppend::NotUtf8 { event },
        BadText::NotJson(reason) => InvalidAppend::NotJson { event, reason },
        BadText::Nul => InvalidAppend::Nul { event },
        BadText::Number => InvalidAppend::Number { event },
        BadText::TooDeep => InvalidAppend::TooDeep { event },
    })
}

/// A key by which a client names one of its requests, so that it may repeat it. It is unique
/// within a stream, or within the decisions of one name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The longest key, in bytes.
    pub const MAX_BYTES: usize = 255;

    /// The key `key`.
    ///
    /// # Errors
    /// [`InvalidKey`] for an empty text, one of more than 255 bytes, or one with control
    /// characters.
    pub fn new(key: impl Into<String>) -> Result<Self, InvalidKey> {
        let key = key.into();
        if key.is_empty() || key.len() > Self::MAX_BYTES || key.chars().any(char::is_control) {
            return Err(InvalidKey);
        }
        Ok(Self(key))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Uuid> for IdempotencyKey {
    fn from(id: Uuid) -> Self {
        Self(id.to_string())
    }
}

/// A text that cannot be an [`IdempotencyKey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to 255 bytes and no control characters")]
pub struct InvalidKey;

/// A fingerprint of a command's content. It distinguishes a repeated request from another one under the same key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The SHA-256 of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }

    /// The bytes that stores keep.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Fingerprint {
    fn from(stored: [u8; 32]) -> Self {
        Self(stored)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("…")
    }
}

/// A command to remember with its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandKey {
    /// The key that the client gave it.
    pub key: IdempotencyKey,
    /// The fingerprint of its content.
    pub fingerprint: Fingerprint,
    /// The key space of the key, if it is not the stream of the append: a kind of decision, whose streams may follow from the
    /// decision.
    pub(crate) scope: Option<StreamId>,
}

impl CommandKey {
    /// The command `key` on the stream of its append.
    pub fn new(key: IdempotencyKey, fingerprint: Fingerprint) -> Self {
        Self { key, fingerprint, scope: None }
    }
}

/// Which rule an append breaks (R15). `event` is the index of the event in the append.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the messages say it")]
pub enum InvalidAppend {
    #[error("it holds no event")]
    Empty,
    #[error("it holds {events} events, the limit is {MAX_EVENTS}")]
    TooManyEvents { events: usize },
    #[error("its payloads and tags have {bytes} bytes together, the limit is {MAX_APPEND_BYTES}")]
    AppendTooLarge { bytes: usize },
    #[error("the expected version leaves no room below 2^63")]
    VersionOverflow,
    #[error("event {event}: {name:?} is not a wire name ([a-z0-9_.-], 1 to {MAX_EVENT_NAME_BYTES} bytes)")]
    EventName { event: usize, name: String },
    #[error("event {event}: a schema version lies between 1 and 2^31 - 1")]
    SchemaVersion { event: usize },
    #[error("event {event}: the payload has {bytes} bytes, the limit is {MAX_PAYLOAD_BYTES}")]
    PayloadTooLarge { event: usize, bytes: usize },
    #[error("event {event}: the metadata has {bytes} bytes, the limit is {MAX_METADATA_BYTES}")]
    MetadataTooLarge { event: usize, bytes: usize },
    #[error("event {event}: not UTF-8")]
    NotUtf8 { event: usize },
    #[error("event {event}: not JSON: {reason}")]
    NotJson { event: usize, reason: String },
    #[error("event {event}: it holds the character NUL")]
    Nul { event: usize },
    #[error("event {event}: it holds a number that an f64 cannot hold")]
    Number { event: usize },
    #[error("event {event}: it is nested deeper than {MAX_NESTING} levels")]
    TooDeep { event: usize },
    #[error("event {event}: it has {tags} tags, the limit is {MAX_TAGS}")]
    TooManyTags { event: usize, tags: usize },
    #[error("the condition is invalid")]
    Condition(#[from] InvalidQuery),
    #[error("two of the appends are to the stream {stream}")]
    SameStream { stream: StreamId },
}
