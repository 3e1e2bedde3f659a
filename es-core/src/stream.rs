//! Streams, and the numbers that order their events.

#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    limits::{MAX_CATEGORY_BYTES, MAX_STREAM_BYTES},
    witness::{Ending, Witness},
};

/// Categories that start with this belong to Evenfold.
pub const RESERVED_PREFIX: &str = "es_";

/// The name of one aggregate's events: `<category>-<id>`, for example `order-ORD-12345`.
///
/// The category is lower-case ASCII (`[a-z][a-z0-9_]*`), so that the first `-` ends it; the id is
/// any text without control characters. Cloning is cheap.
///
/// ```
/// use es_core::StreamId;
///
/// let stream = StreamId::new("order", "ORD-12345")?;
/// assert_eq!(stream.as_str(), "order-ORD-12345");
/// assert_eq!(stream.category(), "order");
/// assert_eq!(stream.id(), "ORD-12345");
/// # Ok::<(), es_core::InvalidStream>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    name: Arc<str>,
    category_len: u8,
}

impl StreamId {
    /// The stream of the aggregate `id` in `category`.
    ///
    /// # Errors
    /// [`InvalidStream`] says which rule the name breaks.
    pub fn new(category: &str, id: &str) -> Result<Self, InvalidStream> {
        let category_len = check(category, id)?;
        Ok(Self { name: format!("{category}-{id}").into(), category_len })
    }

    /// The key space of the decisions of this name. It is never a stream, because no application can have its category.
    pub(crate) fn of_decisions(name: &str) -> Self {
        const CATEGORY_LEN: u8 = 11;
        Self { name: format!("es_decision-{name}").into(), category_len: CATEGORY_LEN }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// The kind of its aggregate.
    pub fn category(&self) -> &str {
        &self.name[..usize::from(self.category_len)]
    }

    /// The id of its aggregate.
    pub fn id(&self) -> &str {
        &self.name[usize::from(self.category_len) + 1..]
    }
}

/// Checks the parts of a stream's name, and returns the length of the category.
fn check(category: &str, id: &str) -> Result<u8, InvalidStream> {
    check_category(category)?;
    if id.is_empty() {
        return Err(InvalidStream::EmptyId);
    }
    if has_control(id) {
        return Err(InvalidStream::ControlCharacter);
    }
    let bytes = category.len() + 1 + id.len();
    if bytes > MAX_STREAM_BYTES {
        return Err(InvalidStream::TooLong { bytes });
    }
    u8::try_from(category.len()).map_err(|_| InvalidStream::TooLong { bytes })
}

/// Whether `text` has a control character.
pub(crate) fn has_control(text: &str) -> bool {
    // Every event that is read asks this, and nearly all texts are ASCII.
    if text.is_ascii() { text.bytes().any(|byte| byte.is_ascii_control()) } else { text.chars().any(char::is_control) }
}

/// Checks that `category` may name a category of an application.
///
/// # Errors
/// [`InvalidStream::Category`] or [`InvalidStream::Reserved`].
pub fn check_category(category: &str) -> Result<(), InvalidStream> {
    let mut bytes = category.bytes();
    let well_formed = category.len() <= MAX_CATEGORY_BYTES
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !well_formed {
        return Err(InvalidStream::Category { category: category.to_owned() });
    }
    if category.starts_with(RESERVED_PREFIX) {
        return Err(InvalidStream::Reserved { category: category.to_owned() });
    }
    Ok(())
}

impl FromStr for StreamId {
    type Err = InvalidStream;

    fn from_str(name: &str) -> Result<Self, InvalidStream> {
        let (category, id) = name.split_once('-').ok_or_else(|| InvalidStream::NoId { name: name.to_owned() })?;
        Ok(Self { category_len: check(category, id)?, name: name.into() })
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.name, f)
    }
}

impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Why a text is not the name of a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStream {
    /// The category breaks `[a-z][a-z0-9_]*` or is longer than [`MAX_CATEGORY_BYTES`].
    #[error("category {category:?} is not of the form [a-z][a-z0-9_]* with at most {MAX_CATEGORY_BYTES} bytes")]
    Category {
        /// The category that was given.
        category: String,
    },
    /// The category starts with [`RESERVED_PREFIX`].
    #[error("category {category:?} starts with {RESERVED_PREFIX:?}, which is reserved to the framework")]
    Reserved {
        /// The category that was given.
        category: String,
    },
    /// There is no `-` that ends the category.
    #[error("{name:?} is no stream: its name is <category>-<id>, for example order-17")]
    NoId {
        /// The name that was given.
        name: String,
    },
    /// There is no id after the category.
    #[error("the id of the stream is empty")]
    EmptyId,
    /// The id holds NUL or another control character.
    #[error("the id holds a control character")]
    ControlCharacter,
    /// The whole name is longer than [`MAX_STREAM_BYTES`].
    #[error("the name has {bytes} bytes, the limit is {MAX_STREAM_BYTES}")]
    TooLong {
        /// The length of the name, in bytes.
        bytes: usize,
    },
}

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(u64);

        impl $name {
            /// Before the first event.
            pub const ZERO: Self = Self(0);

            /// The number itself.
            pub const fn new(number: u64) -> Self {
                Self(number)
            }

            /// The number itself.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The number after this one.
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }

            /// The number that databases without unsigned integers store.
            pub fn to_i64(self) -> i64 {
                i64::try_from(self.0).unwrap_or(i64::MAX)
            }

            /// The number that [`to_i64`](Self::to_i64) returned; a negative number, which no append writes, is zero.
            pub fn from_i64(stored: i64) -> Self {
                Self(u64::try_from(stored).unwrap_or(0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter! {
    /// How many events a stream has; the n-th event has version n, and 0 is the empty stream.
    Version
}

counter! {
    /// The place of an event in the log: dense, from 1, equal to commit order. 0 is before the first event.
    Position
}

/// What an append expects of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expected {
    /// Any state: append after the last event, if there is one.
    Any,
    /// It is empty.
    NoStream,
    /// It is not empty.
    StreamExists,
    /// It has exactly this version; `Exact(0)` is [`NoStream`](Self::NoStream).
    Exact(Version),
    /// It has exactly this version and ends with exactly this event. So a decision on one history is not written into another
    /// history of the same length (R3).
    Last {
        /// The number of its events.
        version: Version,
        /// Its last event.
        last: Ending,
    },
}

impl Expected {
    /// Whether a stream at `actual` that ends with the event `last` is what was expected.
    pub fn holds(self, actual: Version, last: Option<Witness>) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => actual == Version::ZERO,
            Self::StreamExists => actual > Version::ZERO,
            Self::Exact(version) => actual == version,
            Self::Last { version, last: expected } => actual == version && last.is_some_and(|last| expected.is(&last)),
        }
    }

    /// The version that the stream must have, where the expectation names one.
    pub fn version(self) -> Option<Version> {
        match self {
            Self::NoStream => Some(Version::ZERO),
            Self::Exact(version) | Self::Last { version, .. } => Some(version),
            Self::Any | Self::StreamExists => None,
        }
    }

    /// The event that the stream must end with, where the expectation names one.
    pub fn last(self) -> Option<Ending> {
        match self {
            Self::Last { last, .. } => Some(last),
            _ => None,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no stream"),
            Self::StreamExists => f.write_str("an existing stream"),
            Self::Exact(version) => write!(f, "version {version}"),
            Self::Last { version, last } => write!(f, "version {version} with the {last}"),
        }
    }
}

/// A stream was not as the append expected (R2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("stream {stream}: expected {expected}, found version {actual}")]
pub struct Conflict {
    /// Which stream.
    pub stream: StreamId,
    /// What was expected.
    pub expected: Expected,
    /// The version that the stream has.
    pub actual: Version,
}

/// The token that a write returns and a read can wait for (R13).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadToken(pub Position);

impl fmt::Display for ReadToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}", self.0)
    }
}

impl FromStr for ReadToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let number = text.strip_prefix('p').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        number.and_then(|digits| digits.parse().ok()).map(|position| Self(Position::new(position))).ok_or(InvalidToken)
    }
}

impl Serialize for ReadToken {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ReadToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The text is not a token that a write returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a token of this service")]
pub struct InvalidToken;
