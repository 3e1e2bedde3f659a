//! Appends that are written in one transaction.

use std::{collections::BTreeMap, pin::pin};

use es_core::{
    Append, AppendError, Condition, EventQuery, EventStore, Expected, IdempotencyKey, MemoryStore, Position, Tag,
    Version,
    backend::{CommandKey, Ending, Fingerprint},
};
use es_sqlite::SqliteStore;
use fastrand::Rng;
use sqlx::Executor;

use super::fixture::{
    Outcome, REFUSE_BAD, append, dense_log, described, event, foreign_connection, in_one_batch, new_path, new_store,
    stream, tag,
};

/// A small append waits for at most one large one, and keeps its order only with those of its own stream. (Seen to fail
/// where all are written in queue order.)
#[tokio::test]
async fn r17_large_appends_have_transactions_of_their_own_and_small_ones_go_between() {
    let store = new_store().await;
    let large = |id: &str| {
        let mut append = append(id, Expected::NoStream, 2);
        for event in &mut append.events {
            event.data.payload = format!("\"{}\"", "x".repeat(900_000)).into();
        }
        vec![append]
    };
    let follows = append("a", Expected::Exact(Version::new(2)), 1);
    let entries = [large("a"), large("b"), vec![append("c", Expected::Any, 1)], vec![follows]];
    let outcomes = in_one_batch(&store, entries).await;
    assert_eq!(described(&outcomes), ["[3]", "[6]", "[1]", "[4]"]);
    dense_log(&store).await;
}

/// Between two large appends small ones get as much time as the first one took, not just one transaction. (Seen to fail
/// where they get one transaction.)
#[tokio::test]
async fn r17_small_appends_have_as_much_time_as_a_large_one_before_the_next() {
    let store = new_store().await;
    let large = |id: &str| {
        let mut append = append(id, Expected::NoStream, 60);
        for event in &mut append.events {
            event.data.payload = format!("\"{}\"", "x".repeat(900_000)).into();
        }
        store.append(append)
    };
    let mut both = pin!(futures_util::future::join(large("a"), large("b")));
    let mut small = Vec::new();
    let (first, second) = loop {
        tokio::select! {
            (first, second) = &mut both => break (first.unwrap(), second.unwrap()),
            appended = store.append(append("c", Expected::Any, 1)) => small.push(appended.unwrap().position),
        }
    };
    let between = small.iter().filter(|position| (first.position..second.position).contains(position)).count();
    assert!(between > 2, "{between} between {first:?} and {second:?}");
    dense_log(&store).await;
}

fn claim(id: &str) -> Append {
    let condition = Condition::new(EventQuery::tagged([tag("name:ada")]), Position::ZERO);
    Append::new(stream(id), Expected::NoStream, vec![event("test.claimed").with_tags([tag("name:ada")])]).on(condition)
}

#[tokio::test]
async fn r2_of_two_claims_in_one_batch_the_first_one_wins() {
    let store = new_store().await;
    let outcomes =
        in_one_batch(&store, [vec![claim("a")], vec![claim("b")], vec![append("c", Expected::Any, 1)]]).await;
    let failed = "the event at position 1 matches the append's condition";
    assert_eq!(described(&outcomes), ["[1]", failed, "[2]"]);
}

#[tokio::test]
async fn r1_a_refused_group_does_not_affect_the_rest_of_its_batch() {
    let store = new_store().await;
    let exact = |version| Expected::Exact(Version::new(version));
    let outcomes = in_one_batch(
        &store,
        [
            vec![append("a", Expected::NoStream, 2), append("b", Expected::NoStream, 1)],
            // The first of the group could be made.
            vec![append("c", Expected::NoStream, 1), append("a", exact(1), 1)],
            // The refused group has written nothing.
            vec![append("c", Expected::StreamExists, 1)],
            vec![append("a", exact(2), 1), append("c", Expected::NoStream, 1)],
        ],
    )
    .await;
    let stale = "stream test-a: expected version 1, found version 2";
    let missing = "stream test-c: expected an existing stream, found version 0";
    assert_eq!(described(&outcomes), ["[2, 3]", stale, missing, "[4, 5]"]);
    assert_eq!(dense_log(&store).await.len(), 5);
}

#[tokio::test]
async fn r4_a_group_that_sqlite_refuses_fails_alone_and_whole() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    foreign_connection(&path).await.execute(REFUSE_BAD).await.unwrap();
    let bad = || Append::new(stream("bad"), Expected::Any, vec![event("test.bad")]);
    let entries = (0..20).map(|number| {
        let good = append(&number.to_string(), Expected::Any, 1);
        if number % 6 == 1 { vec![good, bad(), append("last", Expected::Any, 1)] } else { vec![good, claim("a")] }
    });
    let outcomes = in_one_batch(&store, entries).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let expected = match (number, outcome) {
            (0, outcome) => outcome.is_ok(),
            (number, Err(AppendError::Refused(_))) => number % 6 == 1,
            // "a" is taken.
            (_, outcome) => matches!(outcome, Err(AppendError::Conflict(_))),
        };
        assert!(expected, "{number}: {outcome:?}");
    }
    assert_eq!(dense_log(&store).await.len(), 2);
}

/// Draws random appends: some match the state of the log, some do not, and some were made before.
struct Draw {
    rng: Rng,
    /// The store in which each drawn append is made at once.
    reference: MemoryStore,
    drawn: Vec<Append>,
}

