//! The stock of a product, as far as orders change it: which pieces are reserved, and how many were dispatched.
//!
//! It counts, and never refuses because there is no stock: a policy follows an order and cannot report a refusal back to it.
//! Stock limits will come with the saga, which can.

use std::collections::BTreeMap;

use evenfold::{Aggregate, Event};
use serde::{Deserialize, Serialize};

use crate::ids::OrderId;

/// The commands of an inventory item.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum InventoryCommand {
    Reserve { order: OrderId, pieces: u64 },
    Release { order: OrderId },
    Dispatch { order: OrderId },
}

/// What has happened to an inventory item.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(category = "inventory")]
#[expect(missing_docs, reason = "the names say it")]
pub enum InventoryEvent {
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
    /// The pieces that are reserved for each order until it is completed.
    pub reserved: BTreeMap<OrderId, u64>,
    /// How many pieces were dispatched.
    pub dispatched: u64,
}

impl InventoryItem {
    fn reserved_for(&self, order: &OrderId) -> Result<u64, InventoryRefusal> {
        self.reserved.get(order).copied().ok_or_else(|| InventoryRefusal::NotReserved(order.clone()))
    }
}

impl Aggregate for InventoryItem {
    type Command = InventoryCommand;
    type Event = InventoryEvent;
    type Error = InventoryRefusal;

    fn handle(&self, command: &InventoryCommand) -> Result<Vec<InventoryEvent>, InventoryRefusal> {
        let event = match command.clone() {
            InventoryCommand::Reserve { order, .. } if self.reserved.contains_key(&order) => return Ok(Vec::new()),
            InventoryCommand::Reserve { order, pieces } => InventoryEvent::Reserved { order, pieces },
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
            InventoryEvent::Reserved { order, pieces } => {
                self.reserved.insert(order.clone(), *pieces);
            }
            InventoryEvent::Released { order, .. } => {
                self.reserved.remove(order);
            }
            InventoryEvent::Dispatched { order, pieces } => {
                self.reserved.remove(order);
                self.dispatched += pieces;
            }
        }
    }
}

/// Why an inventory item refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InventoryRefusal {
    /// There is nothing to release or to dispatch.
    #[error("nothing is reserved for order {0}")]
    NotReserved(OrderId),
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use evenfold::testing::given;

    use super::*;

    fn order(name: &str) -> OrderId {
        name.parse().unwrap()
    }

    fn reserved(name: &str, pieces: u64) -> InventoryEvent {
        InventoryEvent::Reserved { order: order(name), pieces }
    }

    #[test]
    fn an_order_reserves_once() {
        let reserve = InventoryCommand::Reserve { order: order("A"), pieces: 2 };
        let item = given::<InventoryItem>([reserved("B", 1)]).when(&reserve).then([reserved("A", 2)]);
        item.when(&reserve).then([]);
    }

    #[test]
    fn released_pieces_are_free_again() {
        let release = InventoryCommand::Release { order: order("A") };
        let released = InventoryEvent::Released { order: order("A"), pieces: 2 };
        let item = given::<InventoryItem>([reserved("A", 2), reserved("B", 1)]).when(&release).then([released]);
        assert_eq!(item.state.reserved, BTreeMap::from([(order("B"), 1)]));
        item.when(&release).then_refused(&InventoryRefusal::NotReserved(order("A")));
    }

    #[test]
    fn dispatched_pieces_are_reserved_no_more() {
        let dispatch = InventoryCommand::Dispatch { order: order("A") };
        let dispatched = InventoryEvent::Dispatched { order: order("A"), pieces: 2 };
        let item = given::<InventoryItem>([reserved("A", 2)]).when(&dispatch).then([dispatched]);
        assert_eq!((item.state.reserved.len(), item.state.dispatched), (0, 2));
        item.when(&dispatch).then_refused(&InventoryRefusal::NotReserved(order("A")));
    }
}
