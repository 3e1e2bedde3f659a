//! What customers are told.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{CustomerId, OrderId},
    notification::{Channel, Message},
};

/// What a customer is told of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    /// It is in hand.
    Received,
    /// The parcel is with the carrier.
    OnItsWay,
    /// It has come to its end.
    Delivered,
    /// It was given up, for this reason.
    Cancelled(String),
}

impl News {
    /// The message. Its key has the order and what is told: a customer is told once.
    pub fn message(&self, order: &OrderId, customer: &CustomerId) -> Message {
        let (name, channel, subject, text) = match self {
            Self::Received => ("received", Channel::Mail, "has come in", "We have received your order.".to_owned()),
            Self::OnItsWay => {
                ("on-its-way", Channel::Sms, "is on its way", format!("Your order {order} is on its way."))
            }
            Self::Delivered => ("delivered", Channel::Mail, "was delivered", "Thank you for your order.".to_owned()),
            Self::Cancelled(reason) => {
                let text =
                    format!("We have cancelled your order: {reason}. If you have paid, you get your money back.");
                ("cancelled", Channel::Mail, "is cancelled", text)
            }
        };
        let subject = format!("Your order {order} {subject}");
        Message { key: format!("{order}-{name}"), customer: customer.clone(), channel, subject, text }
    }
}
