use es_core::Event;

#[derive(PartialEq, serde::Serialize, serde::Deserialize)]
struct Confirmation {
    by: String,
}

#[derive(PartialEq, Event)]
#[event(category = "order")]
enum OrderEvent {
    Confirmed(Confirmation),
}

fn main() {}
