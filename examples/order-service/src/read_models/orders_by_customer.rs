//! The orders of each customer.

use chrono::{DateTime, Utc};
use evenfold::{FoldResult, KeyRange, Keys, Projection, Recorded};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{CustomerId, OrderId},
    money::{self, Money},
    order::{OrderEvent, Status},
};

/// Folds each order into one [`OrderSummary`] under `<customer>/<order>`, so that one scan reads the orders of a customer.
#[derive(Debug, Clone, Copy)]
pub struct OrdersByCustomer;

impl OrdersByCustomer {
    /// The orders of `customer`, in the order of their ids.
    pub fn range(customer: &CustomerId) -> KeyRange {
        KeyRange::prefix(format!("{customer}/"))
    }
}

/// What a list says about an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct OrderSummary {
    pub order_id: OrderId,
    pub status: Status,
    #[serde(with = "money::number")]
    pub total_amount: Money,
    pub placed_at: DateTime<Utc>,
}

impl Projection for OrdersByCustomer {
    const NAME: &'static str = "orders-by-customer";

    type Event = OrderEvent;
    type Document = OrderSummary;

    fn keys(&self, event: &Recorded<OrderEvent>) -> Keys {
        Keys::one(key(event.data.customer(), event.stream.id()))
    }

    fn fold(&self, document: &mut Option<OrderSummary>, event: &Recorded<OrderEvent>) -> FoldResult {
        if let OrderEvent::Placed { total, .. } = &event.data {
            *document = Some(OrderSummary {
                order_id: OrderId::of_stream(&event.stream)?,
                status: Status::Pending,
                total_amount: *total,
                placed_at: event.recorded_at,
            });
            return Ok(());
        }
        document.as_mut().ok_or("the order was never placed")?.status = event.data.status();
        Ok(())
    }
}

/// No id holds a `/`, so the orders of two customers are never mixed.
fn key(customer: &CustomerId, order: &str) -> String {
    format!("{customer}/{order}")
}
