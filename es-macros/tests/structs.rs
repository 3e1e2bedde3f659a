//! Events that are structs, alone and wrapped by variants.

#![allow(clippy::unwrap_used)]

use std::fmt::Debug;

use es_core::{
    Event, TagError,
    backend::{EventSchema, Undecodable},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "order", name = "order.placed", version = 2, upcast(1 = placed_without_currency))]
#[event(tag = "customer:{customer}", tags = currency)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OrderPlaced {
    customer: String,
    total_amount: u64,
    #[serde(default = "euro")]
    currency: String,
}

#[derive(Deserialize)]
struct PlacedV1 {
    customer: String,
    total: u64,
}

fn placed_without_currency(old: PlacedV1) -> OrderPlaced {
    OrderPlaced { customer: old.customer, total_amount: old.total, currency: euro() }
}

fn currency(placed: &OrderPlaced) -> Vec<String> {
    vec![format!("currency:{}", placed.currency)]
}

fn euro() -> String {
    "EUR".into()
}

/// Has serde of its own, for another purpose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(category = "order", name = "order.noted", tag = "note:{0}")]
struct OrderNoted(String);

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "order", name = "order.closed")]
struct OrderClosed;

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "order", tag = "orders")]
enum OrderEvent {
    Placed(OrderPlaced),
    #[event(tag = "again:{0}")]
    Noted(OrderNoted),
    #[event(name = "order.cancelled")]
    Cancelled {
        by: String,
    },
    Closed(OrderClosed),
    /// Wraps an event under a name of its own, and its payload is that of serde.
    #[event(name = "order.copied")]
    Copied(OrderNoted),
}

/// Fields of the wrapped events in the tags of the enum.
#[derive(Debug, PartialEq, Event)]
#[event(category = "order", tag = "amount:{total_amount}")]
enum PlacedOnly {
    Placed(OrderPlaced),
}

fn placed() -> OrderPlaced {
    OrderPlaced { customer: "ada".into(), total_amount: 7, currency: "USD".into() }
}

#[track_caller]
fn assert_round_trip<E: Event + Debug + PartialEq>(event: &E, json: &str) {
    let EventSchema { name, version } = event.schema();
    assert_eq!(event.encode().unwrap(), json);
    assert_eq!(E::decode(name, version, json.as_bytes()).unwrap(), *event);
}

fn tags(event: &impl Event) -> Vec<String> {
    event.tags().unwrap().iter().map(|tag| tag.as_str().to_owned()).collect()
}

#[test]
fn a_struct_is_one_kind_of_event() {
    assert_eq!(OrderPlaced::CATEGORY, "order");
    assert_eq!(OrderPlaced::SCHEMAS, [EventSchema { name: "order.placed", version: 2 }]);
    assert_round_trip(&placed(), r#"{"customer":"ada","totalAmount":7,"currency":"USD"}"#);
    assert_round_trip(&OrderNoted("text".into()), r#""text""#);
    assert_round_trip(&OrderClosed, "{}");
    assert_eq!(tags(&placed()), ["customer:ada", "currency:USD"]);
    assert_eq!(tags(&OrderNoted("a".into())), ["note:a"]);
    assert_eq!(tags(&OrderClosed), [""; 0]);
}

#[test]
fn r14_a_struct_reads_its_own_versions_and_nothing_else() {
    let old = OrderPlaced::decode("order.placed", 1, br#"{"customer":"ada","total":7}"#).unwrap();
    assert_eq!(old, OrderPlaced { currency: "EUR".into(), ..placed() });
    let name = OrderPlaced::decode("order.closed", 1, b"{}");
    assert!(matches!(name, Err(Undecodable::UnknownName(name)) if name == "order.closed"));
    let version = OrderPlaced::decode("order.placed", 3, b"{}");
    assert!(matches!(version, Err(Undecodable::UnknownVersion { found: 3, current: 2 })));
    let unknown = br#"{"customer":"ada","totalAmount":7,"more":1}"#;
    assert!(matches!(OrderPlaced::decode("order.placed", 2, unknown), Err(Undecodable::Shape(_))));
    assert!(matches!(OrderClosed::decode("order.closed", 1, b"[]"), Err(Undecodable::Shape(_))));
}

#[test]
fn a_variant_takes_everything_from_the_event_that_it_wraps() {
    let names = OrderEvent::SCHEMAS.iter().map(|schema| (schema.name, schema.version));
    assert_eq!(
        names.collect::<Vec<_>>(),
        [("order.placed", 2), ("order.noted", 1), ("order.cancelled", 1), ("order.closed", 1), ("order.copied", 1)]
    );
    let event = OrderEvent::Placed(placed());
    assert_eq!(event.schema(), placed().schema());
    assert_round_trip(&event, r#"{"customer":"ada","totalAmount":7,"currency":"USD"}"#);
    assert_round_trip(&OrderEvent::Noted(OrderNoted("text".into())), r#""text""#);
    assert_round_trip(&OrderEvent::Closed(OrderClosed), "{}");
    assert_round_trip(&OrderEvent::Cancelled { by: "bob".into() }, r#"{"by":"bob"}"#);
    assert_round_trip(&OrderEvent::Copied(OrderNoted("text".into())), r#""text""#);
    let old = OrderEvent::decode("order.placed", 1, br#"{"customer":"ada","total":7}"#).unwrap();
    assert_eq!(old, OrderEvent::Placed(OrderPlaced { currency: "EUR".into(), ..placed() }));
}

#[test]
fn r14_a_wrapped_event_that_does_not_fit_is_an_error_of_its_own_kind() {
    let version = OrderEvent::decode("order.placed", 3, b"{}");
    assert!(matches!(version, Err(Undecodable::UnknownVersion { found: 3, current: 2 })));
    assert!(matches!(OrderEvent::decode("order.noted", 1, b"1"), Err(Undecodable::Shape(_))));
    assert!(matches!(OrderEvent::decode("order.exploded", 1, b"{}"), Err(Undecodable::UnknownName(_))));
}

#[test]
fn a_wrapped_event_has_its_own_tags_and_those_of_variant_and_enum() {
    assert_eq!(tags(&OrderEvent::Placed(placed())), ["customer:ada", "currency:USD", "orders"]);
    assert_eq!(tags(&OrderEvent::Noted(OrderNoted("a".into()))), ["note:a", "orders", "again:a"]);
    assert_eq!(tags(&OrderEvent::Closed(OrderClosed)), ["orders"]);
    assert_eq!(tags(&PlacedOnly::Placed(placed())), ["customer:ada", "currency:USD", "amount:7"]);
    let error = OrderEvent::Noted(OrderNoted("\n".into())).tags().unwrap_err();
    assert!(matches!(error, TagError { event: "order.noted", rule: "note:{0}", .. }));
}
