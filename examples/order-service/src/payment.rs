//! The payment of an order: captured or declined, and refunded when the order is cancelled later.

use evenfold::{Aggregate, Event};
use serde::{Deserialize, Serialize};

use crate::money::Money;

/// The commands of a payment.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum PaymentCommand {
    Capture { amount: Money },
    Decline { reason: String },
    Refund,
}

/// What has happened to a payment.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(category = "payment")]
#[expect(missing_docs, reason = "the names say it")]
pub enum PaymentEvent {
    #[event(name = "payment.captured")]
    Captured { amount: Money },
    #[event(name = "payment.declined")]
    Declined { reason: String },
    #[event(name = "payment.refunded")]
    Refunded { amount: Money },
}

/// A payment. Its id is that of its order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Payment {
    #[default]
    Open,
    Captured {
        amount: Money,
    },
    Declined {
        reason: String,
    },
    Refunded,
}

impl Aggregate for Payment {
    type Command = PaymentCommand;
    type Event = PaymentEvent;
    type Error = PaymentRefusal;

    fn handle(&self, command: &PaymentCommand) -> Result<Vec<PaymentEvent>, PaymentRefusal> {
        match (command, self) {
            (PaymentCommand::Capture { amount }, Self::Open) => Ok(vec![PaymentEvent::Captured { amount: *amount }]),
            (
                PaymentCommand::Capture { .. } | PaymentCommand::Decline { .. },
                Self::Captured { .. } | Self::Refunded,
            ) => Err(PaymentRefusal::AlreadyCaptured),
            (PaymentCommand::Decline { reason }, Self::Open) => {
                Ok(vec![PaymentEvent::Declined { reason: reason.clone() }])
            }
            (PaymentCommand::Capture { .. } | PaymentCommand::Decline { .. }, Self::Declined { reason }) => {
                Err(PaymentRefusal::Declined { reason: reason.clone() })
            }
            (PaymentCommand::Refund, Self::Captured { amount }) => Ok(vec![PaymentEvent::Refunded { amount: *amount }]),
            (PaymentCommand::Refund, _) => Err(PaymentRefusal::NothingToRefund),
        }
    }

    fn apply(&mut self, event: &PaymentEvent) {
        *self = match event {
            PaymentEvent::Captured { amount } => Self::Captured { amount: *amount },
            PaymentEvent::Declined { reason } => Self::Declined { reason: reason.clone() },
            PaymentEvent::Refunded { .. } => Self::Refunded,
        };
    }
}

/// Why a payment refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PaymentRefusal {
    #[error("the payment was already captured")]
    AlreadyCaptured,
    #[error("the payment was declined: {reason}")]
    Declined { reason: String },
    #[error("there is nothing to refund")]
    NothingToRefund,
}

#[cfg(test)]
mod tests {
    use evenfold::testing::given;

    use super::*;

    #[test]
    fn a_payment_is_captured_once() {
        let amount = Money::of_cents(9_998);
        let (capture, captured) = (PaymentCommand::Capture { amount }, PaymentEvent::Captured { amount });
        let payment = given::<Payment>([]).when(&capture).then([captured]);
        payment.when(&capture).then_refused(&PaymentRefusal::AlreadyCaptured);
    }

    #[test]
    fn a_payment_that_was_declined_is_neither_captured_nor_refunded() {
        let (amount, reason) = (Money::of_cents(9_998), "the card has expired".to_owned());
        let decline = PaymentCommand::Decline { reason: reason.clone() };
        let declined = PaymentEvent::Declined { reason: reason.clone() };
        let payment = given::<Payment>([]).when(&decline).then([declined.clone()]);
        for command in [PaymentCommand::Capture { amount }, decline.clone()] {
            let payment = given::<Payment>([declined.clone()]).when(&command);
            payment.then_refused(&PaymentRefusal::Declined { reason: reason.clone() });
        }
        payment.when(&PaymentCommand::Refund).then_refused(&PaymentRefusal::NothingToRefund);
        let captured = given::<Payment>([PaymentEvent::Captured { amount }]);
        captured.when(&decline).then_refused(&PaymentRefusal::AlreadyCaptured);
    }

    #[test]
    fn what_was_captured_is_refunded_once() {
        let amount = Money::of_cents(9_998);
        let (captured, refunded) = (PaymentEvent::Captured { amount }, PaymentEvent::Refunded { amount });
        let payment = given::<Payment>([captured]).when(&PaymentCommand::Refund).then([refunded]);
        payment.when(&PaymentCommand::Refund).then_refused(&PaymentRefusal::NothingToRefund);
        given::<Payment>([]).when(&PaymentCommand::Refund).then_refused(&PaymentRefusal::NothingToRefund);
    }
}
