//! An order as its customer sees it.

use chrono::{DateTime, Utc};
use evenfold::{EventOrder, FoldResult, Keys, LiveProjection, Projection, Recorded, Version};
use serde::{Deserialize, Serialize};

use crate::{
    ids::{CustomerId, OrderId},
    line::Item,
    money::{self, Money},
    order::{OrderEvent, Status},
};

/// Folds each order's stream into one [`OrderView`] under the order's id.
#[derive(Debug, Clone, Copy)]
pub struct OrderDetails;

/// An order, in the words of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the names say it")]
pub struct OrderView {
    pub order_id: OrderId,
    pub user_id: CustomerId,
    pub status: Status,
    pub items: Vec<Item>,
    #[serde(with = "money::number")]
    pub total_amount: Money,
    /// Why the order was cancelled, if the saga has cancelled it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub version: Version,
    pub placed_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

/// Folded when it is read, for an order as of a version.
impl LiveProjection for OrderDetails {}

impl Projection for OrderDetails {
    const NAME: &'static str = "order-details";
    const ORDER: EventOrder = EventOrder::PerStream;

    type Event = OrderEvent;
    type Document = OrderView;

    fn keys(&self, event: &Recorded<OrderEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, document: &mut Option<OrderView>, event: &Recorded<OrderEvent>) -> FoldResult {
        if let OrderEvent::Placed { customer, lines, total, .. } = &event.data {
            *document = Some(OrderView {
                order_id: OrderId::of_stream(&event.stream)?,
                user_id: customer.clone(),
                status: Status::Pending,
                items: lines.iter().map(Item::from).collect(),
                total_amount: *total,
                reason: None,
                version: event.version,
                placed_at: event.recorded_at,
                updated_at: event.recorded_at,
            });
            return Ok(());
        }
        let order = document.as_mut().ok_or("the order was never placed")?;
        order.status = event.data.status();
        if let OrderEvent::Cancelled { reason, .. } = &event.data {
            order.reason.clone_from(reason);
        }
        order.version = event.version;
        order.updated_at = event.recorded_at;
        Ok(())
    }
}
