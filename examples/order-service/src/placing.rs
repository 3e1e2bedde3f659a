//! Placing an order. One order cannot decide this alone, because a customer may have only [`MOST_OPEN_ORDERS`] open orders.

use std::collections::BTreeSet;

use evenfold::{
    Aggregate, CommandContext, DecideError, Decision, DecisionModel, Decisions, Event, EventQuery, EventStore,
    Expected, InvalidStream, InvalidTag, Receipt, Recorded, StreamId, Tag,
};

use crate::{
    ids::{CustomerId, OrderId},
    order::{Order, OrderCommand, OrderEvent, OrderRefusal},
};

/// How many orders of one customer may be open: neither completed nor cancelled.
pub const MOST_OPEN_ORDERS: usize = 100;

/// The open orders of a customer, folded from the events of the orders that carry the customer's tag (see [`OrderEvent`]).
#[derive(Debug)]
pub struct OpenOrders {
    customer: CustomerId,
    open: BTreeSet<StreamId>,
}

impl OpenOrders {
    /// Those of `customer`.
    pub fn of(customer: CustomerId) -> Self {
        Self { customer, open: BTreeSet::new() }
    }
}

impl DecisionModel for OpenOrders {
    type Event = OrderEvent;

    fn query(&self) -> Result<EventQuery, InvalidTag> {
        Ok(EventQuery::tagged([Tag::new(format!("customer:{}", self.customer))?]))
    }

    fn apply(&mut self, event: &Recorded<OrderEvent>) {
        match event.data {
            OrderEvent::Placed { .. } => self.open.insert(event.stream.clone()),
            OrderEvent::Completed { .. } | OrderEvent::Cancelled { .. } => self.open.remove(&event.stream),
            OrderEvent::Paid { .. } | OrderEvent::Reserved { .. } | OrderEvent::Scheduled { .. } => false,
        };
    }
}

/// Places orders.
#[derive(Debug, Clone)]
pub struct Placing(Decisions);

impl Placing {
    /// Places orders in `store`.
    pub fn new(store: impl EventStore) -> Self {
        Self(Decisions::new(store, "place-order"))
    }

    /// Places the order `id` by `command`, unless `customer` has too many open orders.
    ///
    /// # Errors
    /// [`PlaceError`].
    ///
    /// # Cancel safety
    /// Dropping the future places the order or does not (R7).
    pub async fn place(
        &self,
        id: &OrderId,
        customer: &CustomerId,
        command: &OrderCommand,
        context: CommandContext,
    ) -> Result<Receipt, PlaceError> {
        let stream = StreamId::new(OrderEvent::CATEGORY, id.as_ref())?;
        let receipt = self.0.decide_with(OpenOrders::of(customer.clone()), context, |orders| {
            let events = Order::default().handle(command)?;
            if orders.open.contains(&stream) {
                return Err(OrderRefusal::AlreadyPlaced);
            }
            if orders.open.len() >= MOST_OPEN_ORDERS {
                return Err(OrderRefusal::TooManyOpen);
            }
            Ok(Decision::append(stream.clone(), Expected::NoStream, events))
        });
        Ok(receipt.await?)
    }
}

/// Why an order was not placed.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The order was refused, or the decision was not written.
    #[error(transparent)]
    Decide(#[from] DecideError<OrderRefusal>),
    /// The id cannot name an order.
    #[error("the order's id is invalid")]
    Stream(#[from] InvalidStream),
}
