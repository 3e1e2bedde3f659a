#![doc = include_str!("../README.md")]

// So that the derives' absolute paths also hold inside this crate.
extern crate self as es_core;

// The words.
pub mod error;
mod counted;
pub mod limits;
pub mod witness;
pub mod stream;
pub mod event;
pub mod codec;
pub mod schema;
pub mod tag;
pub mod head;
mod pace;
mod of_engine;

// The two halves of the path, and what goes round again.
pub mod write;
pub mod read;
pub mod react;

// All of it together.
pub mod service;

pub mod inspect;

pub mod backend;
pub mod backoff;
pub mod telemetry;
pub mod memory;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[doc(hidden)]
pub mod __private {
    //! What the derives need of other crates.
    pub use serde;

    use serde::{Serializer, ser::SerializeMap};

    use crate::{Tag, TagError, codec};
    pub use crate::{
        event::{Categories, EventSchema},
        schema::Undecodable,
    };

    /// The tag that the rule `rule` of the event `event` has made.
    pub fn tag(event: &'static str, rule: &'static str, text: impl AsRef<str>) -> Result<Tag, TagError> {
        Tag::new(text).map_err(|reason| TagError { event, rule, reason })
    }

    /// Whether both texts are the same one.
    pub const fn same(one: &str, other: &str) -> bool {
        let (one, other) = (one.as_bytes(), other.as_bytes());
        let mut at = 0;
        while at < one.len() && at < other.len() && one[at] == other[at] {
            at += 1;
        }
        at == one.len() && at == other.len()
    }

    /// Whether no other of `schemas` has the wire name of the one at `index`.
    pub const fn is_only(schemas: &[EventSchema], index: usize) -> bool {
        let mut at = 0;
        while at < schemas.len() {
            if at != index && same(schemas[at].name, schemas[index].name) {
                return false;
            }
            at += 1;
        }
        true
    }

    /// What a payload or an upcaster reads.
    ///
    /// # Errors
    /// [`Undecodable::Shape`].
    pub fn decode<'de, T: serde::Deserialize<'de>>(payload: &'de [u8]) -> Result<T, Undecodable> {
        codec::decode(payload).map_err(Undecodable::Shape)
    }

    /// The payload of a variant without fields.
    ///
    /// # Errors
    /// Those of `serializer`.
    pub fn serialize_no_fields<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_map(Some(0))?.end()
    }

    #[cfg(test)]
    mod tests {
        use super::{EventSchema, is_only, same};

        /// The derives ask while they compile; a wrong answer would let two events have one wire name.
        #[test]
        fn a_wire_name_that_occurs_twice_is_found() {
            for (one, other) in [("", "a"), ("a", "ab"), ("ab", "a"), ("ab", "ac"), ("ab", "cb"), ("abc", "abd")] {
                assert!(same(one, one) && same(other, other) && !same(one, other), "{one} {other}");
            }
            let schemas = ["a", "b", "a", "c"].map(|name| EventSchema { name, version: 1 });
            assert_eq!([0, 1, 2, 3].map(|index| is_only(&schemas, index)), [false, true, false, true]);
            assert!(is_only(&schemas[..1], 0));
        }
    }
}

// What an application names. What backends name is in `backend`.
pub use backoff::Backoff;
pub use codec::EncodeError;
pub use es_macros::{Event, EventSet};
pub use event::{Event, EventData, EventSet, Metadata, NewEvent, NewEventError, Recorded, RecordedEvent};
pub use memory::MemoryStore;
pub use react::commands::{CommandOwner, Commands, SendError};
pub use react::consumer::{Consumer, ConsumerRunner};
pub use react::policy::{Policy, PolicyError, PolicyRunner, reaction};
pub use react::saga::{
    ActionContext, ActionError, AfterLast, Ask, Correlation, Effect, Input, Retry, Saga, SagaPerformer, Step, StepSaga,
    Steps,
};
pub use react::schedule::{Every, Missed, Schedule, ScheduleError, Schedules, When};
pub use read::cursor::{Cursor, InvalidCursor};
pub use read::engine_error::EngineError;
pub use read::failure::{FailurePolicy, Retries};
pub use read::field::{DocumentField, Field, FieldType, Fields};
pub use read::find::{FieldCursor, FieldRange};
pub use read::foreign::UnknownTypes;
pub use read::live::{KeyEvents, Live, LiveError, LiveProjection};
pub use read::projection::{EventOrder, FoldResult, Keys, Projection};
pub use read::projector::Projector;
pub use read::query::{Page, QueryError, ReadModel};
pub use read::read_model::{
    Act, ActError, ActRecord, DeadLetter, DeadLetters, Generation, InvalidAct, KeyRange, LetterId, LetterPage,
    Operations, ParkedKey, Pause, StoppedAt,
};
pub use read::rebuild::{Throttle, Throttling};
pub use read::source::LogSource;
pub use read::tables::{TableProjection, TableProjector, Tables};
pub use read::watch::{Change, ChangeToken, Since, Watch, WatchError};
pub use read::worker_state::WorkerState;
pub use schema::DecodeError;
pub use service::{Resources, Service, ServiceBuilder, ServiceStore};
pub use stream::{Conflict, Expected, InvalidStream, InvalidToken, Position, ReadToken, StreamId, Version};
pub use tag::{Condition, EventQuery, InvalidTag, Tag, TagError};
pub use write::aggregate::Aggregate;
pub use write::append::{Append, IdempotencyKey, InvalidKey};
pub use write::decide::{AggregateModel, DecideError, Decision, DecisionModel, Decisions, Matching, Models};
pub use write::execute::{CommandContext, ExecuteError, LoadError, Loaded, Receipt, Repository};
pub use write::store::{AppendError, Appended, EventStore, ReadError};
