use uuid::Uuid;

use super::{Expected, InvalidStream, Position, ReadToken, StreamId, Version};
use crate::{
    limits::{MAX_CATEGORY_BYTES, MAX_STREAM_BYTES},
    witness::Ending,
};

#[test]
fn r15_a_category_begins_with_a_letter_and_has_no_characters_but_letters_digits_and_underscores() {
    for category in ["a", "order_2", &"c".repeat(MAX_CATEGORY_BYTES)] {
        assert!(StreamId::new(category, "1").is_ok(), "{category}");
    }
    for category in ["", "2a", "_a", "Order", "oRder", "or-der", "or.der", "örder", &"c".repeat(MAX_CATEGORY_BYTES + 1)]
    {
        let expected = InvalidStream::Category { category: category.to_owned() };
        assert_eq!(StreamId::new(category, "1"), Err(expected), "{category}");
    }
    let reserved = InvalidStream::Reserved { category: "es_order".to_owned() };
    assert_eq!(StreamId::new("es_order", "1"), Err(reserved));
}

#[test]
fn r15_a_name_has_an_id_and_a_limit() {
    let longest = MAX_STREAM_BYTES - "order-".len();
    let name = StreamId::new("order", &"1".repeat(longest)).expect("a valid name");
    assert_eq!((name.category(), name.id().len(), name.as_str().len()), ("order", longest, MAX_STREAM_BYTES));
    let bytes = MAX_STREAM_BYTES + 1;
    assert_eq!(StreamId::new("order", &"1".repeat(longest + 1)), Err(InvalidStream::TooLong { bytes }));
    assert_eq!(StreamId::new("order", ""), Err(InvalidStream::EmptyId));
    assert_eq!("order-".parse::<StreamId>(), Err(InvalidStream::EmptyId));
    assert_eq!("order".parse::<StreamId>(), Err(InvalidStream::NoId { name: "order".to_owned() }));
    assert_eq!(StreamId::new("order", "a\nb"), Err(InvalidStream::ControlCharacter));
    // The id may hold what ends the category.
    let name: StreamId = "order-a-b".parse().expect("a valid name");
    assert_eq!((name.category(), name.id(), name.to_string()), ("order", "a-b", "order-a-b".to_owned()));
}

#[test]
fn an_expectation_names_the_version_and_the_last_event_that_it_is_about() {
    let last = Ending::sent(Uuid::from_u128(1));
    let version = Version::new(3);
    for (expected, of_version, of_last) in [
        (Expected::Any, None, None),
        (Expected::StreamExists, None, None),
        (Expected::NoStream, Some(Version::ZERO), None),
        (Expected::Exact(version), Some(version), None),
        (Expected::Last { version, last }, Some(version), Some(last)),
    ] {
        assert_eq!((expected.version(), expected.last()), (of_version, of_last), "{expected}");
    }
}

#[test]
fn an_expectation_holds_for_the_versions_that_it_names() {
    for (expected, of_none, of_three) in [
        (Expected::Any, true, true),
        (Expected::StreamExists, false, true),
        (Expected::NoStream, true, false),
        (Expected::Exact(Version::new(3)), false, true),
        (Expected::Exact(Version::ZERO), true, false),
    ] {
        assert_eq!(expected.holds(Version::ZERO, None), of_none, "{expected}");
        assert_eq!(expected.holds(Version::new(3), None), of_three, "{expected}");
    }
}

#[test]
fn a_read_token_is_read_from_its_text_and_no_other() {
    let token = ReadToken(Position::new(42));
    assert_eq!(token.to_string(), "p42");
    assert_eq!("p42".parse(), Ok(token));
    for text in ["", "p", "42", "p-1", "p+1", "p1 ", "p99999999999999999999"] {
        assert!(text.parse::<ReadToken>().is_err(), "{text}");
    }
}

/// Databases keep signed numbers.
#[test]
fn a_number_that_a_database_cannot_hold_is_the_highest_that_it_can() {
    assert_eq!((Position::new(7).to_i64(), Position::from_i64(7)), (7, Position::new(7)));
    assert_eq!((Position::new(u64::MAX).to_i64(), Position::from_i64(-1)), (i64::MAX, Position::ZERO));
}
