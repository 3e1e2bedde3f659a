//! The payment provider, as this service calls it.

use evenfold::{async_trait, backend::BoxError};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{CustomerId, OrderId},
    money::Money,
    rules::PaymentRules,
};

/// What a customer has to pay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Charge {
    pub order: OrderId,
    pub customer: CustomerId,
    pub amount: Money,
}

/// What the provider has done about a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charged {
    /// It has the money.
    Now,
    /// The customer has yet to pay. The provider tells it when that was done ([`crate::provider`]).
    Later,
}

/// Captures and refunds payments. It recognises by the key what it was asked before, and answers the same again.
#[async_trait]
pub trait PaymentGateway: Send + Sync + 'static {
    /// Captures what a customer has to pay.
    ///
    /// # Errors
    /// [`GatewayError`].
    async fn capture(&self, key: &str, charge: &Charge) -> Result<Charged, GatewayError>;

    /// Gives back what it has captured; a charge that the customer has not paid yet is void.
    ///
    /// # Errors
    /// [`GatewayError::Unavailable`].
    async fn refund(&self, key: &str, charge: &Charge) -> Result<(), GatewayError>;
}

/// Why a payment was not captured.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It was declined, for this reason.
    #[error("{0}")]
    Declined(String),
    /// The provider cannot be reached: it may be asked again.
    #[error("the payment provider is not available")]
    Unavailable(#[source] BoxError),
}

/// The provider of the demo: it answers by the rules, so it answers the same each time.
#[async_trait]
impl PaymentGateway for PaymentRules {
    async fn capture(&self, _key: &str, charge: &Charge) -> Result<Charged, GatewayError> {
        match self.declined.get(&charge.customer) {
            Some(reason) => Err(GatewayError::Declined(reason.clone())),
            None if self.later.contains(&charge.customer) => Ok(Charged::Later),
            None => Ok(Charged::Now),
        }
    }

    async fn refund(&self, _key: &str, _charge: &Charge) -> Result<(), GatewayError> {
        Ok(())
    }
}
