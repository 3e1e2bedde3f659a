//! What has happened to an order, its payment and its shipment, folded when it is read.

use chrono::{DateTime, Utc};
use evenfold::{Event, EventSet, FoldResult, Keys, LiveProjection, Projection, Recorded};
use serde::{Deserialize, Serialize};

use crate::{order::OrderEvent, payment::PaymentEvent, shipment::ShipmentEvent};

/// The [`Step`]s of each order, under its id. Few people ask for them, so they are not stored.
#[derive(Debug, Clone, Copy)]
pub struct OrderTimeline;

/// The events of three streams with the same id.
#[derive(Debug, Clone, EventSet)]
#[expect(missing_docs, reason = "the names say it")]
pub enum OrderStep {
    Order(OrderEvent),
    Payment(PaymentEvent),
    Shipment(ShipmentEvent),
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Step {
    pub event: String,
    pub at: DateTime<Utc>,
}

impl Projection for OrderTimeline {
    const NAME: &'static str = "order-timeline";

    type Event = OrderStep;
    type Document = Vec<Step>;

    fn keys(&self, event: &Recorded<OrderStep>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, steps: &mut Option<Vec<Step>>, event: &Recorded<OrderStep>) -> FoldResult {
        let schema = match &event.data {
            OrderStep::Order(event) => event.schema(),
            OrderStep::Payment(event) => event.schema(),
            OrderStep::Shipment(event) => event.schema(),
        };
        steps.get_or_insert_default().push(Step { event: schema.name.to_owned(), at: event.recorded_at });
        Ok(())
    }
}

/// In the streams whose id is the key, as it is by default.
impl LiveProjection for OrderTimeline {}
