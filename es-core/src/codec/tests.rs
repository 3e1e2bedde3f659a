//! What is refused, and what is said about it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Circle { radius: f64 },
    Line(f64, f64),
    Named(Box<Shape>),
    Point,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Wide {
    signed: i128,
    unsigned: u128,
    by_number: HashMap<u64, i8>,
    by_letter: BTreeMap<char, bool>,
    pair: (u8, f32),
    nothing: Option<()>,
    unit: (),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Page {
    shapes: BTreeMap<String, Vec<Shape>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Strict {
    count: u8,
}

#[track_caller]
fn assert_kept<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let text = encode("test", value).expect("it is read as it was written");
    assert_eq!(decode::<T>(&text).expect("it decodes"), *value);
}

/// The field that is named, and the reason.
#[track_caller]
fn refused<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> (Option<String>, Unencodable) {
    let error = encode("test", value).expect_err("it is refused");
    (error.field, error.reason)
}

fn page(shape: Shape) -> Page {
    Page { shapes: BTreeMap::from([("hunter2".to_owned(), vec![Shape::Point, shape])]), note: None }
}

#[test]
fn r14_values_that_json_gives_back_are_kept() {
    let wide = Wide {
        signed: i128::MIN,
        unsigned: u128::MAX,
        by_number: HashMap::from([(u64::MAX, -1)]),
        by_letter: BTreeMap::from([('ü', true)]),
        pair: (1, f32::MIN_POSITIVE),
        nothing: None,
        unit: (),
    };
    assert_kept(&wide);
    assert_kept(&page(Shape::Named(Box::new(Shape::Line(f64::MAX, 5e-324)))));
    assert_kept(&page(Shape::Circle { radius: 1.577_777_777_777_000_1 }));
    assert_kept(&vec![Some(1), None]);
}

#[test]
fn r14_the_field_that_is_not_given_back_is_named_and_its_value_is_not() {
    let (field, reason) = refused(&page(Shape::Circle { radius: f64::NEG_INFINITY }));
    assert_eq!(field.as_deref(), Some("shapes{}[1].radius"));
    assert!(matches!(reason, Unencodable::NotFinite));
    let (field, reason) = refused(&page(Shape::Named(Box::new(Shape::Line(0.0, f64::NAN)))));
    assert_eq!(field.as_deref(), Some("shapes{}[1].Named.Line"));
    assert!(matches!(reason, Unencodable::NotFinite));
    let (field, reason) = refused(&(1, Some(())));
    assert_eq!(field.as_deref(), Some("[1]"));
    assert!(matches!(reason, Unencodable::SomeNull));
    let (field, reason) = refused(&BTreeMap::from([(vec![1], 1)]));
    assert_eq!(field, None);
    assert!(matches!(reason, Unencodable::MapKey));
    let (field, reason) = refused(&BTreeMap::from([("hunter2".to_owned(), BTreeMap::from([(vec![1], 1)]))]));
    assert_eq!(field.as_deref(), Some("{}"));
    assert!(matches!(reason, Unencodable::MapKey));
    let (field, reason) = refused(&BTreeMap::from([(2, f64::NAN)]));
    assert_eq!(field.as_deref(), Some("{}"));
    assert!(matches!(reason, Unencodable::NotFinite));
}

#[test]
fn r14_a_flattened_key_is_named_if_it_may_be_the_name_of_a_field() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        numbers: BTreeMap<String, f64>,
    }
    let flat = |key: &str| Flat { numbers: BTreeMap::from([(key.to_owned(), f64::NAN)]) };
    let longest = "n".repeat(64);
    for (key, named) in
        [("net_price2", true), (&longest, true), ("hunter 2", false), ("höhe", false), (&format!("{longest}n"), false)]
    {
        let field = refused(&flat(key)).0;
        assert_eq!(field.as_deref(), Some(if named { key } else { "{}" }), "{key}");
    }
}

/// Writes itself in one way and reads itself in another.
#[derive(Debug, PartialEq)]
struct Odd(u8);

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            0 => Err(serde::ser::Error::custom("hunter2")),
            number => serializer.serialize_u8(number),
        }
    }
}

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            1 => Err(serde::de::Error::custom("hunter2")),
            number => Ok(Self(number + 1)),
        }
    }
}

