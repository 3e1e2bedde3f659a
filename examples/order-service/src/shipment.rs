//! The shipment of an order: scheduled, then delivered or cancelled; or it fails, since no carrier takes it.

use evenfold::{Aggregate, Event};
use serde::{Deserialize, Serialize};

use crate::ids::CustomerId;

/// The commands of a shipment.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum ShipmentCommand {
    Schedule { customer: CustomerId },
    Fail { reason: String },
    Deliver,
    Cancel,
}

/// What has happened to a shipment.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(category = "shipment")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ShipmentEvent {
    #[event(name = "shipment.scheduled")]
    Scheduled { customer: CustomerId },
    #[event(name = "shipment.failed")]
    Failed { reason: String },
    #[event(name = "shipment.delivered")]
    Delivered,
    #[event(name = "shipment.cancelled")]
    Cancelled,
}

/// A shipment. Its id is that of its order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Shipment {
    #[default]
    Unscheduled,
    Scheduled,
    Failed,
    Delivered,
    Cancelled,
}

impl Aggregate for Shipment {
    type Command = ShipmentCommand;
    type Event = ShipmentEvent;
    type Error = ShipmentRefusal;

    fn handle(&self, command: &ShipmentCommand) -> Result<Vec<ShipmentEvent>, ShipmentRefusal> {
        let event = match (command, self) {
            (ShipmentCommand::Schedule { customer }, Self::Unscheduled) => {
                ShipmentEvent::Scheduled { customer: customer.clone() }
            }
            (ShipmentCommand::Fail { reason }, Self::Unscheduled) => ShipmentEvent::Failed { reason: reason.clone() },
            (ShipmentCommand::Deliver, Self::Scheduled) => ShipmentEvent::Delivered,
            (ShipmentCommand::Cancel, Self::Scheduled) => ShipmentEvent::Cancelled,
            (_, now) => return Err(ShipmentRefusal { now: *now }),
        };
        Ok(vec![event])
    }

    fn apply(&mut self, event: &ShipmentEvent) {
        *self = match event {
            ShipmentEvent::Scheduled { .. } => Self::Scheduled,
            ShipmentEvent::Failed { .. } => Self::Failed,
            ShipmentEvent::Delivered => Self::Delivered,
            ShipmentEvent::Cancelled => Self::Cancelled,
        };
    }
}

/// The state of the shipment does not allow the command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the shipment is {now:?}")]
pub struct ShipmentRefusal {
    /// The state of the shipment.
    pub now: Shipment,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use evenfold::testing::given;

    use super::*;

    fn scheduled() -> ShipmentEvent {
        ShipmentEvent::Scheduled { customer: "USR-123".parse().unwrap() }
    }

    #[test]
    fn a_shipment_is_scheduled_and_delivered() {
        let schedule = ShipmentCommand::Schedule { customer: "USR-123".parse().unwrap() };
        let shipment = given::<Shipment>([]).when(&schedule).then([scheduled()]);
        let delivered = shipment.when(&ShipmentCommand::Deliver).then([ShipmentEvent::Delivered]);
        delivered.when(&ShipmentCommand::Cancel).then_refused(&ShipmentRefusal { now: Shipment::Delivered });
    }

    #[test]
    fn a_shipment_that_has_failed_is_not_scheduled() {
        let reason = "no carrier goes there".to_owned();
        let (fail, failed) = (ShipmentCommand::Fail { reason: reason.clone() }, ShipmentEvent::Failed { reason });
        let shipment = given::<Shipment>([]).when(&fail).then([failed]);
        let schedule = ShipmentCommand::Schedule { customer: "USR-123".parse().unwrap() };
        shipment.when(&schedule).then_refused(&ShipmentRefusal { now: Shipment::Failed });
        given::<Shipment>([scheduled()]).when(&fail).then_refused(&ShipmentRefusal { now: Shipment::Scheduled });
    }

    #[test]
    fn a_shipment_is_cancelled_before_it_is_delivered() {
        let cancelled =
            given::<Shipment>([scheduled()]).when(&ShipmentCommand::Cancel).then([ShipmentEvent::Cancelled]);
        cancelled.when(&ShipmentCommand::Deliver).then_refused(&ShipmentRefusal { now: Shipment::Cancelled });
        given::<Shipment>([])
            .when(&ShipmentCommand::Deliver)
            .then_refused(&ShipmentRefusal { now: Shipment::Unscheduled });
    }
}
