//! The store of a service: all ports in one type.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    error::BoxError,
    inspect::Inspect,
    memory::MemoryStore,
    read::{inline::InlineModels, read_model::ReadModelStore},
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

    /// The read models that it folds in the transaction of each append, for a service to register its own
    /// ([`ServiceBuilder::inline`](crate::ServiceBuilder::inline)). `None`: the store folds none.
    fn inline_models(&self) -> Option<&InlineModels>;
}

#[async_trait]
impl<T: ServiceStore + ?Sized> ServiceStore for Arc<T> {
    async fn close(&self) -> Result<(), BoxError> {
        (**self).close().await
    }

    fn inline_models(&self) -> Option<&InlineModels> {
        (**self).inline_models()
    }
}

#[async_trait]
impl ServiceStore for MemoryStore {
    /// Does nothing: clones can still be used.
    async fn close(&self) -> Result<(), BoxError> {
        Ok(())
    }

    fn inline_models(&self) -> Option<&InlineModels> {
        Some(&self.inline)
    }
}
