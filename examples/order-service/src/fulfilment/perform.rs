//! What is done for an order: commands to aggregates, and calls of what is outside.

use std::{fmt, sync::Arc, time::Duration};

use evenfold::{ActionContext, ActionError, CommandContext, ExecuteError, Retry, error::with_causes};

use super::{Fulfilment, News, Outcome, Todo};
use crate::{
    carrier::{Carrier, CarrierError},
    gateway::{Charge, Charged, GatewayError, PaymentGateway},
    ids::{CustomerId, OrderId},
    inventory::{InventoryCommand, InventoryRefusal},
    line::Line,
    notification::Channels,
    order::{OrderCommand, OrderRefusal, Status},
    payment::{PaymentCommand, PaymentRefusal},
    shipment::{Shipment, ShipmentCommand},
};

/// How long it may take to tell a customer something: less than an attempt.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// What is outside of the service.
#[derive(Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Ports {
    pub gateway: Arc<dyn PaymentGateway>,
    pub carrier: Arc<dyn Carrier>,
    pub channels: Channels,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

impl Fulfilment {
    pub(super) async fn do_it(&self, action: &Todo, context: &ActionContext) -> Result<Outcome, ActionError> {
        let order = context.instance().parse::<OrderId>().map_err(|error| ActionError::Permanent(error.into()))?;
        let done = match action {
            Todo::Charge(charge) => return self.charge(charge, context).await,
            Todo::Void(charge) => match self.ports.gateway.refund(&context.key(), charge).await {
                Ok(()) => Ok(()),
                Err(GatewayError::Declined(reason)) => Err(ActionError::Refused(reason)),
                Err(GatewayError::Unavailable(cause)) => Err(ActionError::Transient(cause)),
            },
            Todo::Capture { amount } => {
                let capture = PaymentCommand::Capture { amount: *amount };
                match self.payments.execute_with(&order, capture, context.command()?).await {
                    Err(ExecuteError::Rejected(PaymentRefusal::AlreadyCaptured)) => Ok(()),
                    done => Ok(done.map(drop)?),
                }
            }
            Todo::Refund => {
                match self.payments.execute_with(&order, PaymentCommand::Refund, context.command()?).await {
                    Err(ExecuteError::Rejected(PaymentRefusal::NothingToRefund)) => Ok(()),
                    done => Ok(done.map(drop)?),
                }
            }
            Todo::Reserve { lines, marks } => self.reserve(&order, lines, *marks, context).await,
            Todo::Release { lines } => self.release(&order, lines, context).await,
            Todo::Schedule { customer, marks } => self.schedule(&order, customer, *marks, context).await,
            Todo::CancelShipment => self.cancel_shipment(&order, context).await,
            Todo::Deliver { lines, marks } => self.deliver(&order, lines, *marks, context).await,
            Todo::Tell(customer, news) => self.tell(&order, customer, news, context).await,
            Todo::Cancel { customer, lines, reason } => {
                // One that was refused has reserved some of them.
                self.release(&order, lines, context).await?;
                self.cancel(&order, reason, context.command()?).await?;
                self.tell(&order, customer, &News::Cancelled(reason.clone()), context).await
            }
            Todo::Stop { reason } => Err(ActionError::Refused(reason.clone())),
        };
        done.map(|()| Outcome::Done)
    }

    async fn charge(&self, charge: &Charge, context: &ActionContext) -> Result<Outcome, ActionError> {
        match self.ports.gateway.capture(&context.key(), charge).await {
            Ok(Charged::Now) => {
                self.mark(&charge.order, OrderCommand::Pay, context).await?;
                Ok(Outcome::Done)
            }
            Ok(Charged::Later) => Ok(Outcome::Later),
            Err(GatewayError::Declined(reason)) => {
                let decline = PaymentCommand::Decline { reason: reason.clone() };
                self.payments.execute_with(&charge.order, decline, context.command()?).await?;
                Err(ActionError::Refused(reason))
            }
            Err(GatewayError::Unavailable(cause)) => Err(ActionError::Transient(cause)),
        }
    }

    /// Takes the order a step further, unless it is there already.
    async fn mark(&self, order: &OrderId, step: OrderCommand, context: &ActionContext) -> Result<(), ActionError> {
        match self.orders.execute_with(order, step, context.command_of("order")?).await {
            Err(ExecuteError::Rejected(OrderRefusal::Illegal { from, to }))
                if from >= to && from != Status::Cancelled =>
            {
                Ok(())
            }
            done => Ok(done.map(drop)?),
        }
    }

