//! What every event store must do with tags and conditions.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::event_store::{event, stream};
use crate::{
    append::{Append, InvalidAppend},
    boundary::{Condition, DecideError, EventQuery, InvalidQuery, MAX_TAGS, QueryItem, Tag, decide},
    event::{EventData, NewEvent, Recorded},
    store::{AppendError, Appended, EventStore, ReadError},
    stream::{Expected, Position},
};

fn tag(text: &str) -> Tag {
    Tag::new(text).expect("a valid tag")
}

fn tags(texts: &[&str]) -> Vec<Tag> {
    texts.iter().map(|text| tag(text)).collect()
}

fn query(texts: &[&str]) -> EventQuery {
    EventQuery::tagged(tags(texts))
}

fn named(name: &str, texts: &[&str]) -> NewEvent {
    let mut event = event("{}").with_tags(tags(texts));
    event.data = EventData { name: name.into(), ..event.data };
    event
}

fn to(id: &str, event: NewEvent) -> Append {
    Append::new(stream(id), Expected::Any, vec![event])
}

async fn put(store: &impl EventStore, append: Append) -> Position {
    store.append(append).await.expect("appended").position
}

fn failed_at(outcome: &Result<Appended, AppendError>) -> Option<u64> {
    match outcome {
        Err(AppendError::ConditionFailed { position }) => Some(position.get()),
        _ => None,
    }
}

/// A query finds what it says.
pub async fn queries_find_all_tags_any_name_and_either_item(store: &impl EventStore) {
    put(store, to("1", named("defined", &["course:1"]))).await;
    put(store, to("2", named("joined", &["student:1", "course:1"]))).await;
    put(store, to("3", named("joined", &["student:1", "course:2"]))).await;
    put(store, to("4", named("left", &["student:2", "course:1"]))).await;
    put(store, to("5", named("joined", &[]))).await;
    // The same tag twice is one tag.
    put(store, to("6", named("joined", &["student:3", "student:3"]))).await;
    let cases = [
        (query(&["course:1"]), vec![1, 2, 4]),
        (query(&["course:1"]).named(["joined"]), vec![2]),
        (query(&["course:1"]).named(["left", "defined"]), vec![1, 4]),
        (query(&["course:1", "student:1"]), vec![2]),
        (query(&["course:2"]).or(query(&["student:2"])), vec![3, 4]),
        (query(&["course:1"]).named(["defined"]).or(query(&["student:1"])), vec![1, 2, 3]),
        (query(&["student:1"]).or(query(&["course:1"])), vec![1, 2, 3, 4]),
        (query(&["student:3"]), vec![6]),
        (query(&["student:9"]), vec![]),
    ];
    for (query, expected) in cases {
        let found = store.read_matching(&query, Position::ZERO, 100).await.expect("a read");
        assert_eq!(found.iter().map(|event| event.position.get()).collect::<Vec<_>>(), expected, "{query:?}");
        let rest = store.read_matching(&query, Position::new(2), 1).await.expect("a read");
        assert_eq!(rest.first().map(|event| event.position.get()), expected.into_iter().find(|found| *found > 2));
        // A condition is about the same events.
        let mut last = Position::ZERO;
        for event in found {
            let condition = Condition { query: query.clone(), after: last };
            let outcome = store.append(to("x", named("never", &["never"])).on(condition)).await;
            assert!(failed_at(&outcome).is_some_and(|position| position > last.get()), "{outcome:?}");
            last = event.position;
        }
    }
    assert_eq!(store.head().await.expect("a head").get(), 6);
}

/// R2
pub async fn r2_of_concurrent_claims_of_one_name_one_wins<S: EventStore + Clone>(store: &S) {
    for round in 0..10 {
        let name = tag(&format!("name:{round}"));
        let mut claims = JoinSet::new();
        let start = Arc::new(tokio::sync::Barrier::new(16));
        for user in 0..16 {
            let (store, start, name) = (store.clone(), start.clone(), name.clone());
            claims.spawn(async move {
                let condition = Condition { query: EventQuery::tagged([name.clone()]), after: Position::ZERO };
                let claim = to(&format!("{round}-{user}"), event("{}").with_tags([name])).on(condition);
                start.wait().await;
                store.append(claim).await
            });
        }
        let outcomes = claims.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        assert!(outcomes.iter().all(|outcome| outcome.is_ok() || failed_at(outcome) == Some(round + 1)));
    }
}

