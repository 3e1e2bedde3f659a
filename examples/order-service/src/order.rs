//! An order. It decides which step comes next, for the saga and for clients that take each step themselves.

use std::{fmt, str::FromStr};

use evenfold::{Aggregate, Event};
use serde::{
    Deserialize, Serialize,
    de::{IntoDeserializer, value},
};

use crate::{ids::CustomerId, line::Line, money::Money, placing::MOST_OPEN_ORDERS};

/// How far an order has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Status {
    Pending,
    PaymentOk,
    Reserved,
    Scheduled,
    Completed,
    Cancelled,
}

impl Status {
    /// In the order in which an order comes to them.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::PaymentOk, Self::Reserved, Self::Scheduled, Self::Completed, Self::Cancelled];
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl FromStr for Status {
    type Err = value::Error;

    fn from_str(text: &str) -> Result<Self, value::Error> {
        Self::deserialize(text.into_deserializer())
    }
}

/// Who takes the steps of an order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "lowercase")]
pub enum Drive {
    /// A client, step by step. So are orders of the time before the saga.
    #[default]
    Manual,
    /// The saga ([`crate::fulfilment`]).
    Saga {
        /// How long the order waits to be paid.
        pay_within_ms: u64,
    },
}

impl Drive {
    /// Whether a client takes the steps.
    pub fn is_manual(&self) -> bool {
        *self == Self::Manual
    }
}

/// The commands of an order.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub enum OrderCommand {
    Place {
        customer: CustomerId,
        lines: Vec<Line>,
        total: Money,
        drive: Drive,
    },
    Pay,
    Reserve,
    Ship,
    Complete,
    Cancel {
        reason: Option<String>,
    },
    /// A client takes the step to this status. An order that the saga drives refuses it.
    Manual(Status),
}

impl OrderCommand {
    /// The status of the order after this command.
    pub fn leads_to(&self) -> Status {
        match self {
            Self::Place { .. } => Status::Pending,
            Self::Pay => Status::PaymentOk,
            Self::Reserve => Status::Reserved,
            Self::Ship => Status::Scheduled,
            Self::Complete => Status::Completed,
            Self::Cancel { .. } => Status::Cancelled,
            Self::Manual(status) => *status,
        }
    }

    /// The step to `status`; `None` if there is none.
    fn to(status: Status) -> Option<Self> {
        match status {
            Status::Pending => None,
            Status::PaymentOk => Some(Self::Pay),
            Status::Reserved => Some(Self::Reserve),
            Status::Scheduled => Some(Self::Ship),
            Status::Completed => Some(Self::Complete),
            Status::Cancelled => Some(Self::Cancel { reason: None }),
        }
    }
}

/// What has happened to an order. Each event names the customer and holds what sagas and projections need, so that they
/// look nothing up. The events that open or close an order also have the customer as a tag, by which
/// [`OpenOrders`](crate::placing::OpenOrders) finds them.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(category = "order")]
#[expect(missing_docs, reason = "the names say it")]
pub enum OrderEvent {
    #[event(name = "order.placed", version = 2, upcast(1 = placed_in_cents), tag = "customer:{customer}")]
    Placed {
        customer: CustomerId,
        lines: Vec<Line>,
        total: Money,
        #[serde(default, skip_serializing_if = "Drive::is_manual")]
        drive: Drive,
    },
    #[event(name = "order.paid")]
    Paid { customer: CustomerId, amount: Money },
    #[event(name = "order.reserved")]
    Reserved { customer: CustomerId, lines: Vec<Line> },
    #[event(name = "order.scheduled")]
    Scheduled { customer: CustomerId },
    #[event(name = "order.completed", tag = "customer:{customer}")]
    Completed { customer: CustomerId, lines: Vec<Line> },
    #[event(name = "order.cancelled", tag = "customer:{customer}")]
    Cancelled {
        customer: CustomerId,
        lines: Vec<Line>,
        was: Status,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

impl OrderEvent {
    /// Whose order it is.
    pub fn customer(&self) -> &CustomerId {
        match self {
            Self::Placed { customer, .. }
            | Self::Paid { customer, .. }
            | Self::Reserved { customer, .. }
            | Self::Scheduled { customer }
            | Self::Completed { customer, .. }
            | Self::Cancelled { customer, .. } => customer,
        }
    }

    /// The status of the order after this event.
    pub fn status(&self) -> Status {
        match self {
            Self::Placed { .. } => Status::Pending,
            Self::Paid { .. } => Status::PaymentOk,
            Self::Reserved { .. } => Status::Reserved,
            Self::Scheduled { .. } => Status::Scheduled,
            Self::Completed { .. } => Status::Completed,
            Self::Cancelled { .. } => Status::Cancelled,
        }
    }
}

/// `order.placed` v1 held the total in cents, which cannot hold prices with more than two decimals.
#[derive(Deserialize)]
struct PlacedV1 {
    customer: CustomerId,
    lines: Vec<Line>,
    total_cents: i64,
}

fn placed_in_cents(PlacedV1 { customer, lines, total_cents }: PlacedV1) -> OrderEvent {
    OrderEvent::Placed { customer, lines, total: Money::of_cents(total_cents), drive: Drive::Manual }
}

/// An order; `None` until it is placed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order(pub Option<Placed>);

/// An order that was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Placed {
    pub customer: CustomerId,
    pub lines: Vec<Line>,
    pub total: Money,
    pub drive: Drive,
    pub status: Status,
}

impl Aggregate for Order {
    type Command = OrderCommand;
    type Event = OrderEvent;
    type Error = OrderRefusal;

