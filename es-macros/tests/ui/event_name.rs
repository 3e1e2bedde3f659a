use es_core::Event;

#[derive(Event)]
#[event(category = "order")]
enum OrderEvent {
    PlacedByPhone,
    #[event(version = 2)]
    Shipped,
    #[event(name = "Order.Placed")]
    UpperCase,
    #[event(name = "order..placed")]
    EmptyWord,
    #[event(name = "")]
    Empty,
    #[event(
        name = "order.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaax"
    )]
    Long,
    #[event(name = order.placed)]
    Unquoted,
    #[event(name = "order.cancelled")]
    Cancelled,
    #[event(name = "order.cancelled")]
    Withdrawn,
    #[event(category = "order")]
    WrongKey,
    #[event(name = "order.noted")]
    Noted {
        #[event(name = "text")]
        text: String,
    },
}

fn main() {}
