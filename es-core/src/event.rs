//! Facts: what an application's event is, and what the log keeps of it.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};
use uuid::Uuid;

use crate::{
    codec::{self, EncodeError},
    counted::counted,
    schema::{DecodeError, Undecodable},
    stream::{Position, StreamId, Version},
    tag::{Tag, TagError},
    witness::Witness,
};

/// The events of one kind of aggregate: an enum with a stable wire name and a schema version for
/// each variant. A struct is an event of one kind.
///
/// Derive it:
///
/// ```
/// use es_core::Event;
///
/// #[derive(Debug, Clone, PartialEq, Event)]
/// #[event(category = "order")]
/// enum OrderEvent {
///     #[event(name = "order.placed", version = 2, upcast(1 = placed_without_currency))]
///     Placed { customer: String, total: String, currency: String },
///     #[event(name = "order.cancelled")]
///     Cancelled,
/// }
///
/// /// What `order.placed` looked like in version 1.
/// #[derive(serde::Deserialize)]
/// struct PlacedV1 {
///     customer: String,
///     total: String,
/// }
///
/// fn placed_without_currency(old: PlacedV1) -> OrderEvent {
///     OrderEvent::Placed { customer: old.customer, total: old.total, currency: "EUR".into() }
/// }
///
/// let event = OrderEvent::decode("order.placed", 1, br#"{"customer":"C","total":"9.99"}"#).unwrap();
/// assert_eq!(event.schema().version, 2);
/// ```
///
/// A variant's fields are written as one JSON object (a newtype variant as its content, a unit
/// variant as `{}`); the variant's Rust name is not stored and may change, its wire name may not.
///
/// Events can be compared because each is read back before it is written: one that would not be read
/// as an equal one is refused.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    note = "derive `Event` for it; a variant that wraps another type needs a wire name, `#[event(name = \"…\")]`"
)]
pub trait Event: PartialEq + Sized + Send + Sync + 'static {
    /// The category of the streams in which these events live.
    const CATEGORY: &'static str;

    /// Every wire name with its current schema version.
    const SCHEMAS: &'static [EventSchema];

    /// The wire name and schema version of this event.
    fn schema(&self) -> EventSchema;

    /// Shows the event's content to `serializer`.
    ///
    /// # Errors
    /// Those of `serializer`, and what a field's own type refuses.
    fn serialize_payload<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error>;

    /// The event's payload, which [`decode`](Self::decode) reads as an equal event.
    ///
    /// # Errors
    /// [`EncodeError`] when it would not (R14).
    fn encode(&self) -> Result<Bytes, EncodeError> {
        let EventSchema { name, version } = self.schema();
        codec::encode_as(name, self, &Payload(self), |text| Self::decode(name, version, text))
    }

    /// By what an [`EventQuery`](crate::EventQuery) finds it; none, unless `#[event(tag = …)]` says so.
    ///
    /// # Errors
    /// [`TagError`] when a rule makes a text of this event that cannot be a tag.
    fn tags(&self) -> Result<Vec<Tag>, TagError> {
        Ok(Vec::new())
    }

    /// The event that was stored under `name` in schema version `version`, made current by its
    /// upcaster.
    ///
    /// # Errors
    /// [`Undecodable`] tells whether the name, the version or the shape is unknown.
    fn decode(name: &str, version: u32, payload: &[u8]) -> Result<Self, Undecodable>;
}

struct Payload<'a, E>(&'a E);

impl<E: Event> Serialize for Payload<'_, E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize_payload(serializer)
    }
}

/// The stable identity of a kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EventSchema {
    /// The wire name, for example `order.placed`.
    pub name: &'static str,
    /// The schema version that is written today.
    pub version: u32,
}

