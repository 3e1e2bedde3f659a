//! What the stream of an instance tells.

use std::{fmt, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Saga, names::Names, version::current_version};
use crate::{
    __private::decode,
    event::{Event, EventData, EventSchema, Metadata, RecordedEvent},
    read::read_model::Act,
    schema::Undecodable,
    stream::{Position, StreamId, Version},
};

/// An event of an instance of the saga `S`. Its wire names are `saga.advanced`, `saga.attempted`, `saga.failed`, `saga.deferred`,
/// `saga.asked`, `saga.declined`, `saga.resumed`, `saga.cancelled`, `saga.completed` and `saga.compensated`.
pub enum SagaEvent<S: Saga> {
    /// It has reacted to something.
    Advanced(Advanced<S::State, S::Action, S::Answer>),
    /// An attempt at an action has failed.
    Attempted(Attempted),
    /// It needs an operator.
    Failed(Failed),
    /// An event has come since it has failed, and waits until those before it are heard.
    Deferred(Box<Trigger>),
    /// An operator asks for something.
    Asked(Asked),
    /// It does not do what an operator has asked for.
    Declined(Declined),
    /// It goes on where it has failed, since an operator has asked for that.
    Resumed,
    /// It has ended, since an operator has asked for that, with this state. Nothing was taken back.
    Cancelled(S::State),
    /// It has ended, with this state.
    Completed(S::State),
    /// It has ended, with this state, and has taken back what was done.
    Compensated(S::State),
}

/// A step of an instance: to what it has reacted, what it has decided, and what it knows since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advanced<T, A, R> {
    /// Under which version of the definition.
    pub version: u32,
    /// What it has reacted to.
    pub cause: Cause<R>,
    /// What it has decided.
    pub decided: Vec<Decided<A>>,
    /// Its state after that.
    pub state: T,
}

/// What an instance has reacted to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause<R> {
    /// An event.
    Event(Box<Trigger>),
    /// The answer to an action.
    Answered {
        /// Its number.
        action: u64,
        /// What it has returned.
        answer: R,
    },
    /// The refusal of an action.
    Refused {
        /// Its number.
        action: u64,
        /// Why.
        reason: String,
        /// Whether it may have been done all the same: its last attempt has failed.
        may_be_done: bool,
    },
    /// The time of a timer has come.
    Timer {
        /// Its name.
        name: String,
        /// When it was woken.
        at: DateTime<Utc>,
    },
    /// What an operator has asked for.
    Asked(Asked),
}

/// An event that an instance has reacted to, whole: it may be in another log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trigger {
    /// Its identity.
    pub id: Uuid,
    /// Its stream.
    pub stream: StreamId,
    /// Its place in the stream.
    pub version: Version,
    /// Its place in the log.
    pub position: Position,
    /// When it was written.
    pub recorded_at: DateTime<Utc>,
    /// Its wire name.
    pub name: String,
    /// The schema version of its payload.
    pub schema_version: u32,
    /// Its payload.
    pub payload: Payload,
    /// What is known about it.
    pub metadata: Metadata,
}

/// A payload as it was written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Payload(Box<RawValue>);

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Trigger {
    /// `None` if its payload is no JSON.
    pub(super) fn of(event: &RecordedEvent) -> Option<Self> {
        let payload = Payload(serde_json::from_slice(&event.data.payload).ok()?);
        Some(Self {
            id: event.id,
            stream: event.stream.clone(),
            version: event.version,
            position: event.position,
            recorded_at: event.recorded_at,
            name: event.data.name.to_string(),
            schema_version: event.data.schema_version,
            payload,
            metadata: event.metadata.clone(),
        })
    }

    /// The event as it was recorded.
    pub fn recorded(&self) -> RecordedEvent {
        RecordedEvent {
            position: self.position,
            stream: self.stream.clone(),
            version: self.version,
            id: self.id,
            recorded_at: self.recorded_at,
            metadata: self.metadata.clone(),
            data: EventData {
                name: self.name.as_str().into(),
                schema_version: self.schema_version,
                payload: self.payload.0.get().to_owned().into(),
            },
        }
    }
}

