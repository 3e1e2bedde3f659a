//! Event sourcing and CQRS for Rust: one dependency, one import.
//!
//! ```
//! use evenfold::prelude::*;
//! ```

// So that the derives' paths also hold in this crate's own examples.
extern crate self as evenfold;

pub use es_core::*;

/// The store on one embedded file.
#[cfg(feature = "sqlite")]
pub mod sqlite {
    pub use es_sqlite::*;
}

/// The store on a Postgres server.
#[cfg(feature = "postgres")]
pub mod postgres {
    pub use es_postgres::*;
}

/// The relay to Kafka, and readers that follow it.
#[cfg(feature = "kafka")]
pub mod kafka {
    pub use es_kafka::*;
}

#[cfg(feature = "axum")]
pub mod http;

pub mod prelude {
    //! What nearly every application names.

    pub use es_core::{
        Aggregate, Context, Decision, DecisionModel, Decisions, Event, EventQuery, EventSet, Expected, IdempotencyKey,
        Keys, MemoryStore, Policy, Projection, ReadModel, Receipt, Recorded, Repository, Service, StreamId, Tag,
        Unfoldable,
    };
    #[cfg(feature = "kafka")]
    pub use es_kafka::KafkaRelay;
    #[cfg(feature = "postgres")]
    pub use es_postgres::PostgresStore;
    #[cfg(feature = "sqlite")]
    pub use es_sqlite::SqliteStore;
}
