//! Event stores: tags and conditions.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::event_store::{event, stream};
use es_core::{
    Append, AppendError, Appended, Condition, DecideError, Decision, Decisions, EventData, EventQuery, EventStore,
    Expected, Matching, NewEvent, Position, ReadError, Tag,
    backend::{InvalidAppend, InvalidQuery, MAX_QUERY_ITEMS, MAX_TAGS, PAGE_BYTES, QueryItem, is_last_page},
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

/// A query finds exactly the events that match it.
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
        (EventQuery::all(), vec![1, 2, 3, 4, 5, 6]),
        (EventQuery::named_only(["joined"]), vec![2, 3, 5, 6]),
        (EventQuery::named_only(["left", "defined"]).or(query(&["course:2"])), vec![1, 3, 4]),
        (EventQuery::named_only(["forgotten"]), vec![]),
    ];
    for (query, expected) in cases {
        let found = store.read_matching(&query, Position::ZERO, 100).await.expect("a read");
        assert_eq!(found.iter().map(|event| event.position.get()).collect::<Vec<_>>(), expected, "{query:?}");
        let rest = store.read_matching(&query, Position::new(2), 1).await.expect("a read");
        assert_eq!(rest.first().map(|event| event.position.get()), expected.into_iter().find(|found| *found > 2));
        // A condition matches the same events.
        let mut last = Position::ZERO;
        for event in found {
            let condition = Condition::new(query.clone(), last);
            let outcome = store.append(to("x", named("never", &["never"])).on(condition)).await;
            assert!(failed_at(&outcome).is_some_and(|position| position > last.get()), "{outcome:?}");
            last = event.position;
        }
    }
    assert_eq!(store.head().await.expect("a head").get(), 6);
}

