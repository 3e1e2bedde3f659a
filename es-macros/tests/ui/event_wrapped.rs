use es_core::Event;

#[derive(PartialEq, Event)]
#[event(category = "order", name = "order.placed")]
struct OrderPlaced {
    total: String,
}

#[derive(PartialEq, Event)]
#[event(category = "payment", name = "payment.captured")]
struct PaymentCaptured;

#[derive(PartialEq, Event)]
#[event(category = "order")]
enum OldEvent {
    #[event(name = "order.opened")]
    Opened,
    #[event(name = "order.shut")]
    Shut,
}

#[derive(PartialEq, Event)]
#[event(category = "order")]
enum OrderEvent {
    Placed(OrderPlaced),
    #[event(name = "order.placed")]
    Again,
    Captured(PaymentCaptured),
    Old(OldEvent),
}

#[derive(PartialEq, Event)]
#[event(category = "order", tag = "customer:{customer}")]
enum TaggedEvent {
    Placed(OrderPlaced),
}

#[derive(PartialEq, Event)]
#[event(category = "order", tag = "customer:{customer}")]
enum NamedEvent {
    #[event(name = "order.named")]
    Placed(OrderPlaced),
}

fn main() {}
