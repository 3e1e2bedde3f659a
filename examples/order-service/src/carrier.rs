//! The carrier, as this service calls it.

use evenfold::{async_trait, backend::BoxError};

use crate::{
    ids::{CustomerId, OrderId},
    rules::ShipmentRules,
};

/// Takes parcels to customers. It recognises by the key what it was asked before, and answers the same again.
#[async_trait]
pub trait Carrier: Send + Sync + 'static {
    /// Fetches the parcel of `order` and takes it to `customer`.
    ///
    /// # Errors
    /// [`CarrierError`].
    async fn schedule(&self, key: &str, order: &OrderId, customer: &CustomerId) -> Result<(), CarrierError>;

    /// Does not fetch the parcel of `order` any more.
    ///
    /// # Errors
    /// [`CarrierError::Unavailable`].
    async fn cancel(&self, key: &str, order: &OrderId) -> Result<(), CarrierError>;
}

/// Why a parcel is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// The carrier does not take it, for this reason.
    #[error("{0}")]
    Refused(String),
    /// The carrier cannot be reached: it may be asked again.
    #[error("the carrier is not available")]
    Unavailable(#[source] BoxError),
}

/// The carrier of the demo: it answers by the rules.
#[async_trait]
impl Carrier for ShipmentRules {
    async fn schedule(&self, _key: &str, _order: &OrderId, customer: &CustomerId) -> Result<(), CarrierError> {
        match self.failed.get(customer) {
            Some(reason) => Err(CarrierError::Refused(reason.clone())),
            None => Ok(()),
        }
    }

    async fn cancel(&self, _key: &str, _order: &OrderId) -> Result<(), CarrierError> {
        Ok(())
    }
}
