//! The stock of a product: pieces that are free, and those that are reserved for orders until they are dispatched.

use std::collections::BTreeMap;

use evenfold::{Aggregate, Event};
use serde::{Deserialize, Serialize};

use crate::ids::OrderId;

/// The commands of an inventory item. A product that was never counted begins with `opening` pieces.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum InventoryCommand {
    Receive { pieces: u64, opening: u64 },
    Reserve { order: OrderId, pieces: u64, opening: u64 },
    Release { order: OrderId },
    Dispatch { order: OrderId },
}

/// What has happened to an inventory item.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(category = "inventory")]
#[expect(missing_docs, reason = "the names say it")]
pub enum InventoryEvent {
    #[event(name = "inventory.received")]
    Received { pieces: u64 },
    #[event(name = "inventory.reserved")]
    Reserved { order: OrderId, pieces: u64 },
    #[event(name = "inventory.released")]
    Released { order: OrderId, pieces: u64 },
    #[event(name = "inventory.dispatched")]
    Dispatched { order: OrderId, pieces: u64 },
}

/// An inventory item. Its id is that of its product.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryItem {
    /// The pieces that are free; `None` until something was received. Orders of the time when stock was not counted do not change it.
    pub free: Option<u64>,
    /// The pieces that are reserved for each order until it is completed.
    pub reserved: BTreeMap<OrderId, u64>,
    /// How many pieces were dispatched.
    pub dispatched: u64,
}

impl InventoryItem {
    fn reserved_for(&self, order: &OrderId) -> Result<u64, InventoryRefusal> {
        self.reserved.get(order).copied().ok_or_else(|| InventoryRefusal::NotReserved(order.clone()))
    }

    /// How many pieces are free, and the delivery with which a product begins that was never counted.
    fn opened(&self, opening: u64) -> (u64, Vec<InventoryEvent>) {
        match self.free {
            Some(free) => (free, vec![]),
            None => (opening, vec![InventoryEvent::Received { pieces: opening }]),
        }
    }
}

impl Aggregate for InventoryItem {
    type Command = InventoryCommand;
    type Event = InventoryEvent;
    type Error = InventoryRefusal;

    fn handle(&self, command: &InventoryCommand) -> Result<Vec<InventoryEvent>, InventoryRefusal> {
        let event = match command.clone() {
            InventoryCommand::Receive { pieces, opening } => {
                let (free, mut events) = self.opened(opening);
                if free.checked_add(pieces).is_none_or(|free| free > MOST_PIECES) {
                    return Err(InventoryRefusal::TooMany { free, pieces });
                }
                events.push(InventoryEvent::Received { pieces });
                return Ok(events);
            }
            InventoryCommand::Reserve { order, .. } if self.reserved.contains_key(&order) => return Ok(Vec::new()),
            InventoryCommand::Reserve { order, pieces, opening } => {
                let (free, mut events) = self.opened(opening);
                if free < pieces {
                    return Err(InventoryRefusal::TooFew { free, pieces });
                }
                events.push(InventoryEvent::Reserved { order, pieces });
                return Ok(events);
            }
            InventoryCommand::Release { order } => {
                InventoryEvent::Released { pieces: self.reserved_for(&order)?, order }
            }
            InventoryCommand::Dispatch { order } => {
                InventoryEvent::Dispatched { pieces: self.reserved_for(&order)?, order }
            }
        };
        Ok(vec![event])
    }

    fn apply(&mut self, event: &InventoryEvent) {
        match event {
            InventoryEvent::Received { pieces } => self.free = Some(self.free.unwrap_or_default() + pieces),
            InventoryEvent::Reserved { order, pieces } => {
                self.free = self.free.map(|free| free.saturating_sub(*pieces));
                self.reserved.insert(order.clone(), *pieces);
            }
            InventoryEvent::Released { order, pieces } => {
                self.free = self.free.map(|free| free + pieces);
                self.reserved.remove(order);
            }
            InventoryEvent::Dispatched { order, pieces } => {
                self.reserved.remove(order);
                self.dispatched += pieces;
            }
        }
    }
}

