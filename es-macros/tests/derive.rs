//! What derived events and sets do.

#![allow(clippy::unwrap_used)]

use std::{borrow::Cow, error::Error, fmt::Debug, sync::Arc};

use es_core::{
    Event, EventData, EventSet, Metadata, RecordedEvent, StreamId,
    backend::{Categories, EventSchema, Undecodable},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "order")]
enum OrderEvent {
    #[event(
        name = "order.placed",
        version = 3,
        upcast(1 = upcast::placed_without_currency, 2 = upcast::placed_with_cents)
    )]
    Placed { customer: String, total: String, currency: Cow<'static, str> },
    #[event(name = "order.confirmed")]
    Confirmed(Confirmation),
    #[event(name = "order.noted")]
    Noted(Option<String>),
    #[event(name = "order.cancelled")]
    Cancelled,
    #[event(name = "order.archived")]
    Archived {},
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Confirmation {
    by: String,
}

mod upcast {
    use serde::Deserialize;

    use super::OrderEvent;

    #[derive(Deserialize)]
    pub(crate) struct PlacedV1 {
        customer: String,
        total: String,
    }

    pub(crate) fn placed_without_currency(old: PlacedV1) -> OrderEvent {
        let PlacedV1 { customer, total } = old;
        OrderEvent::Placed { customer, total, currency: "EUR".into() }
    }

    /// Borrows from the payload.
    #[derive(Deserialize)]
    pub(crate) struct PlacedV2<'a> {
        customer: String,
        cents: u64,
        currency: Option<&'a str>,
    }

    pub(crate) fn placed_with_cents(old: PlacedV2<'_>) -> OrderEvent {
        let PlacedV2 { customer, cents, currency } = old;
        OrderEvent::Placed {
            customer,
            total: format!("{}.{:02}", cents / 100, cents % 100),
            currency: currency.unwrap_or("USD").to_owned().into(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "payment")]
enum PaymentEvent {
    #[event(name = "payment.captured")]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    Captured {
        payment_method: String,
        #[serde(rename = "ref")]
        reference: u8,
        #[serde(default, skip_serializing_if = "is_default")]
        retries: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        r#type: Option<String>,
        #[serde(with = "hex")]
        digest: Digest,
        #[serde(default = "unspecified")]
        reason: String,
        #[serde(skip)]
        cached: u64,
    },
    #[event(name = "payment.flattened")]
    Flattened {
        id: u8,
        #[serde(flatten)]
        rest: Confirmation,
    },
    #[event(name = "payment.hashed")]
    Hashed(#[serde(with = "hex")] Digest),
    #[event(name = "payment.closed")]
    #[serde(deny_unknown_fields)]
    Closed,
    #[event(name = "payment.expected")]
    #[serde(expecting = "a good payment")]
    Expected { id: u8 },
}

/// Implements nothing for its references, like many types under a generic `with`.
#[derive(Debug, Clone, PartialEq)]
struct Digest(u8);

trait Hex: Sized {
    fn hex(&self) -> String;
    fn parse(text: &str) -> Option<Self>;
}

impl Hex for Digest {
    fn hex(&self) -> String {
        format!("{:02x}", self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        u8::from_str_radix(text, 16).ok().map(Self)
    }
}

mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::Hex;

    pub(crate) fn serialize<T: Hex, S: Serializer>(it: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&it.hex())
    }

    pub(crate) fn deserialize<'de, T: Hex, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        T::parse(&String::deserialize(from)?).ok_or_else(|| D::Error::custom("not hex"))
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn unspecified() -> String {
    "unspecified".into()
}

#[derive(Debug, PartialEq, EventSet)]
enum SalesEvent {
    Order(OrderEvent),
    Payment(PaymentEvent),
}

/// A set of sets.
#[derive(Debug, PartialEq, EventSet)]
enum Everything {
    Sales(SalesEvent),
    Other(EventData),
}

/// Serialises itself for an API in its own way, and holds itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[serde(tag = "type", rename_all = "kebab-case")]
#[event(category = "tree")]
enum TreeEvent {
    #[event(name = "tree.leaf")]
    Leaf { value: i64 },
    #[event(name = "tree.branch")]
    Branch { inner: Option<Box<Self>> },
}

fn stored<E: Event>(event: &E) -> String {
    String::from_utf8(event.encode().unwrap().to_vec()).unwrap()
}

fn read<E: Event>(name: &str, version: u32, payload: &[u8]) -> Result<E, Undecodable> {
    E::decode(name, version, payload)
}

#[track_caller]
fn assert_round_trip<E: Event + Debug + PartialEq>(event: &E, json: &str) {
    let EventSchema { name, version } = event.schema();
    assert_eq!(stored(event), json);
    assert_eq!(read::<E>(name, version, json.as_bytes()).unwrap(), *event);
}

fn placed(total: &str, currency: &'static str) -> OrderEvent {
    OrderEvent::Placed { customer: "C-1".into(), total: total.into(), currency: currency.into() }
}

fn captured() -> PaymentEvent {
    PaymentEvent::Captured {
        payment_method: "card".into(),
        reference: 7,
        retries: 0,
        r#type: None,
        digest: Digest(255),
        reason: "why".into(),
        cached: 0,
    }
}

fn recorded(category: &str, name: &str, schema_version: u32, payload: &str) -> RecordedEvent {
    RecordedEvent {
        position: serde_json::from_str("1").unwrap(),
        stream: StreamId::new(category, "1").unwrap(),
        version: serde_json::from_str("1").unwrap(),
        id: serde_json::from_str("\"00000000-0000-0000-0000-000000000000\"").unwrap(),
        recorded_at: serde_json::from_str("\"2026-01-01T00:00:00Z\"").unwrap(),
        metadata: Metadata::default(),
        data: EventData { name: Arc::from(name), schema_version, payload: payload.as_bytes().to_vec().into() },
    }
}

#[test]
fn the_category_and_the_schemas_are_those_of_the_attributes() {
    assert_eq!(OrderEvent::CATEGORY, "order");
    let schemas = OrderEvent::SCHEMAS.iter().map(|schema| (schema.name, schema.version));
    assert_eq!(
        schemas.collect::<Vec<_>>(),
        [
            ("order.placed", 3),
            ("order.confirmed", 1),
            ("order.noted", 1),
            ("order.cancelled", 1),
            ("order.archived", 1),
        ]
    );
    assert_eq!(placed("1", "EUR").schema(), OrderEvent::SCHEMAS[0]);
    assert_eq!(OrderEvent::Archived {}.schema(), OrderEvent::SCHEMAS[4]);
}

#[test]
fn every_kind_of_variant_makes_the_round_trip() {
    assert_round_trip(&placed("9.99", "EUR"), r#"{"customer":"C-1","total":"9.99","currency":"EUR"}"#);
    assert_round_trip(&OrderEvent::Confirmed(Confirmation { by: "B".into() }), r#"{"by":"B"}"#);
    assert_round_trip(&OrderEvent::Noted(Some("text".into())), r#""text""#);
    assert_round_trip(&OrderEvent::Noted(None), "null");
    assert_round_trip(&OrderEvent::Cancelled, "{}");
    assert_round_trip(&OrderEvent::Archived {}, "{}");
}

#[test]
fn units_are_read_from_any_object_and_from_nothing_else() {
    for json in ["{}", r#"{"a":{"b":[1]},"c":null}"#, " { } "] {
        let event = read::<OrderEvent>("order.cancelled", 1, json.as_bytes());
        assert_eq!(event.unwrap(), OrderEvent::Cancelled);
    }
    for json in ["", "[]", "null", "1", "\"{}\"", "{", "{} {}"] {
        for name in ["order.cancelled", "order.archived", "payment.closed"] {
            let order = read::<OrderEvent>(name, 1, json.as_bytes()).map(|_| ());
            let payment = read::<PaymentEvent>(name, 1, json.as_bytes()).map(|_| ());
            let result = if name == "payment.closed" { payment } else { order };
            assert!(matches!(result, Err(Undecodable::Shape(_))), "{name} from {json:?}");
        }
    }
}

#[test]
fn serde_attributes_of_fields_and_variants_are_honoured() {
    assert_round_trip(&captured(), r#"{"paymentMethod":"card","ref":7,"digest":"ff","reason":"why"}"#);
    let rest = Confirmation { by: "B".into() };
    assert_round_trip(&PaymentEvent::Flattened { id: 1, rest }, r#"{"id":1,"by":"B"}"#);
    assert_round_trip(&PaymentEvent::Hashed(Digest(16)), r#""10""#);
    assert_round_trip(&PaymentEvent::Closed, "{}");

    let sparse = br#"{"paymentMethod":"card","ref":7,"digest":"ff"}"#;
    let event = read::<PaymentEvent>("payment.captured", 1, sparse).unwrap();
    assert!(matches!(event, PaymentEvent::Captured { reason, .. } if reason == "unspecified"));

    let full = br#"{"paymentMethod":"card","ref":7,"digest":"ff","retries":2,"type":"x"}"#;
    let event = read::<PaymentEvent>("payment.captured", 1, full).unwrap();
    assert!(stored(&event).contains(r#""retries":2,"type":"x""#));

    let unknown = br#"{"paymentMethod":"card","ref":7,"digest":"ff","more":1}"#;
    for (name, payload) in [("payment.captured", &unknown[..]), ("payment.closed", br#"{"a":1}"#)] {
        let result = read::<PaymentEvent>(name, 1, payload);
        assert!(matches!(result, Err(Undecodable::Shape(_))), "{name} denies unknown fields");
    }
}

#[test]
fn serde_of_the_enum_itself_is_another_matter() {
    let leaf = TreeEvent::Leaf { value: 1 };
    assert_round_trip(&leaf, r#"{"value":1}"#);
    assert_eq!(serde_json::to_string(&leaf).unwrap(), r#"{"type":"leaf","value":1}"#);
    let branch = TreeEvent::Branch { inner: Some(Box::new(leaf)) };
    assert_round_trip(&branch, r#"{"inner":{"type":"leaf","value":1}}"#);
}

#[test]
fn old_versions_go_through_their_upcasters() {
    let v1 = read::<OrderEvent>("order.placed", 1, br#"{"customer":"C-1","total":"9.99"}"#);
    assert_eq!(v1.unwrap(), placed("9.99", "EUR"));
    let v2 = read::<OrderEvent>("order.placed", 2, br#"{"customer":"C-1","cents":1250}"#);
    assert_eq!(v2.unwrap(), placed("12.50", "USD"));
    let current_in_old = read::<OrderEvent>("order.placed", 2, stored(&placed("1", "E")).as_bytes());
    assert!(matches!(current_in_old, Err(Undecodable::Shape(_))));
}

#[test]
fn r14_unknown_names_versions_and_shapes_are_errors() {
    let name = read::<OrderEvent>("order.exploded", 1, b"{}");
    assert!(matches!(name, Err(Undecodable::UnknownName(name)) if name == "order.exploded"));
    for found in [0, 4, u32::MAX] {
        let version = read::<OrderEvent>("order.placed", found, b"{}");
        let Err(Undecodable::UnknownVersion { found: reported, current: 3 }) = version else {
            panic!("{version:?}");
        };
        assert_eq!(reported, found);
    }
    for json in ["{}", "null", "", r#"{"customer":1,"total":"1","currency":"E"}"#] {
        let shape = read::<OrderEvent>("order.placed", 3, json.as_bytes());
        assert!(matches!(shape, Err(Undecodable::Shape(_))), "{json:?}");
    }
}

#[test]
fn a_wrong_shape_is_described_in_the_words_of_the_application() {
    let reason = |name| {
        let result = read::<PaymentEvent>(name, 1, b"\"x\"");
        result.unwrap_err().source().unwrap().to_string()
    };
    assert!(reason("payment.captured").contains("expected the fields of `payment.captured`"));
    assert!(reason("payment.expected").contains("expected a good payment"));
}

#[test]
fn a_value_that_json_cannot_hold_is_an_encode_error_with_the_wire_name() {
    #[derive(PartialEq, Event)]
    #[event(category = "odd")]
    enum OddEvent {
        #[event(name = "odd.value")]
        Value { value: Stubborn },
    }

    #[derive(PartialEq)]
    struct Stubborn;

    impl Serialize for Stubborn {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }

    impl<'de> Deserialize<'de> for Stubborn {
        fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Ok(Self)
        }
    }

    let error = OddEvent::Value { value: Stubborn }.encode().unwrap_err();
    assert_eq!(error.what, "odd.value");
}

#[test]
fn an_application_may_generate_its_enums_with_macros() {
    macro_rules! event {
        ($name:ident, $field:ident: $ty:ty, $version:expr, $upcaster:path) => {
            #[derive(Debug, PartialEq, Event)]
            #[event(category = "generated")]
            enum $name {
                #[event(name = "generated.a", version = $version, upcast(1 = $upcaster))]
                A { $field: $ty, payload: Option<Box<Self>> },
                #[event(name = "generated.b")]
                B(#[serde(default)] $ty),
            }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                    to.serialize_unit()
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                    <$ty>::deserialize(from).map(Self::B)
                }
            }
        };
    }
    event!(r#Type, r#type: u8, 2, r#Type::B);

    assert_round_trip(&r#Type::A { r#type: 1, payload: None }, r#"{"type":1,"payload":null}"#);
    assert_eq!(read::<r#Type>("generated.a", 1, b"7").unwrap(), r#Type::B(7));
    assert_eq!(r#Type::B(7).schema(), EventSchema { name: "generated.b", version: 1 });
}

#[test]
fn a_set_has_the_categories_of_its_members() {
    assert_eq!(SalesEvent::categories(), Categories::Only(vec!["order", "payment"]));
    assert_eq!(Everything::categories(), Categories::All);
}

#[test]
fn a_set_decodes_each_category_and_passes_over_foreign_ones() {
    let order = recorded("order", "order.cancelled", 1, "{}");
    let payment = recorded("payment", "payment.closed", 1, "{}");
    let foreign = recorded("tree", "order.cancelled", 1, "{}");
    let decode = |event| <SalesEvent as EventSet>::from_recorded(event).unwrap();
    assert_eq!(decode(&order), Some(SalesEvent::Order(OrderEvent::Cancelled)));
    assert_eq!(decode(&payment), Some(SalesEvent::Payment(PaymentEvent::Closed)));
    assert_eq!(decode(&foreign), None);

    let decode = |event| <Everything as EventSet>::from_recorded(event).unwrap();
    let sales = SalesEvent::Order(OrderEvent::Cancelled);
    assert_eq!(decode(&order), Some(Everything::Sales(sales)));
    assert_eq!(decode(&foreign), Some(Everything::Other(foreign.data.clone())));
}

#[test]
fn r14_a_set_does_not_skip_what_it_does_not_know_in_its_own_categories() {
    let decode = |event| <SalesEvent as EventSet>::from_recorded(&event).unwrap_err();
    let name = decode(recorded("payment", "payment.exploded", 1, "{}"));
    assert!(matches!(name, Undecodable::UnknownName(_)));
    let version = decode(recorded("order", "order.placed", 9, "{}"));
    assert!(matches!(version, Undecodable::UnknownVersion { found: 9, current: 3 }));
    let shape = decode(recorded("order", "order.placed", 3, "[1]"));
    assert!(matches!(shape, Undecodable::Shape(_)));
}
