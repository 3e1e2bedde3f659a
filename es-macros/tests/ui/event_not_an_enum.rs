use es_core::Event;

#[derive(Event)]
#[event(category = "order")]
struct OrderPlaced {
    total: String,
}

#[derive(Event)]
union Bits {
    int: u32,
    float: f32,
}

fn main() {}