/// The most pieces of a product that can be free.
pub const MOST_PIECES: u64 = 1_000_000_000;

/// Why an inventory item refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum InventoryRefusal {
    /// There is nothing to release or to dispatch.
    #[error("nothing is reserved for order {0}")]
    NotReserved(OrderId),
    #[error("{pieces} pieces are ordered, and {free} are in stock")]
    TooFew { free: u64, pieces: u64 },
    #[error("with {pieces} pieces more, {free} would be more than {MOST_PIECES}")]
    TooMany { free: u64, pieces: u64 },
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use evenfold::testing::given;

    use super::*;

    fn order(name: &str) -> OrderId {
        name.parse().unwrap()
    }

    fn received(pieces: u64) -> InventoryEvent {
        InventoryEvent::Received { pieces }
    }

    fn reserve(name: &str, pieces: u64) -> InventoryCommand {
        InventoryCommand::Reserve { order: order(name), pieces, opening: 5 }
    }

    fn reserved(name: &str, pieces: u64) -> InventoryEvent {
        InventoryEvent::Reserved { order: order(name), pieces }
    }

    #[test]
    fn an_order_reserves_once() {
        let item = given::<InventoryItem>([received(9), reserved("B", 1)]).when(&reserve("A", 2));
        let item = item.then([reserved("A", 2)]);
        item.when(&reserve("A", 2)).then([]);
    }

    #[test]
    fn a_product_that_was_never_counted_begins_with_its_opening_stock() {
        let item = given::<InventoryItem>([]).when(&reserve("A", 2)).then([received(5), reserved("A", 2)]);
        item.when(&reserve("B", 4)).then_refused(&InventoryRefusal::TooFew { free: 3, pieces: 4 });
        let receive = InventoryCommand::Receive { pieces: 4, opening: 5 };
        let item = given::<InventoryItem>([]).when(&receive).then([received(5), received(4)]);
        assert_eq!(item.state.free, Some(9));
        item.when(&receive).then([received(4)]);
    }

    #[test]
    fn more_than_is_free_is_refused_until_stock_is_replenished() {
        let few = given::<InventoryItem>([received(3), reserved("A", 2)]).when(&reserve("B", 2));
        few.then_refused(&InventoryRefusal::TooFew { free: 1, pieces: 2 });
        let item = given::<InventoryItem>([received(3), reserved("A", 2)]);
        let receive = InventoryCommand::Receive { pieces: 1, opening: 5 };
        item.when(&receive).then([received(1)]).when(&reserve("B", 2)).then([reserved("B", 2)]);
    }

    #[test]
    fn released_pieces_are_free_again() {
        let release = InventoryCommand::Release { order: order("A") };
        let released = InventoryEvent::Released { order: order("A"), pieces: 2 };
        let item = given::<InventoryItem>([received(3), reserved("A", 2), reserved("B", 1)]);
        let item = item.when(&release).then([released]);
        assert_eq!((item.state.free, item.state.reserved.clone()), (Some(2), BTreeMap::from([(order("B"), 1)])));
        item.when(&release).then_refused(&InventoryRefusal::NotReserved(order("A")));
    }

    #[test]
    fn dispatched_pieces_are_reserved_no_more() {
        let dispatch = InventoryCommand::Dispatch { order: order("A") };
        let dispatched = InventoryEvent::Dispatched { order: order("A"), pieces: 2 };
        let item = given::<InventoryItem>([received(3), reserved("A", 2)]).when(&dispatch).then([dispatched]);
        assert_eq!((item.state.free, item.state.reserved.len(), item.state.dispatched), (Some(1), 0, 2));
        item.when(&dispatch).then_refused(&InventoryRefusal::NotReserved(order("A")));
    }

    #[test]
    fn orders_of_the_time_when_stock_was_not_counted_do_not_change_what_is_free() {
        let item = given::<InventoryItem>([reserved("A", 2)]);
        let item = item.when(&reserve("B", 4)).then([received(5), reserved("B", 4)]);
        assert_eq!(item.state.free, Some(1));
    }
}