impl Draw {
    fn tags(&mut self) -> Vec<Tag> {
        (0..self.rng.usize(0..4)).map(|_| tag(["x", "y", "z"][self.rng.usize(0..3)])).collect()
    }

    fn query(&mut self) -> EventQuery {
        let items = (0..self.rng.usize(1..3)).map(|_| {
            let tags = self.tags();
            let query = EventQuery::tagged(if tags.is_empty() { vec![tag("x")] } else { tags });
            if self.rng.bool() { query } else { query.named([["test.one", "test.two"][self.rng.usize(0..2)]]) }
        });
        items.reduce(EventQuery::or).unwrap()
    }

    async fn append(&mut self, id: &str) -> Append {
        let again: Vec<_> = self.drawn.iter().filter(|append| append.stream == stream(id)).cloned().collect();
        if !again.is_empty() && self.rng.u8(0..4) == 0 {
            let mut again = again[self.rng.usize(0..again.len())].clone();
            // Or only the rest of its events.
            if let (Some(version), true, true) = (again.expected.version(), again.events.len() > 1, self.rng.bool()) {
                again.expected = Expected::Exact(version.next());
                again.events.remove(0);
            }
            return again;
        }
        let events = self.reference.read_stream(&stream(id), Version::ZERO, usize::MAX).await.unwrap();
        let head = self.reference.head().await.unwrap();
        let behind = if self.rng.u8(0..3) == 0 { self.rng.usize(0..3) } else { 0 };
        let version = events.len().saturating_sub(behind);
        let expected = match (self.rng.u8(0..5), version) {
            (0, _) => Expected::Any,
            (1, _) => Expected::StreamExists,
            (2, _) | (_, 0) => Expected::Exact(Version::new(version as u64)),
            (_, last) => Expected::Last { version: events[last - 1].version, last: Ending::sent(events[last - 1].id) },
        };
        let events = (0..self.rng.usize(1..4))
            .map(|_| event(["test.one", "test.two"][self.rng.usize(0..2)]).with_tags(self.tags()))
            .collect();
        let mut append = Append::new(stream(id), expected, events);
        if self.rng.u8(0..4) == 0 {
            let key = IdempotencyKey::new(self.rng.u8(0..40).to_string()).unwrap();
            append.command = Some(CommandKey::new(key, Fingerprint::of(&[self.rng.u8(0..2)])));
        }
        if self.rng.u8(0..3) == 0 {
            let behind = if self.rng.bool() { 6 } else { 60 };
            let after = Position::new((head.get() + 2).saturating_sub(self.rng.u64(0..behind)));
            append.condition = Some(Condition::new(self.query(), after));
        }
        self.drawn.push(append.clone());
        append
    }

    /// Appends that are made together, and the outcome in the reference.
    async fn entry(&mut self) -> (Vec<Append>, Outcome) {
        let mut ids = ["a", "b", "c", "d", "e", "f"];
        self.rng.shuffle(&mut ids);
        let mut appends = Vec::new();
        let members = if self.rng.bool() { 1 } else { self.rng.usize(1..4) };
        for id in &ids[..members] {
            appends.push(self.append(id).await);
        }
        let outcome = self.reference.append_together(appends.clone()).await;
        (appends, outcome)
    }
}

/// The reference makes them one after the other. (Seen to fail without each of the facts that a verdict takes from its
/// own batch: versions, last events, repetitions, tags.)
#[tokio::test]
async fn r2_r6_a_batch_ends_as_if_its_appends_came_one_after_the_other() {
    let mut kinds = BTreeMap::<_, usize>::new();
    for seed in 0..10 {
        let store = new_store().await;
        let mut draw = Draw { rng: Rng::with_seed(seed), reference: MemoryStore::new(), drawn: Vec::new() };
        for batch in 0..12 {
            let (mut entries, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..25 {
                let (appends, outcome) = draw.entry().await;
                let kind = match &outcome {
                    Ok(appended) => if appended[0].repeated { "repeated" } else { "written" }.to_owned(),
                    Err(error) => format!("{error:?}").chars().take_while(char::is_ascii_alphabetic).collect(),
                };
                *kinds.entry((kind, appends.len() > 1)).or_default() += 1;
                entries.push(appends);
                expected.push(format!("{outcome:?}"));
            }
            let outcomes = in_one_batch(&store, entries.clone()).await;
            for ((outcome, expected), appends) in outcomes.iter().zip(expected).zip(entries) {
                assert_eq!(format!("{outcome:?}"), expected, "seed {seed}, batch {batch}: {appends:?}");
            }
            for _ in 0..8 {
                let (query, after, limit) = (draw.query(), Position::new(draw.rng.u64(0..200)), draw.rng.usize(0..50));
                let expected = draw.reference.read_matching(&query, after, limit).await.unwrap();
                let found = store.read_matching(&query, after, limit).await.unwrap();
                let ids =
                    |events: Vec<es_core::RecordedEvent>| events.into_iter().map(|event| event.id).collect::<Vec<_>>();
                assert_eq!(ids(found), ids(expected), "seed {seed}, batch {batch}: {query:?} after {after}");
            }
        }
        let places = |log: Vec<es_core::RecordedEvent>| {
            log.into_iter().map(|event| (event.stream, event.version, event.id)).collect::<Vec<_>>()
        };
        let expected = draw.reference.read_log(Position::ZERO, usize::MAX).await.unwrap();
        assert_eq!(places(dense_log(&store).await), places(expected));
    }
    // The draw covers each kind of outcome often enough.
    assert!(kinds.len() == 10 && kinds.values().all(|count| *count >= 10), "{kinds:?}");
}
