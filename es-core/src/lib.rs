#![doc = include_str!("../README.md")]

// So that the derives' absolute paths also hold inside this crate.
extern crate self as es_core;

// The words.
pub mod witness;
pub mod stream;
pub mod event;
pub mod codec;
pub mod schema;

// From a command to the log.
pub mod aggregate;
pub mod append;
pub mod rooms;
pub mod boundary;
pub mod store;
pub mod snapshot;
pub mod execute;
pub mod decide;

// From the log to a query.
pub mod projection;
mod definition;
pub mod cursor;
pub mod read_model;
pub mod heartbeat;
pub mod source;
pub mod worker_state;
mod panics;
mod worker;
mod standby;
mod candidate;
pub mod projector;
pub mod rebuild;
pub mod policy;
pub mod query;

pub mod error;
pub mod memory;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[doc(hidden)]
pub mod __private {
    //! What the derives need of other crates.
    pub use serde;

    use serde::{Serializer, ser::SerializeMap};

    use crate::{Tag, TagError, codec, schema::Undecodable};

    /// The tag that the rule `rule` of the event `event` has made.
    pub fn tag(event: &'static str, rule: &'static str, text: impl AsRef<str>) -> Result<Tag, TagError> {
        Tag::new(text).map_err(|reason| TagError { event, rule, reason })
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
}

pub use aggregate::Aggregate;
pub use append::*;
pub use boundary::*;
pub use codec::{EncodeError, MAX_NESTING, Misfit, Unencodable};
pub use cursor::*;
pub use decide::{DecideError, Decision, DecisionModel, Decisions, Matching, Models};
pub use error::{BoxError, EngineError, Location, StoreMoved};
pub use es_macros::{Event, EventSet};
pub use event::*;
pub use execute::*;
pub use memory::MemoryStore;
pub use policy::*;
pub use projection::{Keys, Order, Projection, Unfoldable};
pub use projector::Projector;
pub use query::*;
pub use read_model::*;
pub use schema::*;
pub use snapshot::*;
pub use source::*;
pub use store::*;
pub use stream::*;
pub use witness::*;
pub use worker_state::*;
