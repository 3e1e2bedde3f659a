use es_core::Event;

#[derive(Event)]
#[event(name = "order.placed")]
struct NoCategory {
    total: String,
}

#[derive(Event)]
#[event(category = "order")]
struct OrderPlaced {
    total: String,
}

#[derive(Event)]
#[event(category = "order", name = "order.paid", version = 2)]
struct NoUpcaster {
    total: String,
}

#[derive(Event)]
#[event(category = "order", name = "order.pair")]
struct Pair(String, String);

#[derive(Event)]
#[event(category = "order", name = "order.none")]
struct NoFields();

#[derive(Event)]
#[event(category = "order", name = "order.tagged", tag = "customer:{custmer}")]
struct Tagged {
    customer: String,
}

#[derive(Event)]
#[event(category = "order", name = "order.generic")]
struct Generic<T> {
    value: T,
}

#[derive(Event)]
#[event(category = "order", name = "order.other", kind = "placed")]
struct OtherKey {
    #[event(name = "total")]
    total: String,
}

fn main() {}
