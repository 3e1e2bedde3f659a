use es_core::Event;

#[derive(Event)]
#[event(category = "order")]
enum Nothing {}

#[derive(Event)]
#[event(category = "order")]
enum Generic<T> {
    #[event(name = "order.placed")]
    Placed(T),
}

#[derive(Event)]
#[event(category = "order")]
enum Tuples {
    #[event(name = "order.placed")]
    Placed(String, u32),
    #[event(name = "order.cancelled")]
    Cancelled(),
}

fn main() {}
