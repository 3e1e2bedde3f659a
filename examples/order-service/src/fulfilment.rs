//! The process of an order: paid, reserved, shipped and completed; and taken back where that fails.
//!
//! It drives an order by itself. Of a manual order a client takes each step, and the process follows: it waits for the step, and then
//! does what belongs to it.

mod news;
mod perform;
#[cfg(test)]
mod tests;

use std::time::Duration;

use evenfold::{
    ActionContext, ActionError, AfterLast, Backoff, Correlation, Recorded, Repository, Resources, Retry, Step,
    StepSaga, Steps, async_trait,
};
use serde::{Deserialize, Serialize};

pub use self::{news::News, perform::Ports};
use crate::{
    gateway::Charge,
    ids::{CustomerId, OrderId},
    inventory::InventoryItem,
    line::Line,
    money::Money,
    notification::Notifications,
    order::{Drive, Order, OrderEvent, Status},
    payment::Payment,
    rules::StockRules,
    shipment::Shipment,
};

/// Has orders fulfilled.
#[derive(Debug)]
pub struct Fulfilment {
    orders: Repository<Order>,
    payments: Repository<Payment>,
    inventory: Repository<InventoryItem>,
    shipments: Repository<Shipment>,
    notifications: Notifications,
    opening: StockRules,
    ports: Ports,
}

impl Fulfilment {
    /// Commands go to the aggregates of the same service; `ports` are what is outside of it.
    pub fn new(service: &Resources, opening: StockRules, ports: Ports) -> Self {
        Self {
            orders: service.repository(),
            payments: service.repository(),
            inventory: service.repository(),
            shipments: service.repository(),
            notifications: Notifications::new(service.repository(), ports.channels.clone()),
            opening,
            ports,
        }
    }
}

/// The parts of the service that have orders fulfilled: they belong into one process.
pub const PARTS: [&str; 3] = ["fulfilment", "perform-fulfilment", "saga-fulfilment"];

/// What is known of an order. `None` before its first event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Purchase {
    order: OrderId,
    customer: CustomerId,
    total: Money,
    /// Of a manual order they are known when it is reserved.
    lines: Vec<Line>,
    drive: Drive,
    /// How far the order has come, by its own events.
    status: Status,
    /// Why the order is given up, once it is.
    failure: Option<String>,
}

/// What is done for an order. Each can be done again: what was done before is recognised.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Todo {
    /// Asks the payment provider for the money.
    Charge(Charge),
    /// Has the provider give it back, or not take it.
    Void(Charge),
    /// Books a payment.
    Capture {
        /// How much.
        amount: Money,
    },
    /// Books that it was given back.
    Refund,
    /// Reserves all pieces, or none.
    Reserve {
        /// Which.
        lines: Vec<Line>,
        /// Whether the order is to be told.
        marks: bool,
    },
    /// Makes them free again.
    Release {
        /// Which.
        lines: Vec<Line>,
    },
    /// Has a carrier fetch the parcel.
    Schedule {
        /// To whom.
        customer: CustomerId,
        /// Whether the order is to be told.
        marks: bool,
    },
    /// Has it not do so.
    CancelShipment,
    /// The parcel was delivered.
    Deliver {
        /// What was in it.
        lines: Vec<Line>,
        /// Whether the order is to be told.
        marks: bool,
    },
    /// Tells the customer.
    Tell(CustomerId, News),
    /// Cancels the order, and tells the customer.
    Cancel {
        /// Whose.
        customer: CustomerId,
        /// What may be reserved.
        lines: Vec<Line>,
        /// Why.
        reason: String,
    },
    /// Nothing more: a client has cancelled the order.
    Stop {
        /// What was said.
        reason: String,
    },
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It will be done, and an event of the order tells when.
    Later,
}

type Data = Option<Purchase>;

/// What steps know: an instance begins with an event, from which it learns all of it.
fn known(data: &Data) -> &Purchase {
    data.as_ref().expect("an instance begins with an event of its order")
}

fn is_manual(data: &Data) -> bool {
    known(data).drive.is_manual()
}

/// The order has not come to `status` yet, and a client is to take it there.
fn waits_for(data: &Data, status: Status) -> bool {
    is_manual(data) && known(data).status < status
}

/// What is done unless a client has cancelled the order meanwhile.
fn unless_cancelled(data: &Data, todo: impl FnOnce(Purchase) -> Todo) -> Todo {
    let purchase = known(data).clone();
    match purchase.status {
        Status::Cancelled => Todo::Stop { reason: CANCELLED.to_owned() },
        _ => todo(purchase),
    }
}

const CANCELLED: &str = "the order was cancelled";

/// The order was cancelled, which is all that can fail a step that waits.
fn cancelled(event: &Recorded<OrderEvent>) -> Option<String> {
    matches!(event.data, OrderEvent::Cancelled { .. }).then(|| CANCELLED.to_owned())
}

/// A client takes the order to `status`.
macro_rules! taken_by_hand {
    ($name:literal, $status:ident, $event:pat) => {
        Step::<Fulfilment>::waiting($name)
            .only_if(|data| waits_for(data, Status::$status))
            .completed_by(|event| matches!(event.data, $event))
            .failed_by(cancelled)
    };
}

#[async_trait]
impl StepSaga for Fulfilment {
    const NAME: &'static str = "fulfilment";

    type Event = OrderEvent;
    type Data = Data;
    type Action = Todo;
    type Answer = Outcome;