/// R2: a course with three places, eight students who want into every course, and one who leaves again.
pub async fn r2_no_course_is_overbooked<S: EventStore + Clone>(store: &S) {
    const PLACES: usize = 3;
    const COURSES: usize = 6;
    let mut students = JoinSet::new();
    for student in 0..8 {
        let store = store.clone();
        students.spawn(async move {
            let mut joined = 0;
            for course in 0..COURSES {
                let (about, of) = (tag(&format!("course:{course}")), tag(&format!("student:{student}")));
                let join = |seen: &[Recorded<EventData>]| {
                    if seen.len() >= PLACES {
                        return Err(());
                    }
                    let event = event("{}").with_tags([about.clone(), of.clone()]);
                    Ok(vec![to(&format!("{course}-{student}"), event)])
                };
                match decide(&store, EventQuery::tagged([about.clone()]), 1_000, join).await {
                    Ok(_) => joined += 1,
                    Err(DecideError::Rejected(())) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            joined
        });
    }
    assert_eq!(students.join_all().await.into_iter().sum::<usize>(), PLACES * COURSES);
    for course in 0..COURSES {
        let found = store.read_matching(&query(&[&format!("course:{course}")]), Position::ZERO, 100).await;
        assert_eq!(found.expect("a read").len(), PLACES);
    }
}

/// R6: an append fails its own condition when it comes again.
pub async fn r6_a_conditional_append_again_returns_its_first_outcome(store: &impl EventStore) {
    for expected in [Expected::Any, Expected::NoStream] {
        let claim = |id: &str| {
            let condition = Condition { query: query(&[id]), after: Position::ZERO };
            Append { expected, ..to(id, event("{}").with_tags([tag(id)])) }.on(condition)
        };
        let claim = claim(&format!("{expected:?}"));
        let first = store.append(claim.clone()).await.expect("appended");
        let again = store.append(claim).await.expect("repeated");
        assert_eq!(again, Appended { repeated: true, ..first });
    }
}

/// R1: a condition of one is a condition of all.
pub async fn r1_a_failed_condition_fails_all_that_are_made_together(store: &impl EventStore) {
    put(store, to("a", event("{}").with_tags([tag("t")]))).await;
    let stale = Condition { query: query(&["t"]), after: Position::ZERO };
    let both = |condition: Condition| vec![to("b", event("{}")), to("c", event("{}")).on(condition)];
    let outcome = store.append_together(both(stale.clone())).await;
    assert!(matches!(outcome, Err(AppendError::ConditionFailed { position }) if position == Position::new(1)));
    assert_eq!(store.head().await.expect("a head"), Position::new(1));
    let fresh = Condition { after: Position::new(1), ..stale };
    assert_eq!(store.append_together(both(fresh)).await.expect("appended").len(), 2);
}

/// R15
pub async fn r15_tags_and_queries_have_limits(store: &impl EventStore) {
    for text in ["", "a\0b", &"x".repeat(256)] {
        assert!(Tag::new(text).is_err(), "{text:?}");
    }
    let many: Vec<Tag> = (0..=MAX_TAGS).map(|number| tag(&number.to_string())).collect();
    let outcome = store.append(to("a", event("{}").with_tags(many.clone()))).await;
    assert!(matches!(outcome, Err(AppendError::Invalid(InvalidAppend::TooManyTags { event: 0, tags: 33 }))));
    let wide = (0..65).map(|_| query(&["t"])).reduce(EventQuery::or).expect("some");
    let long = query(&["t"]).named(["n".repeat(129)]);
    for query in [EventQuery::tagged([]), EventQuery::tagged(many), wide, long] {
        assert!(matches!(store.read_matching(&query, Position::ZERO, 1).await, Err(ReadError::Query(InvalidQuery))));
        let condition = Condition { query, after: Position::ZERO };
        let outcome = store.append(to("a", event("{}")).on(condition)).await;
        assert!(matches!(outcome, Err(AppendError::Invalid(InvalidAppend::Condition(_)))), "{outcome:?}");
    }
    let item = QueryItem { tags: tags(&["t"]), names: Vec::new() };
    assert_eq!(query(&["t"]).items(), [item]);
    assert_eq!(store.head().await.expect("a head"), Position::ZERO);
}