    async fn reserve(
        &self,
        order: &OrderId,
        lines: &[Line],
        marks: bool,
        context: &ActionContext,
    ) -> Result<(), ActionError> {
        for (product, pieces) in Line::pieces(lines) {
            let opening = self.opening.opening_of(&product);
            let reserve = InventoryCommand::Reserve { order: order.clone(), pieces, opening };
            match self.inventory.execute_with(&product, reserve, context.command_of(product.as_ref())?).await {
                Err(ExecuteError::Rejected(refusal)) => {
                    return Err(ActionError::Refused(format!("{product}: {refusal}")));
                }
                done => done?,
            };
        }
        if marks { self.mark(order, OrderCommand::Reserve, context).await } else { Ok(()) }
    }

    async fn release(&self, order: &OrderId, lines: &[Line], context: &ActionContext) -> Result<(), ActionError> {
        for product in Line::pieces(lines).into_keys() {
            let release = InventoryCommand::Release { order: order.clone() };
            match self.inventory.execute_with(&product, release, context.command_of(product.as_ref())?).await {
                Ok(_) | Err(ExecuteError::Rejected(InventoryRefusal::NotReserved(_))) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn schedule(
        &self,
        order: &OrderId,
        customer: &CustomerId,
        marks: bool,
        context: &ActionContext,
    ) -> Result<(), ActionError> {
        match self.ports.carrier.schedule(&context.key(), order, customer).await {
            Ok(()) => {}
            Err(CarrierError::Refused(reason)) => {
                let fail = ShipmentCommand::Fail { reason: reason.clone() };
                self.shipments.execute_with(order, fail, context.command()?).await?;
                return Err(ActionError::Refused(reason));
            }
            Err(CarrierError::Unavailable(cause)) => return Err(ActionError::Transient(cause)),
        }
        let schedule = ShipmentCommand::Schedule { customer: customer.clone() };
        self.shipments.execute_with(order, schedule, context.command()?).await?;
        if marks { self.mark(order, OrderCommand::Ship, context).await } else { Ok(()) }
    }

    async fn cancel_shipment(&self, order: &OrderId, context: &ActionContext) -> Result<(), ActionError> {
        match self.ports.carrier.cancel(&context.key(), order).await {
            Ok(()) => {}
            Err(CarrierError::Refused(reason)) => return Err(ActionError::Refused(reason)),
            Err(CarrierError::Unavailable(cause)) => return Err(ActionError::Transient(cause)),
        }
        match self.shipments.execute_with(order, ShipmentCommand::Cancel, context.command()?).await {
            Err(ExecuteError::Rejected(refusal)) if refusal.now != Shipment::Delivered => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    async fn deliver(
        &self,
        order: &OrderId,
        lines: &[Line],
        marks: bool,
        context: &ActionContext,
    ) -> Result<(), ActionError> {
        for product in Line::pieces(lines).into_keys() {
            let dispatch = InventoryCommand::Dispatch { order: order.clone() };
            self.inventory.execute_with(&product, dispatch, context.command_of(product.as_ref())?).await?;
        }
        self.shipments.execute_with(order, ShipmentCommand::Deliver, context.command()?).await?;
        if marks { self.mark(order, OrderCommand::Complete, context).await } else { Ok(()) }
    }

    /// Cancels the order, unless a client has done so.
    async fn cancel(&self, order: &OrderId, reason: &str, context: CommandContext) -> Result<(), ActionError> {
        let cancel = OrderCommand::Cancel { reason: Some(reason.to_owned()) };
        match self.orders.execute_with(order, cancel, context).await {
            Err(ExecuteError::Rejected(OrderRefusal::Illegal { from: Status::Cancelled, .. })) => Ok(()),
            // A client has completed it by hand, and what it says is not so: that is for an operator.
            Err(error @ ExecuteError::Rejected(OrderRefusal::Illegal { .. })) => {
                Err(ActionError::Permanent(error.into()))
            }
            done => Ok(done.map(drop)?),
        }
    }

    /// Tells the customer. An order does not fail because its customer cannot be told.
    async fn tell(
        &self,
        order: &OrderId,
        customer: &CustomerId,
        news: &News,
        context: &ActionContext,
    ) -> Result<(), ActionError> {
        let (message, command) = (news.message(order, customer), context.command_of("notification")?);
        let told = tokio::time::timeout(TOLD_WITHIN, self.notifications.tell(&message, command)).await;
        let is_last = context.attempt() >= Retry::default().attempts;
        let Ok(told) = told else {
            tracing::warn!(%order, %customer, "the customer was not told in time");
            return if is_last { Ok(()) } else { Err(ActionError::Transient("no answer".into())) };
        };
        match told {
            Err(error) if error.is_transient() && !is_last => Err(ActionError::Transient(error.into())),
            Err(error) => {
                tracing::warn!(%order, %customer, reason = with_causes(&error), "the customer was not told");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }
}