    fn handle(&self, command: &OrderCommand) -> Result<Vec<OrderEvent>, OrderRefusal> {
        use OrderCommand::{Cancel, Complete, Manual, Pay, Place, Reserve, Ship};

        let Some(Placed { customer, lines, total, drive, status }) = self.0.clone() else {
            let Place { customer, lines, total, drive } = command.clone() else { return Err(OrderRefusal::Unknown) };
            check(&lines, total)?;
            return Ok(vec![OrderEvent::Placed { customer, lines, total, drive }]);
        };
        if let Manual(to) = command {
            if !drive.is_manual() {
                return Err(OrderRefusal::Driven);
            }
            let step = OrderCommand::to(*to).ok_or(OrderRefusal::Illegal { from: status, to: *to })?;
            return self.handle(&step);
        }
        let event = match (command, status) {
            (Place { .. }, _) => return Err(OrderRefusal::AlreadyPlaced),
            (Pay, Status::Pending) => OrderEvent::Paid { customer, amount: total },
            (Reserve, Status::PaymentOk) => OrderEvent::Reserved { customer, lines },
            (Ship, Status::Reserved) => OrderEvent::Scheduled { customer },
            (Complete, Status::Scheduled) => OrderEvent::Completed { customer, lines },
            (Cancel { reason }, was) if was < Status::Completed => {
                OrderEvent::Cancelled { customer, lines, was, reason: reason.clone() }
            }
            (step, from) => return Err(OrderRefusal::Illegal { from, to: step.leads_to() }),
        };
        Ok(vec![event])
    }

