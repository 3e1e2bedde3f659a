//! The reaction to an order's events: commands to payment, inventory and shipment.
//!
//! The saga engine will replace it. A policy only follows: it cannot make the order wait for the result of its commands.

use evenfold::{Policy, PolicyError, Recorded, Repository, Resources, async_trait, reaction};

use crate::{
    ids::OrderId,
    inventory::{InventoryCommand, InventoryItem},
    line::Line,
    order::{OrderEvent, Status},
    payment::{Payment, PaymentCommand},
    rules::StockRules,
    shipment::{Shipment, ShipmentCommand},
};

/// Sends the commands that follow from the order's decisions.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Fulfilment {
    pub payments: Repository<Payment>,
    pub inventory: Repository<InventoryItem>,
    pub shipments: Repository<Shipment>,
    pub opening: StockRules,
}

impl Fulfilment {
    /// Commands go to the aggregates of the same service.
    pub fn new(service: &Resources, opening: StockRules) -> Self {
        let (payments, inventory, shipments) = (service.repository(), service.repository(), service.repository());
        Self { payments, inventory, shipments, opening }
    }
}

#[async_trait]
impl Policy for Fulfilment {
    const NAME: &'static str = "fulfilment";
    type Event = OrderEvent;

    async fn react(&self, event: &Recorded<OrderEvent>) -> Result<(), PolicyError> {
        match &event.data {
            OrderEvent::Placed { .. } => {}
            OrderEvent::Paid { amount, .. } => {
                self.payment(event, PaymentCommand::Capture { amount: *amount }).await?;
            }
            OrderEvent::Reserved { lines, .. } => {
                self.inventory(event, lines, |order, pieces, opening| InventoryCommand::Reserve {
                    order,
                    pieces,
                    opening,
                })
                .await?;
            }
            OrderEvent::Scheduled { customer } => {
                self.shipment(event, ShipmentCommand::Schedule { customer: customer.clone() }).await?;
            }
            OrderEvent::Completed { lines, .. } => {
                self.inventory(event, lines, |order, _, _| InventoryCommand::Dispatch { order }).await?;
                self.shipment(event, ShipmentCommand::Deliver).await?;
            }
            OrderEvent::Cancelled { lines, was, .. } => {
                if *was >= Status::Scheduled {
                    self.shipment(event, ShipmentCommand::Cancel).await?;
                }
                if *was >= Status::Reserved {
                    self.inventory(event, lines, |order, _, _| InventoryCommand::Release { order }).await?;
                }
                if *was >= Status::PaymentOk {
                    self.payment(event, PaymentCommand::Refund).await?;
                }
            }
        }
        Ok(())
    }
}

/// No event leads to two commands on one stream, so the kind of stream is a unique name for the reaction.
impl Fulfilment {
    async fn payment(&self, event: &Recorded<OrderEvent>, command: PaymentCommand) -> Result<(), PolicyError> {
        let context = reaction(event, Self::NAME, "payment")?;
        self.payments.execute_with(event.stream.id(), command, context).await?;
        Ok(())
    }

    async fn shipment(&self, event: &Recorded<OrderEvent>, command: ShipmentCommand) -> Result<(), PolicyError> {
        let context = reaction(event, Self::NAME, "shipment")?;
        self.shipments.execute_with(event.stream.id(), command, context).await?;
        Ok(())
    }

    async fn inventory(
        &self,
        event: &Recorded<OrderEvent>,
        lines: &[Line],
        command: fn(OrderId, u64, u64) -> InventoryCommand,
    ) -> Result<(), PolicyError> {
        let order = OrderId::of_stream(&event.stream).map_err(|error| PolicyError::Permanent(error.into()))?;
        for (product, pieces) in Line::pieces(lines) {
            let context = reaction(event, Self::NAME, "inventory")?;
            let command = command(order.clone(), pieces, self.opening.opening_of(&product));
            self.inventory.execute_with(product, command, context).await?;
        }
        Ok(())
    }
}