/// R17: a store may answer such reads together, and has room for only so many events and bytes then.
pub async fn r17_concurrent_reads_find_each_what_its_own_query_matches<S: EventStore + Clone>(store: &S) {
    const COUNTS: [usize; 6] = [0, 1, 2, 12, 40, 300];
    let name = |count: usize| format!("count:{count}");
    let mut events = Vec::new();
    // So many events of each tag, in turns.
    for turn in 0..300 {
        let carried = COUNTS.into_iter().filter(|count| turn < *count);
        events.extend(carried.map(|count| (name(count), event("{}").with_tags([tag(&name(count))]))));
    }
    // More than a page of events that are large, but no more so than their share of one.
    let wide = format!("\"{}\"", "x".repeat(200_000));
    events.extend((0..50).map(|_| ("wide".to_owned(), event(&wide).with_tags([tag("wide")]))));
    let (tags, events): (Vec<_>, Vec<_>) = events.into_iter().unzip();
    store.append(Append::new(stream("all"), Expected::Any, events)).await.expect("appended");
    let positions = |wanted: &str| {
        let carry = tags.iter().zip(1..).filter(|(tag, _)| **tag == wanted);
        carry.map(|(_, position)| position).collect::<Vec<u64>>()
    };
    let start = Arc::new(tokio::sync::Barrier::new(90));
    let mut reads = JoinSet::new();
    for read in 0..90 {
        let name = if read % 15 == 0 { "wide".to_owned() } else { name(COUNTS[read % COUNTS.len()]) };
        let (after, limit) = ([0, 1, 40][read % 3], [1_000, 50][read % 2]);
        let expected: Vec<_> = positions(&name).into_iter().filter(|position| *position > after).collect();
        let (store, start) = (store.clone(), start.clone());
        reads.spawn(async move {
            let (query, mut found, mut after) = (query(&[&name]), Vec::new(), Position::new(after));
            start.wait().await;
            loop {
                let page = store.read_matching(&query, after, limit).await.expect("a read");
                assert!(page.len() <= limit);
                let before_last = page.split_last().map_or(&[][..], |(_, before)| before);
                let bytes: usize = before_last.iter().map(|event| event.data.payload.len()).sum();
                assert!(bytes < PAGE_BYTES, "{bytes} bytes and one event more");
                after = page.last().map_or(after, |event| event.position);
                found.extend(page.iter().map(|event| event.position.get()));
                if is_last_page(&page, limit) {
                    break;
                }
            }
            assert_eq!(found, expected, "{name} from {after} on in pages of {limit}");
        });
    }
    reads.join_all().await;
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
                let condition = Condition::new(EventQuery::tagged([name.clone()]), Position::ZERO);
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

/// R2: a decision on two models that were read at two positions.
pub async fn r2_each_query_of_a_condition_has_a_position_of_its_own(store: &impl EventStore) {
    put(store, to("1", named("a", &["room:1"]))).await;
    put(store, to("2", named("a", &["guest:1"]))).await;
    put(store, to("3", named("a", &["room:1"]))).await;
    let given = |room: u64, guest: u64| {
        Condition::new(query(&["room:1"]), Position::new(room)).and(query(&["guest:1"]), Position::new(guest))
    };
    for (room, guest, failed) in [(1, 2, Some(3)), (3, 0, Some(2)), (1, 0, Some(2)), (0, 0, Some(1)), (3, 2, None)] {
        let outcome = store.append(to("x", named("b", &[])).on(given(room, guest))).await;
        // The first of the events that the decision had not seen.
        assert_eq!(failed_at(&outcome), failed, "{room} {guest} {outcome:?}");
        assert_eq!(outcome.is_ok(), failed.is_none());
    }
}

/// R2: an event that only a scan of the log finds makes a condition fail too, also in the same batch. (Seen to fail on
/// Postgres, with all 40 written, where such a condition was checked in the same wave as the events that it matches.)
pub async fn r2_of_concurrent_appends_on_all_events_one_wins<S: EventStore + Clone>(store: &S) {
    for (round, query) in [EventQuery::all(), EventQuery::named_only(["a", "b"])].into_iter().enumerate() {
        let mut appends = JoinSet::new();
        let start = Arc::new(tokio::sync::Barrier::new(40));
        let after = store.head().await.expect("a head");
        for number in 0..40 {
            let (store, start, query) = (store.clone(), start.clone(), query.clone());
            appends.spawn(async move {
                // Half of them also carry the tag for which others look.
                let tags = if number % 2 == 0 { &["t"][..] } else { &[] };
                let claim = to(&format!("{round}-{number}"), named("a", tags)).on(Condition::new(query, after));
                start.wait().await;
                store.append(claim).await
            });
        }
        let outcomes = appends.join_all().await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        let first = after.get() + 1;
        assert!(outcomes.iter().all(|outcome| outcome.is_ok() || failed_at(outcome) == Some(first)), "{outcomes:?}");
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the course is full")]
struct Full;

/// R2: courses with three places each, eight students who try to join every course, and one who leaves again.
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
                let join = |joined: &Matching<EventData>| {
                    if joined.events.len() >= PLACES {
                        return Err(Full);
                    }
                    let event = event("{}").with_tags([about.clone(), of.clone()]);
                    Ok(Decision::from(vec![to(&format!("{course}-{student}"), event)]))
                };
                let places = Matching::new(EventQuery::tagged([about.clone()]));
                match Decisions::new(store.clone(), "join").attempts(1_000).decide(places, join).await {
                    Ok(_) => joined += 1,
                    Err(DecideError::Rejected(Full)) => {}
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

/// R6: sent again, an append would fail its own condition.
pub async fn r6_a_conditional_append_again_returns_its_first_outcome(store: &impl EventStore) {
    for expected in [Expected::Any, Expected::NoStream] {
        let claim = |id: &str| {
            let condition = Condition::new(query(&[id]), Position::ZERO);
            Append { expected, ..to(id, event("{}").with_tags([tag(id)])) }.on(condition)
        };
        let claim = claim(&format!("{expected:?}"));
        let first = store.append(claim.clone()).await.expect("appended");
        let again = store.append(claim).await.expect("repeated");
        assert_eq!(again, Appended { repeated: true, ..first });
    }
}

/// R1: the condition of one append holds for all that are made together with it.
pub async fn r1_a_failed_condition_fails_all_that_are_made_together(store: &impl EventStore) {
    put(store, to("a", event("{}").with_tags([tag("t")]))).await;
    let condition = |after| Condition::new(query(&["t"]), Position::new(after));
    let both = |condition: Condition| vec![to("b", event("{}")), to("c", event("{}")).on(condition)];
    let outcome = store.append_together(both(condition(0))).await;
    assert!(matches!(outcome, Err(AppendError::ConditionFailed { position }) if position == Position::new(1)));
    assert_eq!(store.head().await.expect("a head"), Position::new(1));
    assert_eq!(store.append_together(both(condition(1))).await.expect("appended").len(), 2);
}

/// R15
pub async fn r15_tags_and_queries_have_limits(store: &impl EventStore) {
    for text in ["", "a\0b", &"x".repeat(256)] {
        assert!(Tag::new(text).is_err(), "{text:?}");
    }
    let many: Vec<Tag> = (0..=MAX_TAGS).map(|number| tag(&number.to_string())).collect();
    let outcome = store.append(to("a", event("{}").with_tags(many.clone()))).await;
    assert!(matches!(outcome, Err(AppendError::Invalid(InvalidAppend::TooManyTags { event: 0, tags: 65 }))));
    let items = |items| (0..items).map(|_| query(&["t"])).reduce(EventQuery::or).expect("some");
    let wide = items(MAX_QUERY_ITEMS + 1);
    let long = query(&["t"]).named(["n".repeat(129)]);
    for query in [EventQuery::tagged([]), EventQuery::tagged(many), wide, long] {
        assert!(matches!(store.read_matching(&query, Position::ZERO, 1).await, Err(ReadError::Query(InvalidQuery))));
        let condition = Condition::new(query, Position::ZERO);
        let outcome = store.append(to("a", event("{}")).on(condition)).await;
        assert!(matches!(outcome, Err(AppendError::Invalid(InvalidAppend::Condition(_)))), "{outcome:?}");
    }
    // The limit holds for all queries of a condition together.
    let half = || items(MAX_QUERY_ITEMS / 2);
    let twice = Condition::new(half(), Position::ZERO).and(half(), Position::ZERO);
    let more = twice.clone().and(query(&["t"]), Position::ZERO);
    let outcome = store.append(to("a", event("{}")).on(more)).await;
    assert!(matches!(outcome, Err(AppendError::Invalid(InvalidAppend::Condition(_)))), "{outcome:?}");
    let item = QueryItem { tags: tags(&["t"]), names: Vec::new() };
    assert_eq!(query(&["t"]).items(), [item]);
    assert_eq!(store.head().await.expect("a head"), Position::ZERO);
    // Values at the limits are accepted.
    let many: Vec<Tag> = (0..MAX_TAGS).map(|number| tag(&number.to_string())).collect();
    put(store, to("a", event("{}").with_tags(many.clone())).on(twice)).await;
    let any = many.iter().chain(&many).map(|tag| EventQuery::tagged([tag.clone()])).reduce(EventQuery::or);
    for query in [any.expect("some"), EventQuery::tagged(many)] {
        assert_eq!(store.read_matching(&query, Position::ZERO, 9).await.expect("a read").len(), 1);
        let outcome = store.append(to("b", event("{}")).on(Condition::new(query, Position::ZERO))).await;
        assert_eq!(failed_at(&outcome), Some(1));
    }
}