    fn apply(&mut self, event: &OrderEvent) {
        if let OrderEvent::Placed { customer, lines, total, drive } = event {
            let (customer, lines) = (customer.clone(), lines.clone());
            self.0 = Some(Placed { customer, lines, total: *total, drive: *drive, status: Status::Pending });
        } else if let Some(placed) = &mut self.0 {
            placed.status = event.status();
        }
    }
}

fn check(lines: &[Line], total: Money) -> Result<(), OrderRefusal> {
    if lines.is_empty() {
        return Err(OrderRefusal::Empty);
    }
    match Line::total(lines) {
        Some(sum) if sum == total => Ok(()),
        Some(sum) => Err(OrderRefusal::Total { sum, total }),
        None => Err(OrderRefusal::TooExpensive),
    }
}

/// Why an order refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum OrderRefusal {
    #[error("there is no such order")]
    Unknown,
    #[error("the order is placed already")]
    AlreadyPlaced,
    #[error(
        "the customer has {MOST_OPEN_ORDERS} orders that are neither completed nor cancelled, and may have no more"
    )]
    TooManyOpen,
    #[error("an order has at least one item")]
    Empty,
    #[error("the items add up to {sum}, not to {total}")]
    Total { sum: Money, total: Money },
    #[error("the total of the items is too large")]
    TooExpensive,
    #[error("the order takes its steps by itself; place it with ?drive=manual to take them one by one")]
    Driven,
    #[error("an order that is {from} cannot become {to}")]
    Illegal { from: Status, to: Status },
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use evenfold::testing::given;

    use super::*;

    fn customer() -> CustomerId {
        "USR-123".parse().unwrap()
    }

    fn lines() -> Vec<Line> {
        let (product, quantity) = ("PROD-456".parse().unwrap(), 2.try_into().unwrap());
        vec![Line { product, quantity, price: Money::of_cents(4_999) }]
    }

    fn place(lines: Vec<Line>, cents: i64) -> OrderCommand {
        OrderCommand::Place { customer: customer(), lines, total: Money::of_cents(cents), drive: Drive::Manual }
    }

    /// The life of an order that is not cancelled.
    fn life() -> [(OrderCommand, OrderEvent); 5] {
        let (customer, lines, total) = (customer(), lines(), Money::of_cents(9_998));
        let drive = Drive::Manual;
        let placed = OrderEvent::Placed { customer: customer.clone(), lines: lines.clone(), total, drive };
        let paid = OrderEvent::Paid { customer: customer.clone(), amount: total };
        let reserved = OrderEvent::Reserved { customer: customer.clone(), lines: lines.clone() };
        let scheduled = OrderEvent::Scheduled { customer: customer.clone() };
        let completed = OrderEvent::Completed { customer, lines: lines.clone() };
        [
            (place(lines, 9_998), placed),
            (OrderCommand::Pay, paid),
            (OrderCommand::Reserve, reserved),
            (OrderCommand::Ship, scheduled),
            (OrderCommand::Complete, completed),
        ]
    }

    fn lived(steps: usize) -> Vec<OrderEvent> {
        life().into_iter().take(steps).map(|(_, event)| event).collect()
    }

    #[test]
    fn an_order_is_placed_paid_reserved_shipped_and_completed() {
        for (step, (command, event)) in life().into_iter().enumerate() {
            given::<Order>(lived(step)).when(&command).then([event]);
        }
    }

    #[test]
    fn every_other_step_is_refused() {
        for steps in 1..=5 {
            let from = lived(steps)[steps - 1].status();
            for (other, (command, _)) in life().into_iter().enumerate().skip(1).filter(|(other, _)| *other != steps) {
                let to = life()[other].1.status();
                given::<Order>(lived(steps)).when(&command).then_refused(&OrderRefusal::Illegal { from, to });
            }
        }
    }

    #[test]
    fn an_order_is_cancelled_until_it_is_completed() {
        for steps in 1..=4 {
            let was = lived(steps)[steps - 1].status();
            let reason = Some("the customer does not want it".to_owned());
            let cancelled = OrderEvent::Cancelled { customer: customer(), lines: lines(), was, reason: reason.clone() };
            let cancel = OrderCommand::Cancel { reason };
            let refused = OrderRefusal::Illegal { from: Status::Cancelled, to: Status::Cancelled };
            let order = given::<Order>(lived(steps)).when(&cancel).then([cancelled]);
            order.when(&cancel).then_refused(&refused);
        }
        let refused = OrderRefusal::Illegal { from: Status::Completed, to: Status::Cancelled };
        given::<Order>(lived(5)).when(&OrderCommand::Cancel { reason: None }).then_refused(&refused);
    }

    #[test]
    fn an_order_is_placed_once_and_before_anything_else() {
        given::<Order>(lived(1)).when(&place(lines(), 9_998)).then_refused(&OrderRefusal::AlreadyPlaced);
        for command in [OrderCommand::Pay, OrderCommand::Manual(Status::Cancelled)] {
            given::<Order>([]).when(&command).then_refused(&OrderRefusal::Unknown);
        }
    }

    #[test]
    fn a_client_takes_the_steps_of_a_manual_order_and_of_no_other() {
        for (step, (command, event)) in life().into_iter().enumerate().skip(1) {
            given::<Order>(lived(step)).when(&OrderCommand::Manual(command.leads_to())).then([event]);
        }
        let to_pending = given::<Order>(lived(2)).when(&OrderCommand::Manual(Status::Pending));
        to_pending.then_refused(&OrderRefusal::Illegal { from: Status::PaymentOk, to: Status::Pending });
        let [OrderEvent::Placed { customer, lines, total, .. }] = &lived(1)[..] else { panic!("it is placed first") };
        let drive = Drive::Saga { pay_within_ms: 900_000 };
        let driven = OrderEvent::Placed { customer: customer.clone(), lines: lines.clone(), total: *total, drive };
        for status in Status::ALL {
            let order = given::<Order>([driven.clone()]).when(&OrderCommand::Manual(status));
            order.then_refused(&OrderRefusal::Driven);
        }
        given::<Order>([driven]).when(&OrderCommand::Pay).then([lived(2)[1].clone()]);
    }

    /// Orders of the time before the saga are manual, and manual orders are written as they were.
    #[test]
    fn who_drives_is_written_for_the_saga_only() {
        let [placed] = &lived(1)[..] else { panic!("it is placed first") };
        let old =
            br#"{"customer":"USR-123","lines":[{"product":"PROD-456","quantity":2,"price":"49.99"}],"total":"99.98"}"#;
        assert_eq!(&OrderEvent::decode("order.placed", 2, old).unwrap(), placed);
        assert_eq!(&*placed.encode().unwrap(), old);
        let driven = br#"{"customer":"U","lines":[],"total":"0.00","drive":{"by":"saga","pay_within_ms":5}}"#;
        let OrderEvent::Placed { drive, .. } = OrderEvent::decode("order.placed", 2, driven).unwrap() else {
            panic!("?")
        };
        assert_eq!(drive, Drive::Saga { pay_within_ms: 5 });
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        given::<Order>([]).when(&place(vec![], 0)).then_refused(&OrderRefusal::Empty);
        let refused = OrderRefusal::Total { sum: Money::of_cents(9_998), total: Money::of_cents(9_999) };
        given::<Order>([]).when(&place(lines(), 9_999)).then_refused(&refused);
    }

    #[test]
    fn version_1_held_the_total_in_cents() {
        let old = br#"{"customer":"USR-123","lines":[{"product":"PROD-456","quantity":2,"price":"49.99"}],"total_cents":9998}"#;
        assert_eq!(OrderEvent::decode("order.placed", 1, old).unwrap(), lived(1)[0]);
    }
}
