use std::sync::Arc;

use super::{Condition, EventQuery, InvalidQuery, Tag};
use crate::{
    Position,
    limits::{MAX_EVENT_NAME_BYTES, MAX_QUERY_ITEMS, MAX_TAGS},
};

fn tag(text: &str) -> Tag {
    Tag::new(text).expect("a tag")
}

fn tags(count: usize) -> Vec<Tag> {
    (0..count).map(|nth| tag(&format!("n:{nth}"))).collect()
}

fn names(count: usize) -> Vec<Arc<str>> {
    (0..count).map(|nth| format!("name.{nth}").into()).collect()
}

#[test]
fn a_query_matches_all_tags_and_one_of_the_names_of_an_item() {
    let (a, b) = (tag("a:1"), tag("b:2"));
    let both = EventQuery::tagged([a.clone(), b.clone()]);
    assert!(both.matches("any", &[b.clone(), a.clone()]));
    assert!(!both.matches("any", std::slice::from_ref(&a)));
    let named = both.clone().named(["one", "two"]);
    assert!(named.matches("two", &[a.clone(), b.clone()]));
    assert!(!named.matches("three", &[a.clone(), b.clone()]));
    assert!(!named.matches("one", std::slice::from_ref(&b)));
    let either = named.or(EventQuery::named_only(["three"]));
    assert!(either.matches("three", &[]));
    assert!(!either.matches("one", &[]));
    assert_eq!(either.items().len(), 2);
    assert!(EventQuery::all().matches("any", &[]));
}

#[test]
fn a_query_asks_for_only_a_tag_if_it_asks_for_no_name_and_no_other_one() {
    let [a, b] = ["a:1", "b:2"].map(|text| EventQuery::tagged([tag(text)]));
    assert_eq!(a.only_tag(), Some(&tag("a:1")));
    let more = [a.clone().or(b), a.named(["one"]), EventQuery::tagged(tags(2)), EventQuery::all()];
    assert!(more.iter().all(|query| query.only_tag().is_none()));
}

#[test]
fn only_a_query_whose_items_all_name_a_tag_is_a_look_up() {
    assert!(EventQuery::tagged([tag("a:1")]).is_tagged());
    assert!(!EventQuery::named_only(["one"]).is_tagged());
    assert!(!EventQuery::tagged([tag("a:1")]).or(EventQuery::all()).is_tagged());
}

#[test]
fn r15_a_query_is_valid_up_to_its_limits() {
    let long = |bytes| EventQuery::named_only(["x".repeat(bytes)]);
    let items = |count| (1..count).fold(EventQuery::tagged(tags(1)), |query, _| query.or(EventQuery::tagged(tags(1))));
    for (query, valid) in [
        (EventQuery::tagged(tags(MAX_TAGS)), true),
        (EventQuery::tagged(tags(MAX_TAGS + 1)), false),
        (EventQuery::named_only(names(MAX_TAGS)), true),
        (EventQuery::named_only(names(MAX_TAGS + 1)), false),
        (EventQuery::tagged(tags(1)).named(names(1)), true),
        (long(MAX_EVENT_NAME_BYTES), true),
        (long(MAX_EVENT_NAME_BYTES + 1), false),
        (items(MAX_QUERY_ITEMS), true),
        (items(MAX_QUERY_ITEMS + 1), false),
        (EventQuery::all(), true),
        (EventQuery::all().or(EventQuery::tagged(tags(1))), true),
        (EventQuery::tagged(tags(1)).or(EventQuery::all()), true),
        // An empty list of tags is a mistake, not a wish for all events.
        (EventQuery::tagged([]), false),
        (EventQuery::tagged(tags(1)).or(EventQuery::tagged([])), false),
    ] {
        assert_eq!(query.validate(), if valid { Ok(()) } else { Err(InvalidQuery) }, "{query:?}");
        assert_eq!(Condition::new(query.clone(), Position::ZERO).validate().is_ok(), valid, "{query:?}");
    }
}

#[test]
fn r15_the_queries_of_a_condition_have_the_limit_together() {
    let one = || EventQuery::tagged(tags(1));
    let of = |parts| (1..parts).fold(Condition::new(one(), Position::ZERO), |all, _| all.and(one(), Position::ZERO));
    assert!(of(MAX_QUERY_ITEMS).validate().is_ok());
    assert!(of(MAX_QUERY_ITEMS + 1).validate().is_err());
    assert_eq!(of(3).parts().len(), 3);
    assert_eq!(Condition::all_of(Vec::new()), None);
    assert_eq!(Condition::all_of(of(2).parts().to_vec()), Some(of(2)));
}
