use es_core::{Event, EventSet};

#[derive(PartialEq, Event)]
#[event(category = "order")]
enum OrderEvent {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(EventSet)]
struct NotAnEnum {
    order: OrderEvent,
}

#[derive(EventSet)]
enum Nothing {}

#[derive(EventSet)]
enum Generic<E> {
    Order(E),
}

#[derive(EventSet)]
enum SalesEvent {
    Order(OrderEvent),
    Again(OrderEvent),
    Payment,
    Refund { refund: String },
    Shipment(OrderEvent, u32),
}

fn main() {}
