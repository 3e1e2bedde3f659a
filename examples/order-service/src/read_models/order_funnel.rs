//! How far orders have come: what analysts ask.

use evenfold::{EventOrder, Field, Fields, FoldResult, Keys, Projection, Recorded};
use serde::{Deserialize, Serialize};

use crate::order::{OrderEvent, Status};

/// Keeps a document for each order under its id, to be counted by status. It needs the order of each stream only, so each partition of
/// a topic is folded apart: by one process, or by as many as there are partitions.
#[derive(Debug, Clone, Copy)]
pub struct OrderFunnel;

/// How far an order has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the name says it")]
pub struct OrderProgress {
    pub status: Status,
}

impl OrderFunnel {
    /// Finds orders by their status.
    pub const STATUS: Field<OrderProgress, String> =
        Field::new("status", |order: &OrderProgress| Some(order.status.to_string()));
}

impl Projection for OrderFunnel {
    const NAME: &'static str = "order-funnel";
    const ORDER: EventOrder = EventOrder::PerStream;
    const FIELDS: Fields<OrderProgress> = &[&Self::STATUS];

    type Event = OrderEvent;
    type Document = OrderProgress;

    fn keys(&self, event: &Recorded<OrderEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, document: &mut Option<OrderProgress>, event: &Recorded<OrderEvent>) -> FoldResult {
        *document = Some(OrderProgress { status: event.data.status() });
        Ok(())
    }
}
