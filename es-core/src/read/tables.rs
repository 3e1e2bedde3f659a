//! Table projections: read models that own SQL tables.

mod batch;
mod projector;
mod query;
pub(crate) mod store;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

pub use self::{
    projector::TableProjector,
    query::Tables,
    store::{CommitTablesError, CreateTablesError, TableReading, TableStore, TableWrite, WriteError},
};
use crate::{
    error::BoxError,
    event::{EventSet, Recorded},
    read::{candidate::Subject, definition},
};

/// A read model in SQL tables of its own. It gets the events in log order, and the transaction that commits its checkpoint, in
/// which it may run any SQL.
///
/// `S` is the store: what `write` gets is that of its database. For a service that runs on two databases, implement it for each of
/// the two stores.
///
/// Each generation has tables of its own, made by [`MIGRATIONS`](Self::MIGRATIONS). In [`write`](Self::write) and in queries
/// ([`Tables`]) they have plain names. A new generation is filled while the old one serves, and its tables take the public names
/// when it is promoted; the old ones are then dropped.
///
/// Write `#[async_trait]` above the `impl`, as for a [`Policy`](crate::Policy).
///
/// # Delivery
/// What `write` does takes effect exactly once for each event: it commits together with the checkpoint, or not at all (R9). That
/// does not hold for what `write` does outside of the transaction.
#[async_trait]
pub trait TableProjection<S: TableStore>: Send + Sync + 'static {
    /// Its stable name, by the rule of [`Projection::NAME`](crate::Projection::NAME), whose name space it shares. The store takes
    /// the names of schemas or tables from it.
    const NAME: &'static str;

    /// Increase it whenever the tables or what is written into them changes. A new generation is then built while the old one
    /// serves.
    const VERSION: u32 = 1;

    /// The oldest version whose tables the queries of this program can read, as
    /// [`Projection::READS_SINCE`](crate::Projection::READS_SINCE).
    const READS_SINCE: u32 = Self::VERSION;

    /// SQL scripts that make its tables, in the order in which they run. All of them run once for each generation, in one
    /// transaction. Other scripts under the same [`VERSION`](Self::VERSION) are refused with
    /// [`EngineError::OtherDefinition`](crate::EngineError::OtherDefinition).
    const MIGRATIONS: &'static [&'static str];

    /// The events that it writes.
    type Event: EventSet;

    /// What is parked when `event` cannot be written, if the failure policy parks: this event and all later ones of the same key go
    /// to the dead letters (R19). By default that is the stream. Like the key of a document it has 1 to
    /// [`MAX_KEY_BYTES`](crate::limits::MAX_KEY_BYTES) bytes and no control characters.
    fn key(&self, event: &Recorded<Self::Event>) -> String {
        event.stream.as_str().to_owned()
    }

    /// Writes `events`, which follow each other in the log, into the tables. All that were read together come at once, so that one
    /// statement can write many of them. If that fails it is rolled back, and called again with fewer of them until the event that
    /// cannot be written is alone.
    ///
    /// The transaction is begun and committed by the store. `write` may set savepoints in it, and must not end it.
    ///
    /// # Errors
    /// Any error. If it is caused by the connection or by a lock, the projector tries again until it works; for any other one the
    /// [`FailurePolicy`](crate::FailurePolicy) decides.
    async fn write(&self, tables: &mut S::Tables<'_>, events: &[Recorded<Self::Event>]) -> Result<(), BoxError>;
}

/// What a generation of `P` is known by. `is_foreign`: it follows a topic of another system.
fn subject<S: TableStore, P: TableProjection<S>>(is_foreign: bool) -> Subject {
    let mut hasher = Sha256::new();
    for migration in P::MIGRATIONS {
        hasher.update(migration.as_bytes());
        hasher.update([0]);
    }
    let digest: [u8; 32] = hasher.finalize().into();
    let digest = u128::from_be_bytes(*digest.first_chunk().expect("it is longer"));
    let (tables, categories) = (definition::type_name::<P>(), definition::categories::<P::Event>());
    let kind = if is_foreign { "consumer" } else { "tables" };
    Subject {
        name: P::NAME,
        version: P::VERSION,
        definition: format!("{kind} {tables} of {categories} made by {} migrations {digest:x}", P::MIGRATIONS.len()),
        fields: Vec::new(),
        is_foreign,
    }
}