/// An [`Effect`](super::Effect) with the number under which the instance knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decided<A> {
    /// The action is to be performed.
    Perform {
        /// The number of the action: the first of an instance is 1.
        number: u64,
        /// The action.
        action: A,
    },
    /// A timer is set.
    SetTimer {
        /// Tells this setting of the timer from earlier ones.
        number: u64,
        /// Its name.
        name: String,
        /// When it is due, counted from this event.
        after: Duration,
    },
    /// A timer is not set any more.
    CancelTimer {
        /// Its name.
        name: String,
    },
    /// The action is given up: an answer to it counts for nothing.
    GiveUp {
        /// Its number.
        number: u64,
    },
    /// The instance begins to compensate.
    Compensate,
    /// The instance compensates no more.
    Proceed,
}

/// An attempt at an action that has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    /// The number of the action.
    pub action: u64,
    /// How often operators had let it be attempted anew before.
    pub rounds: u32,
    /// How many attempts have failed since, this one included.
    pub attempts: u32,
    /// Why, for people.
    pub cause: String,
    /// When it is attempted again, counted from this event. `None`: it was the last.
    pub again_after: Option<Duration>,
}

/// That an instance needs an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Why, for people.
    pub cause: String,
}

/// What operators may ask of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// It goes on where it has failed: its actions are attempted again, and it reacts to the events that have come meanwhile.
    Retry,
    /// It takes back what was done.
    Compensate,
    /// It goes on without this step, which is not taken back, or without taking it back. Only a saga of [steps](crate::StepSaga) has any.
    Skip {
        /// The name of the step.
        step: String,
    },
    /// It does this step and those after it again. What they have done before stays, and is taken back too if it comes to that.
    RestartFrom {
        /// The name of the step.
        step: String,
    },
    /// It ends, and nothing is taken back.
    Cancel,
}

impl Asked {
    /// That the operator of whom `act` tells asks for `ask`.
    pub fn new(ask: Ask, act: &Act) -> Self {
        Self { ask, actor: act.actor().to_owned(), reason: act.reason().to_owned() }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry => f.write_str("retry"),
            Self::Compensate => f.write_str("compensate"),
            Self::Skip { step } => write!(f, "skip {step}"),
            Self::RestartFrom { step } => write!(f, "restart from {step}"),
            Self::Cancel => f.write_str("cancel"),
        }
    }
}

/// That an operator asks for something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// For what.
    pub ask: Ask,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// That an instance does not do what an operator has asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// Why, for people.
    pub cause: String,
}

const ADVANCED: EventSchema = EventSchema { name: "saga.advanced", version: 1 };
const ATTEMPTED: EventSchema = EventSchema { name: "saga.attempted", version: 1 };
const FAILED: EventSchema = EventSchema { name: "saga.failed", version: 1 };
const DEFERRED: EventSchema = EventSchema { name: "saga.deferred", version: 1 };
pub(super) const ASKED: EventSchema = EventSchema { name: "saga.asked", version: 1 };
const DECLINED: EventSchema = EventSchema { name: "saga.declined", version: 1 };
const RESUMED: EventSchema = EventSchema { name: "saga.resumed", version: 1 };
const CANCELLED: EventSchema = EventSchema { name: "saga.cancelled", version: 1 };
const COMPLETED: EventSchema = EventSchema { name: "saga.completed", version: 1 };
const COMPENSATED: EventSchema = EventSchema { name: "saga.compensated", version: 1 };

/// The state of an instance that has ended.
#[derive(Serialize, Deserialize)]
struct Ended<T> {
    state: T,
}

/// Under which version of the definition an instance has advanced.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// Nothing more is to be said.
#[derive(Serialize, Deserialize)]
struct Nothing {}

impl<S: Saga> Event for SagaEvent<S> {
    const CATEGORY: &'static str = Names::<S>::CATEGORY;
    const SCHEMAS: &'static [EventSchema] =
        &[ADVANCED, ATTEMPTED, FAILED, DEFERRED, ASKED, DECLINED, RESUMED, CANCELLED, COMPLETED, COMPENSATED];

