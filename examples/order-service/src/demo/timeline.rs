//! What has happened to an order, line by line, as the log tells it.

use std::io::{self, Write};

use evenfold::{
    EventSet, Position, ReadError, RecordedEvent, Service,
    error::with_causes,
    react::saga::{Decided, SagaEvent},
};

use crate::{
    fulfilment::Fulfilment,
    ids::OrderId,
    inventory::InventoryEvent,
    line::Line,
    notification::{Channel, NotificationEvent},
    order::{Drive, OrderEvent},
    payment::PaymentEvent,
    shipment::ShipmentEvent,
};

/// How many events are read at once.
const PAGE: usize = 1_000;

/// Everything that belongs to an order.
#[derive(Debug, EventSet)]
#[expect(clippy::large_enum_variant, reason = "one at a time is looked at")]
enum ShopEvent {
    Order(OrderEvent),
    Payment(PaymentEvent),
    Inventory(InventoryEvent),
    Shipment(ShipmentEvent),
    Notification(NotificationEvent),
    Fulfilment(SagaEvent<Fulfilment>),
}

/// Prints the events of `order`, each with the time since it was placed.
pub(super) async fn print(service: &Service, order: &OrderId, out: &mut impl Write) -> Result<(), TimelineError> {
    let (mut after, mut placed_at) = (Position::ZERO, None);
    loop {
        let page = service.store().read_log(after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = last.position;
        for event in &page {
            let Some((what, detail)) = told(order, event) else { continue };
            let since = event.recorded_at - *placed_at.get_or_insert(event.recorded_at);
            writeln!(out, "{:>6} ms  {what:<22} {detail}", since.num_milliseconds())?;
        }
    }
}

/// What `event` tells about `order`: its name, and what is in it.
fn told(order: &OrderId, event: &RecordedEvent) -> Option<(String, String)> {
    let id = event.stream.id();
    let is_its = id == order.as_ref() || id.strip_prefix(order.as_ref()).is_some_and(|rest| rest.starts_with('-'));
    let name = event.data.name.to_string();
    let typed = match event.decode::<ShopEvent>() {
        Ok(typed) => typed?,
        Err(error) => return is_its.then(|| (name, with_causes(&error))),
    };
    let detail = match typed.data {
        ShopEvent::Inventory(event) => match event {
            InventoryEvent::Reserved { order: of, pieces }
            | InventoryEvent::Released { order: of, pieces }
            | InventoryEvent::Dispatched { order: of, pieces } => (of == *order).then(|| format!("{pieces} × {id}"))?,
            InventoryEvent::Received { .. } => return None,
        },
        _ if !is_its => return None,
        ShopEvent::Order(event) => ordered(&event),
        ShopEvent::Payment(PaymentEvent::Captured { amount } | PaymentEvent::Refunded { amount }) => amount.to_string(),
        ShopEvent::Payment(PaymentEvent::Declined { reason })
        | ShopEvent::Shipment(ShipmentEvent::Failed { reason }) => reason,
        ShopEvent::Shipment(_) => String::new(),
        ShopEvent::Notification(NotificationEvent::Sent { customer, channel, text, .. }) => {
            let channel = if channel == Channel::Mail { "mail" } else { "SMS" };
            format!("{channel} to {customer}: {text}")
        }
        ShopEvent::Fulfilment(event) => return decided(event).map(|(what, why)| (what.to_owned(), why)),
    };
    Some((name, detail))
}

fn ordered(event: &OrderEvent) -> String {
    match event {
        OrderEvent::Placed { lines, total, drive, .. } => {
            let items = lines.iter().map(|Line { product, quantity, .. }| format!("{} × {product}", quantity.get()));
            let by_hand = if *drive == Drive::Manual { ", step by step" } else { "" };
            format!("{total}: {}{by_hand}", items.collect::<Vec<_>>().join(", "))
        }
        OrderEvent::Cancelled { reason, .. } => reason.clone().unwrap_or_default(),
        event => format!("it is {}", event.status()),
    }
}

/// What the process of the order has decided, where that is not what the next events show.
fn decided(event: SagaEvent<Fulfilment>) -> Option<(&'static str, String)> {
    match event {
        SagaEvent::Advanced(advanced) if advanced.decided.contains(&Decided::Compensate) => {
            Some(("it is taken back", advanced.state.failure().unwrap_or_default().to_owned()))
        }
        SagaEvent::Failed(failed) => Some(("an operator is needed", failed.cause)),
        SagaEvent::Completed(_) => Some(("all is done", String::new())),
        SagaEvent::Compensated(_) => Some(("all is taken back", String::new())),
        _ => None,
    }
}

/// Why a timeline was not printed.
#[derive(Debug, thiserror::Error)]
pub enum TimelineError {
    /// The log cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The terminal is gone.
    #[error("the timeline cannot be printed")]
    Print(#[from] io::Error),
}