/// What a read model or a policy listens to: the events of one or of several categories.
///
/// Every [`Event`] is one; derive it for an enum with one variant for each of several.
///
/// ```
/// use es_core::{Event, EventSet};
///
/// # #[derive(PartialEq, Event)] #[event(category = "order")]
/// # enum OrderEvent { #[event(name = "order.placed")] Placed }
/// # #[derive(PartialEq, Event)] #[event(category = "payment")]
/// # enum PaymentEvent { #[event(name = "payment.captured")] Captured }
/// #[derive(EventSet)]
/// enum SalesEvent {
///     Order(OrderEvent),
///     Payment(PaymentEvent),
/// }
/// assert!(SalesEvent::categories().contains("payment"));
/// ```
///
/// A set is closed: an event in one of its categories that it does not know is an error (R14),
/// not something to skip.
pub trait EventSet: Sized + Send + Sync + 'static {
    /// The categories whose events it holds.
    fn categories() -> Categories;

    /// The typed event, or `None` when it belongs to another category.
    ///
    /// # Errors
    /// [`Undecodable`] when it belongs to the set and cannot be read.
    fn from_recorded(event: &RecordedEvent) -> Result<Option<Self>, Undecodable>;
}

impl<E: Event> EventSet for E {
    fn categories() -> Categories {
        Categories::Only(vec![E::CATEGORY])
    }

    fn from_recorded(event: &RecordedEvent) -> Result<Option<Self>, Undecodable> {
        if event.stream.category() != E::CATEGORY {
            return Ok(None);
        }
        let EventData { name, schema_version, payload } = &event.data;
        E::decode(name, *schema_version, payload).map(Some)
    }
}

/// The set of all events, undecoded: for audit trails and other readers that must not miss a kind
/// of event that is invented tomorrow.
impl EventSet for EventData {
    fn categories() -> Categories {
        Categories::All
    }

    fn from_recorded(event: &RecordedEvent) -> Result<Option<Self>, Undecodable> {
        Ok(Some(event.data.clone()))
    }
}

/// Which categories a reader listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Categories {
    /// Every category, also those that do not exist yet.
    All,
    /// These.
    Only(Vec<&'static str>),
}

impl Categories {
    /// Whether events of `category` belong to it.
    pub fn contains(&self, category: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(&category),
        }
    }

    /// The categories of either.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Only(mut names), Self::Only(more)) => {
                names.extend(more);
                names.sort_unstable();
                names.dedup();
                Self::Only(names)
            }
            _ => Self::All,
        }
    }
}

/// An event's content as it is stored: its kind and its bytes, kept as they were written.
#[derive(Clone, PartialEq, Eq)]
pub struct EventData {
    /// The wire name.
    pub name: Arc<str>,
    /// The schema version in which the payload is written.
    pub schema_version: u32,
    /// JSON text.
    pub payload: Bytes,
}

impl EventData {
    /// The content of `event`.
    ///
    /// # Errors
    /// [`EncodeError`] when it would not be read as an equal event.
    pub fn of<E: Event>(event: &E) -> Result<Self, EncodeError> {
        let EventSchema { name, version } = event.schema();
        Ok(Self { name: name.into(), schema_version: version, payload: event.encode()? })
    }
}

impl fmt::Debug for EventData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The payload may hold a megabyte, or personal data.
        write!(f, "{} v{} ({})", self.name, self.schema_version, counted(self.payload.len(), "byte"))
    }
}

/// An event before the append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its identity, drawn before the append so that a retry sends the same one.
    pub id: Uuid,
    /// Its content.
    pub data: EventData,
    /// What is known about it.
    pub metadata: Metadata,
    /// By what an [`EventQuery`](crate::EventQuery) finds it. Tags are an index and no content: they
    /// are not read back with the event.
    pub tags: Vec<Tag>,
}

impl NewEvent {
    /// A new event with `data`, a fresh time-ordered id (version 7), no metadata and no tags.
    pub fn new(data: EventData) -> Self {
        Self { id: Uuid::now_v7(), data, metadata: Metadata::default(), tags: Vec::new() }
    }

    /// The event as a log has it at this place. Its tags are an index of the log, and are not a part of what is recorded.
    pub fn into_recorded(
        self,
        stream: StreamId,
        version: Version,
        position: Position,
        recorded_at: DateTime<Utc>,
    ) -> RecordedEvent {
        let Self { id, data, metadata, .. } = self;
        Recorded { position, stream, version, id, recorded_at, metadata, data }
    }

