//! The lines of an order, as events keep them and as the API shows them.

use std::{collections::BTreeMap, num::NonZeroU32};

use serde::{Deserialize, Serialize};

use crate::{
    ids::ProductId,
    money::{self, Money},
};

/// A product, its quantity and its price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The product.
    pub product: ProductId,
    /// How many pieces.
    pub quantity: Quantity,
    /// The price of one piece.
    pub price: Money,
}

impl Line {
    /// The total of all `lines`; `None` if it is too large.
    pub fn total(lines: &[Self]) -> Option<Money> {
        Money::sum(lines.iter().map(|line| line.price.times(line.quantity.get())))
    }

    /// How many pieces of each product `lines` order, summed where several lines name one product.
    pub fn pieces(lines: &[Self]) -> BTreeMap<ProductId, u64> {
        let mut pieces = BTreeMap::new();
        for line in lines {
            *pieces.entry(line.product.clone()).or_default() += u64::from(line.quantity.get());
        }
        pieces
    }
}

/// From one piece to a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32")]
pub struct Quantity(NonZeroU32);

impl Quantity {
    /// How many pieces.
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl TryFrom<u32> for Quantity {
    type Error = InvalidQuantity;

    fn try_from(pieces: u32) -> Result<Self, InvalidQuantity> {
        NonZeroU32::new(pieces).filter(|pieces| pieces.get() <= 1_000_000).map(Self).ok_or(InvalidQuantity)
    }
}

/// A number that is not a [`Quantity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a quantity lies between 1 and 1000000")]
pub struct InvalidQuantity;

/// A line in the API, with its field names, and with the price as a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(missing_docs, reason = "see Line")]
pub struct Item {
    pub product_id: ProductId,
    pub quantity: Quantity,
    #[serde(with = "money::price")]
    pub price: Money,
}

impl From<Item> for Line {
    fn from(Item { product_id, quantity, price }: Item) -> Self {
        Self { product: product_id, quantity, price }
    }
}

impl From<&Line> for Item {
    fn from(line: &Line) -> Self {
        Self { product_id: line.product.clone(), quantity: line.quantity, price: line.price }
    }
}
