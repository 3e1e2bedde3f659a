use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Categories, Metadata, NewEvent, NewEventError};
use crate::{
    schema::Undecodable,
    testing::{account::AccountEvent, recorded},
};

#[test]
fn what_an_event_brings_about_keeps_its_correlation_and_not_its_notes() {
    let mut cause = recorded([("a", AccountEvent::Deposited { amount: 1 })]).remove(0);
    cause.metadata.actor = Some("ada".into());
    cause.metadata.extra = BTreeMap::from([("note".into(), "one".into())]);
    let cause = cause.decode::<AccountEvent>().expect("it fits").expect("it is one of them");
    let effect = Metadata::caused_by(&cause);
    let expected = Metadata {
        correlation_id: Some(cause.id),
        causation_id: Some(cause.id),
        actor: Some("ada".into()),
        ..Metadata::default()
    };
    assert_eq!(effect, expected);
    let next = crate::Recorded { id: Uuid::from_u128(7), metadata: effect, ..cause.clone() };
    let effect = Metadata::caused_by(&next);
    assert_eq!((effect.correlation_id, effect.causation_id), (Some(cause.id), Some(next.id)));
}

#[test]
fn metadata_is_read_as_it_was_written() {
    let metadata = Metadata { actor: Some("ada".into()), ..Metadata::default() };
    let stored = metadata.encode().expect("there is something to keep");
    assert_eq!(Metadata::decode(Some(&stored)).expect("it fits"), metadata);
    assert_eq!(Metadata::default().encode(), None);
    assert_eq!(Metadata::decode(None).expect("nothing to read"), Metadata::default());
    assert!(matches!(Metadata::decode(Some(b"[1]")), Err(Undecodable::Metadata(_))));
}

#[test]
fn both_sets_of_categories_are_in_their_union() {
    let only = |names: &[&'static str]| Categories::Only(names.to_vec());
    assert_eq!(only(&["b", "a"]).union(only(&["b", "c"])), only(&["a", "b", "c"]));
    assert_eq!(only(&["a"]).union(Categories::All), Categories::All);
    assert_eq!(Categories::All.union(only(&["a"])), Categories::All);
}

/// Does not read what it writes.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Odd(u8);

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("as the test wants it"))
    }
}

#[derive(Debug, Clone, PartialEq, crate::Event)]
#[event(category = "odd")]
enum OddEvent {
    #[event(name = "odd.seen")]
    Seen { number: Odd },
}

#[test]
fn r14_an_event_that_would_not_be_read_is_refused_with_the_name_of_its_field() {
    let refused = NewEvent::of(&OddEvent::Seen { number: Odd(1) }).expect_err("it would not be read");
    let NewEventError::Encode(refused) = refused else { panic!("{refused:?}") };
    assert_eq!(refused.field.as_deref(), Some("number"));
}
