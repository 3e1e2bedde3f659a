use es_core::Event;

#[derive(PartialEq, Event)]
#[event(category = "order", name = "order.placed")]
struct OrderPlaced {
    total: String,
}

#[derive(PartialEq, Event)]
#[event(category = "order")]
enum OrderEvent {
    #[event(version = 2, upcast(1 = old))]
    Versioned(OrderPlaced),
    #[serde(rename_all = "camelCase")]
    Renamed(OrderPlaced),
    With(#[serde(with = "text")] OrderPlaced),
    #[event(tag = "total:{total:03}")]
    Tagged(OrderPlaced),
}

fn main() {}