#[test]
fn r14_a_type_that_does_not_agree_with_itself_is_found_out() {
    let error = encode("test", &Odd(0)).expect_err("it refuses");
    assert!(matches!(error.reason, Unencodable::Refused) && !format!("{error:?}").contains("hunter2"));
    let (field, reason) = refused(&vec![Odd(1)]);
    assert_eq!(field.as_deref(), Some("[0]"));
    let Unencodable::Unreadable(cause) = reason else { panic!("{reason:?}") };
    assert_eq!(cause.to_string(), "[0]: its type refuses the value at line 1 column 3");
    assert!(matches!(refused(&Odd(2)).1, Unencodable::Different));
}

#[test]
fn r14_a_misfit_names_the_place_and_what_code_expects() {
    fn says<T: DeserializeOwned + Debug>(text: &str) -> String {
        let misfit = decode::<T>(text.as_bytes()).expect_err("it does not fit");
        assert!(!format!("{misfit:?}").contains("hunter2"));
        misfit.to_string().rsplit_once(" at line").map(|(said, _)| said.to_owned()).expect("the line is told")
    }
    let variants = "expected one of `Circle`, `Line`, `Named`, `Point`";
    assert_eq!(
        says::<Page>(r#"{"shapes":{"hunter2":["hunter2"]}}"#),
        format!("shapes{{}}[0]: unknown variant, {variants}")
    );
    assert_eq!(
        says::<Page>(r#"{"shapes":{"hunter2":[{"Circle":{"radius":"hunter2"}}]}}"#),
        "shapes{}[0].Circle.radius: invalid type: a string, expected f64"
    );
    assert_eq!(says::<Page>(r#"{"hunter2":[]}"#), "missing field `shapes`");
    assert_eq!(says::<Page>(r#"{"shapes":{},"note":["hunter2"]}"#), "note: invalid type: a list, expected a string");
    assert_eq!(says::<Strict>(r#"{"hunter2":1}"#), "unknown field, expected one of `count`");
    assert_eq!(says::<Strict>(r#"{"count":1,"count":2}"#), "duplicate field `count`");
    assert_eq!(says::<Strict>(r#"{"count":500}"#), "count: invalid value: an integer, expected u8");
    assert_eq!(says::<Vec<u8>>(r#"[1,2,"hunter2"#), "EOF while parsing a string");
    assert_eq!(
        says::<BTreeMap<u8, u8>>(r#"{"1":1,"hunter2":1}"#),
        "invalid value: expected key to be a number in quotes"
    );
    for (found, kind) in [
        ("true", "a boolean"),
        ("1.5", "a number"),
        ("2.0", "a number"),
        ("null", "null"),
        ("[]", "a list"),
        ("{}", "an object"),
        ("\"hunter2\"", "a string"),
    ] {
        assert_eq!(says::<Vec<u8>>(&format!("[1,{found}]")), format!("[1]: invalid type: {kind}, expected u8"));
    }
    assert_eq!(says::<Page>(r#"{"note":null,"shapes":true}"#), "shapes: invalid type: a boolean, expected a map");
    assert_eq!(says::<Shape>(r#"{"Point":true}"#), "Point: invalid type: a boolean, expected unit");
    // The second reading has no such integers, and must not name the wrong place.
    let wide = i128::MAX;
    assert_eq!(says::<(Vec<i128>, u8)>(&format!(r#"[[{wide}],"hunter2"]"#)), "it has another form");
    assert_eq!(says::<Wide>(r#"{"signed":170141183460469231731687303715884105727}"#), "it has another form");
}

#[test]
fn r14_texts_that_borrow_are_read_twice_too() {
    #[derive(Debug, Deserialize)]
    struct Borrowed<'a> {
        #[expect(dead_code, reason = "it only has to be read")]
        text: &'a str,
        #[expect(dead_code, reason = "it only has to be read")]
        number: u8,
    }
    let misfit = decode::<Borrowed<'_>>(br#"{"text":"a","number":"b"}"#).expect_err("it does not fit");
    assert_eq!(misfit.field(), Some("number"));
}
