//! The store of a service: all ports in one type.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    error::BoxError, inspect::Inspect, memory::MemoryStore, read::read_model::ReadModelStore,
    write::snapshot::AggregateStore,
};

/// Keeps everything of a service: events, snapshots and read models. `MemoryStore`, `SqliteStore` and `PostgresStore` do,
/// and so does an `Arc<dyn ServiceStore>` that was chosen at run time.
#[async_trait]
pub trait ServiceStore: AggregateStore + ReadModelStore + Inspect {
    /// Finishes what is in flight and closes all connections (R16). Later appends are refused. It may be called again.
    ///
    /// # Errors
    /// The backend's own, when something did not end in good order. The store is closed in this case too.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a store that takes no more appends; call it again to finish the rest.
    async fn close(&self) -> Result<(), BoxError>;
}

#[async_trait]
impl<T: ServiceStore + ?Sized> ServiceStore for Arc<T> {
    async fn close(&self) -> Result<(), BoxError> {
        (**self).close().await
    }
}

#[async_trait]
impl ServiceStore for MemoryStore {
    /// Does nothing: clones can still be used.
    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }
}