    /// A manual order that is never paid leaves nothing behind.
    fn correlate(event: &Recorded<OrderEvent>) -> Correlation {
        let order = event.stream.id().to_owned();
        match &event.data {
            OrderEvent::Placed { drive: Drive::Manual, .. } => Correlation::None,
            OrderEvent::Placed { .. } | OrderEvent::Paid { .. } => Correlation::Starts(order),
            _ => Correlation::Continues(order),
        }
    }

    fn learn(data: &mut Data, event: &Recorded<OrderEvent>) {
        let Ok(order) = OrderId::of_stream(&event.stream) else { return };
        let purchase = data.get_or_insert_with(|| Purchase {
            order,
            customer: event.data.customer().clone(),
            total: Money::ZERO,
            lines: Vec::new(),
            drive: Drive::Manual,
            status: Status::Pending,
            failure: None,
        });
        match &event.data {
            OrderEvent::Placed { lines, total, drive, .. } => {
                (purchase.lines, purchase.total, purchase.drive) = (lines.clone(), *total, *drive);
            }
            OrderEvent::Paid { amount, .. } => purchase.total = *amount,
            OrderEvent::Reserved { lines, .. } => purchase.lines.clone_from(lines),
            OrderEvent::Scheduled { .. } | OrderEvent::Completed { .. } | OrderEvent::Cancelled { .. } => {}
        }
        purchase.status = purchase.status.max(event.data.status());
    }

    fn failed(data: &mut Data, step: Option<&str>, reason: &str) {
        if let Some(purchase) = data {
            let reason = match step {
                Some("paid") => "it was not paid in time",
                // What an operator says is not for the customer.
                None => "the shop has cancelled it",
                Some(_) => reason,
            };
            purchase.failure = Some(reason.to_owned());
        }
    }

    fn steps(_version: u32) -> Steps<Self> {
        let confirm = Step::<Self>::new("confirm", |data| Todo::Tell(known(data).customer.clone(), News::Received))
            .compensated_by(|data| {
                let Purchase { customer, lines, failure, .. } = known(data).clone();
                Todo::Cancel { customer, lines, reason: failure.unwrap_or_else(|| CANCELLED.to_owned()) }
            });
        let charge = Step::<Self>::new("charge", |data| Todo::Charge(known(data).charge()))
            .only_if(|data| !is_manual(data))
            .answered(|data, outcome| {
                if let (Some(purchase), Outcome::Done) = (data, outcome) {
                    // The event that tells so may come later than the time limit of the next step.
                    purchase.status = purchase.status.max(Status::PaymentOk);
                }
            })
            .compensated_by(|data| Todo::Void(known(data).charge()))
            // Nothing is said to be given back before the provider has done so.
            .importance(1);
        let paid = Step::<Self>::waiting("paid")
            .only_if(|data| known(data).status < Status::PaymentOk)
            .completed_by(|event| matches!(event.data, OrderEvent::Paid { .. }))
            .failed_by(cancelled)
            .time_limit_of(|data| known(data).pay_within());
        let capture =
            Step::<Self>::new("capture", |data| unless_cancelled(data, |of| Todo::Capture { amount: of.total }))
                .compensated_by(|_| Todo::Refund);
        let reserve = Step::<Self>::new("reserve", |data| {
            unless_cancelled(data, |of| Todo::Reserve { lines: of.lines, marks: !of.drive.is_manual() })
        })
        .compensated_by(|data| Todo::Release { lines: known(data).lines.clone() });
        let schedule = Step::<Self>::new("schedule", |data| {
            unless_cancelled(data, |of| Todo::Schedule { customer: of.customer, marks: !of.drive.is_manual() })
        })
        .compensated_by(|_| Todo::CancelShipment);
        let deliver = Step::<Self>::new("deliver", |data| {
            unless_cancelled(data, |of| Todo::Deliver { lines: of.lines, marks: !of.drive.is_manual() })
        });
        Steps::new()
            .step(confirm)
            .step(charge)
            .step(paid)
            .step(capture)
            .step(taken_by_hand!("reserved", Reserved, OrderEvent::Reserved { .. }))
            .step(reserve)
            .step(taken_by_hand!("scheduled", Scheduled, OrderEvent::Scheduled { .. }))
            .step(schedule)
            .step(
                Step::<Self>::new("tell", |data| Todo::Tell(known(data).customer.clone(), News::OnItsWay))
                    .only_if(|data| known(data).status != Status::Cancelled),
            )
            .step(taken_by_hand!("completed", Completed, OrderEvent::Completed { .. }))
            .step(deliver)
            .step(Step::<Self>::new("thank", |data| Todo::Tell(known(data).customer.clone(), News::Delivered)))
    }

    /// Providers and carriers may be away for some minutes. Then what they may have done is taken back.
    fn retry(action: &Todo) -> Retry {
        let backoff = Backoff::new(Duration::from_secs(1), Duration::from_mins(1));
        let patient = Retry { attempts: 20, backoff, ..Retry::default() };
        match action {
            Todo::Charge(_) | Todo::Schedule { .. } => Retry { after_last: AfterLast::Refuse, ..patient },
            Todo::Void(_) | Todo::CancelShipment => patient,
            _ => Retry::default(),
        }
    }

    async fn perform(&self, action: &Todo, context: ActionContext) -> Result<Outcome, ActionError> {
        self.do_it(action, &context).await
    }
}

impl Purchase {
    fn charge(&self) -> Charge {
        Charge { order: self.order.clone(), customer: self.customer.clone(), amount: self.total }
    }

    fn pay_within(&self) -> Option<Duration> {
        match self.drive {
            Drive::Saga { pay_within_ms } => Some(Duration::from_millis(pay_within_ms)),
            // It was paid before its process began.
            Drive::Manual => None,
        }
    }
}
