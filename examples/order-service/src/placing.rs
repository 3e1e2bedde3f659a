//! Placing an order: the one step that an order cannot decide alone, since a customer may have only so many that are
//! open.

use std::collections::BTreeSet;

use evenfold::{
    Aggregate, CommandContext, DecideError, Decision, DecisionModel, Decisions, Event, EventQuery, EventStore,
    Expected, InvalidStream, InvalidTag, Receipt, Recorded, StreamId, Tag,
};

use crate::{
    ids::{CustomerId, OrderId},
    order::{Order, OrderCommand, OrderEvent, OrderRefusal},
};

/// The most orders of one customer that are neither completed nor cancelled.
pub const MOST_OPEN_ORDERS: usize = 100;

/// The open orders of a customer. It is made of what the orders themselves write: [`OrderEvent`] says which of its events
/// carry the customer's tag.
#[derive(Debug)]
pub struct OpenOrders {
    tag: Tag,
    open: BTreeSet<StreamId>,
}

impl OpenOrders {
    /// Those of `customer`.
    ///
    /// # Errors
    /// [`InvalidTag`], which no customer's id leads to.
    pub fn of(customer: &CustomerId) -> Result<Self, InvalidTag> {
        Ok(Self { tag: Tag::new(format!("customer:{customer}"))?, open: BTreeSet::new() })
    }
}

impl DecisionModel for OpenOrders {
    type Event = OrderEvent;

    fn query(&self) -> EventQuery {
        EventQuery::tagged([self.tag.clone()])
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
    /// Orders in `store`.
    pub fn new(store: impl EventStore) -> Self {
        Self(Decisions::new(store, "place-order"))
    }

    /// Places the order `id` by `command`, unless `customer` has too many that are open.
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
        let receipt = self.0.decide_with(OpenOrders::of(customer)?, context, |orders| {
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
    /// The decision was a refusal or could not be written.
    #[error(transparent)]
    Decide(#[from] DecideError<OrderRefusal>),
    /// No order can have this id.
    #[error("the order's id is invalid")]
    Stream(#[from] InvalidStream),
    /// No customer can have this id.
    #[error("the customer's id is invalid")]
    Tag(#[from] InvalidTag),
}
