//! What is in stock.

use evenfold::{EventOrder, FoldResult, Keys, Projection, Recorded};
use serde::{Deserialize, Serialize};

use crate::{ids::ProductId, inventory::InventoryEvent};

/// Keeps a document for each product that was counted or ordered, under its id.
#[derive(Debug, Clone, Copy)]
pub struct Stock;

/// How many pieces of a product there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StockItem {
    /// The product.
    pub product_id: ProductId,
    /// Those that can be ordered; `None` until something was received.
    pub free: Option<u64>,
    /// Those that wait for the shipment of an order.
    pub reserved: u64,
    /// Those that are gone.
    pub dispatched: u64,
}

impl Projection for Stock {
    const NAME: &'static str = "stock";
    const ORDER: EventOrder = EventOrder::PerStream;

    type Event = InventoryEvent;
    type Document = StockItem;

    fn keys(&self, event: &Recorded<InventoryEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, document: &mut Option<StockItem>, event: &Recorded<InventoryEvent>) -> FoldResult {
        let product_id = event.stream.id().parse::<ProductId>()?;
        let item = document.get_or_insert(StockItem { product_id, free: None, reserved: 0, dispatched: 0 });
        match event.data {
            InventoryEvent::Received { pieces } => item.free = Some(item.free.unwrap_or_default() + pieces),
            InventoryEvent::Reserved { pieces, .. } => {
                item.free = item.free.map(|free| free.saturating_sub(pieces));
                item.reserved += pieces;
            }
            InventoryEvent::Released { pieces, .. } => {
                item.free = item.free.map(|free| free + pieces);
                item.reserved = item.reserved.saturating_sub(pieces);
            }
            InventoryEvent::Dispatched { pieces, .. } => {
                item.reserved = item.reserved.saturating_sub(pieces);
                item.dispatched += pieces;
            }
        }
        Ok(())
    }
}
