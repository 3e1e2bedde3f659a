use es_core::Event;

#[derive(Event)]
enum StockItemEvent {
    #[event(name = "stock_item.counted")]
    Counted,
}

#[derive(Event)]
#[event(category = "Order")]
enum UpperCase {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Event)]
#[event(category = "1order")]
enum Digit {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Event)]
#[event(category = "es_order")]
enum Reserved {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Event)]
#[event(category = "a234567890123456789012345678901234567890123456789012345678901234x")]
enum Long {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Event)]
#[event(category = order)]
enum Unquoted {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Event)]
#[event(category = "order", category = "payment")]
enum Twice {
    #[event(name = "order.placed")]
    Placed,
}

#[derive(Event)]
#[event(name = "order")]
enum WrongKey {
    #[event(name = "order.placed")]
    Placed,
}

fn main() {}