    fn schema(&self) -> EventSchema {
        match self {
            Self::Advanced(_) => ADVANCED,
            Self::Attempted(_) => ATTEMPTED,
            Self::Failed(_) => FAILED,
            Self::Deferred(_) => DEFERRED,
            Self::Asked(_) => ASKED,
            Self::Declined(_) => DECLINED,
            Self::Resumed => RESUMED,
            Self::Cancelled(_) => CANCELLED,
            Self::Completed(_) => COMPLETED,
            Self::Compensated(_) => COMPENSATED,
        }
    }

    fn serialize_payload<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        match self {
            Self::Advanced(advanced) => advanced.serialize(serializer),
            Self::Attempted(attempted) => attempted.serialize(serializer),
            Self::Failed(failed) => failed.serialize(serializer),
            Self::Deferred(trigger) => trigger.serialize(serializer),
            Self::Asked(asked) => asked.serialize(serializer),
            Self::Declined(declined) => declined.serialize(serializer),
            Self::Resumed => Nothing {}.serialize(serializer),
            Self::Cancelled(state) | Self::Completed(state) | Self::Compensated(state) => {
                Ended { state }.serialize(serializer)
            }
        }
    }

    fn decode(name: &str, version: u32, payload: &[u8]) -> Result<Self, Undecodable> {
        let known = Self::SCHEMAS.iter().find(|schema| schema.name == name);
        let known = known.ok_or_else(|| Undecodable::UnknownName(name.to_owned()))?;
        if known.version != version {
            return Err(Undecodable::UnknownVersion { found: version, current: known.version });
        }
        match *known {
            ADVANCED => {
                let advanced = decode(payload).map(Self::Advanced);
                // What newer code has written may have another shape.
                let found = match &advanced {
                    Ok(Self::Advanced(advanced)) => advanced.version,
                    _ => decode(payload).map(|Versioned { version }| version).unwrap_or_default(),
                };
                let current = current_version::<S>();
                if found > current { Err(Undecodable::UnknownVersion { found, current }) } else { advanced }
            }
            ATTEMPTED => decode(payload).map(Self::Attempted),
            FAILED => decode(payload).map(Self::Failed),
            DEFERRED => decode(payload).map(Self::Deferred),
            ASKED => decode(payload).map(Self::Asked),
            DECLINED => decode(payload).map(Self::Declined),
            RESUMED => decode(payload).map(|Nothing {}| Self::Resumed),
            CANCELLED => decode(payload).map(|Ended { state }| Self::Cancelled(state)),
            COMPLETED => decode(payload).map(|Ended { state }| Self::Completed(state)),
            _ => decode(payload).map(|Ended { state }| Self::Compensated(state)),
        }
    }
}

impl<S: Saga> Clone for SagaEvent<S> {
    fn clone(&self) -> Self {
        match self {
            Self::Advanced(advanced) => Self::Advanced(advanced.clone()),
            Self::Attempted(attempted) => Self::Attempted(attempted.clone()),
            Self::Failed(failed) => Self::Failed(failed.clone()),
            Self::Deferred(trigger) => Self::Deferred(trigger.clone()),
            Self::Asked(asked) => Self::Asked(asked.clone()),
            Self::Declined(declined) => Self::Declined(declined.clone()),
            Self::Resumed => Self::Resumed,
            Self::Cancelled(state) => Self::Cancelled(state.clone()),
            Self::Completed(state) => Self::Completed(state.clone()),
            Self::Compensated(state) => Self::Compensated(state.clone()),
        }
    }
}

impl<S: Saga> PartialEq for SagaEvent<S> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Advanced(one), Self::Advanced(other)) => one == other,
            (Self::Attempted(one), Self::Attempted(other)) => one == other,
            (Self::Failed(one), Self::Failed(other)) => one == other,
            (Self::Deferred(one), Self::Deferred(other)) => one == other,
            (Self::Asked(one), Self::Asked(other)) => one == other,
            (Self::Declined(one), Self::Declined(other)) => one == other,
            (Self::Resumed, Self::Resumed) => true,
            (Self::Cancelled(one), Self::Cancelled(other))
            | (Self::Completed(one), Self::Completed(other))
            | (Self::Compensated(one), Self::Compensated(other)) => one == other,
            _ => false,
        }
    }
}

impl<S: Saga> fmt::Debug for SagaEvent<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state may hold personal data.
        f.write_str(self.schema().name)
    }
}