    /// A new event with its own tags, a fresh time-ordered id (version 7) and no metadata.
    ///
    /// # Errors
    /// [`NewEventError`] when it would not be read as an equal event or a tag breaks a rule.
    pub fn of<E: Event>(event: &E) -> Result<Self, NewEventError> {
        Ok(Self { tags: event.tags()?, ..Self::new(EventData::of(event)?) })
    }

    /// The same event with `metadata`.
    pub fn with_metadata(self, metadata: Metadata) -> Self {
        Self { metadata, ..self }
    }

    /// What its payload and its tags weigh together.
    pub fn bytes(&self) -> usize {
        self.data.payload.len() + self.tags.iter().map(|tag| tag.as_str().len()).sum::<usize>()
    }

    /// The same event with `tags` beside those that it has.
    pub fn with_tags(mut self, tags: impl IntoIterator<Item = Tag>) -> Self {
        self.tags.extend(tags);
        self
    }
}

/// Why an event cannot go into the log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NewEventError {
    /// It cannot be written as JSON.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// One of its tags is invalid.
    #[error(transparent)]
    Tag(#[from] TagError),
}

/// An event after the append; `D` is its content, raw or decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded<D> {
    /// Its place in the whole log.
    pub position: Position,
    /// The stream it belongs to.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: Version,
    /// Its identity.
    pub id: Uuid,
    /// When the store wrote it, by the store's clock. For people: order comes from `position`.
    pub recorded_at: DateTime<Utc>,
    /// What is known about it.
    pub metadata: Metadata,
    /// Its content.
    pub data: D,
}

/// An event as the log returns it.
pub type RecordedEvent = Recorded<EventData>;

impl RecordedEvent {
    /// The event with its typed content, or `None` when it does not belong to the set `S`.
    ///
    /// # Errors
    /// [`DecodeError`] names the event and the reason (R14).
    pub fn decode<S: EventSet>(&self) -> Result<Option<Recorded<S>>, DecodeError> {
        let data = S::from_recorded(self).map_err(|reason| DecodeError::new(self, reason))?;
        Ok(data.map(|data| self.with_data(data)))
    }

    /// The same event with other content.
    pub fn with_data<D>(&self, data: D) -> Recorded<D> {
        Recorded {
            position: self.position,
            stream: self.stream.clone(),
            version: self.version,
            id: self.id,
            recorded_at: self.recorded_at,
            metadata: self.metadata.clone(),
            data,
        }
    }
}

impl DecodeError {
    pub(crate) fn new(event: &RecordedEvent, reason: Undecodable) -> Self {
        Self {
            stream: event.stream.clone(),
            version: event.version,
            position: event.position,
            event_id: event.id,
            name: event.data.name.to_string(),
            schema_version: event.data.schema_version,
            reason,
        }
    }
}

impl Witness {
    /// `event` as a witness.
    pub fn of<D>(event: &Recorded<D>) -> Self {
        Self { event_id: event.id, recorded_at: event.recorded_at }
    }
}

/// What is known about an event beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// The conversation that it belongs to: copied from cause to effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Uuid>,
    /// The id of the event (or command) that caused it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// W3C `traceparent` of the span that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// W3C `tracestate` that goes with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
    /// Who asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Whatever else the application wants to keep.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, String>,
}

impl Metadata {
    /// The metadata of what `cause` brings about: the same correlation (`cause` itself starts one
    /// where there is none), the same trace and actor, and `cause` as causation.
    pub fn caused_by<D>(cause: &Recorded<D>) -> Self {
        Self {
            correlation_id: cause.metadata.correlation_id.or(Some(cause.id)),
            causation_id: Some(cause.id),
            extra: BTreeMap::new(),
            ..cause.metadata.clone()
        }
    }

    /// The JSON text that stores keep; `None` when nothing is known.
    pub fn encode(&self) -> Option<Vec<u8>> {
        (*self != Self::default()).then(|| serde_json::to_vec(self).expect("metadata holds nothing but text and ids"))
    }

    /// What [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`Undecodable::Metadata`] when the stored bytes are something else.
    pub fn decode(stored: Option<&[u8]>) -> Result<Self, Undecodable> {
        match stored {
            None => Ok(Self::default()),
            Some(bytes) => codec::decode(bytes).map_err(Undecodable::Metadata),
        }
    }
}
