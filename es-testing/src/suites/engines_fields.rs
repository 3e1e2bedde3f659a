//! Documents that are found by their fields: projectors write these, queries read them, and unique ones are refused to a second
//! document.

use std::time::Duration;

use es_core::{
    EngineError, EventOrder, FailurePolicy, Field, FieldCursor, Fields, FoldResult, Keys, Position, Projection,
    QueryError, ReadToken, Recorded, testing::account::AccountEvent,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{
    engines_failures::{act, amount_of, begin, deposit, eventually, letters, no_letters, projector, reaches, stops},
    engines_project::{self, PATIENCE, Store, read_model, spawn},
};

/// What was put on an account last, and how often something was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    last: u64,
    count: i64,
}

const LAST: Field<Slot, i64> = Field::new("last", |slot: &Slot| i64::try_from(slot.last).ok()).unique();
const COUNT: Field<Slot, i64> = Field::new("count", |slot: &Slot| Some(slot.count));
const TEXT: Field<Slot, String> = Field::new("text", |slot: &Slot| match slot.last {
    LONG => Some("x".repeat(2_000)),
    PANICS => panic!("as the test wants it"),
    last => last.is_multiple_of(2).then(|| last.to_string()),
});

/// What no field can hold.
const LONG: u64 = 777;
const PANICS: u64 = 666;
/// From here on, an event also touches a second document, whose value is greater by this.
const TWICE: u64 = 1_000;

#[derive(Debug, Clone, Copy)]
pub(super) struct Slots<const VERSION: u32, const WITH_FIELDS: bool>;
pub(super) type Searched = Slots<2, true>;

impl<const VERSION: u32, const WITH_FIELDS: bool> Projection for Slots<VERSION, WITH_FIELDS> {
    const NAME: &'static str = "slots";
    const VERSION: u32 = VERSION;
    const READS_SINCE: u32 = 1;
    const ORDER: EventOrder = EventOrder::PerKey;
    const FIELDS: Fields<Slot> = if WITH_FIELDS { &[&LAST, &COUNT, &TEXT] } else { &[] };
    type Event = AccountEvent;
    type Document = Slot;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        let id = event.stream.id();
        if amount_of(event) < TWICE { Keys::one(id) } else { Keys::many([id.to_owned(), format!("{id}-copy")]) }
    }

    fn fold(&self, slot: &mut Option<Slot>, event: &Recorded<AccountEvent>) -> FoldResult {
        let slot = slot.get_or_insert_default();
        (slot.last, slot.count) = (amount_of(event), slot.count + 1);
        Ok(())
    }

    fn fold_keyed(&self, key: &str, slot: &mut Option<Slot>, event: &Recorded<AccountEvent>) -> FoldResult {
        self.fold(slot, event)?;
        if let Some(slot) = slot.as_mut().filter(|_| key.ends_with("-copy")) {
            slot.last += TWICE;
        }
        Ok(())
    }
}

/// The keys that are found by the last amount, with these amounts.
async fn found(store: &impl Store) -> Vec<(String, u64)> {
    let page = read_model::<Searched>(store).find(LAST.range(..), 100).await.expect("a page");
    page.documents.into_iter().map(|(key, slot)| (key, slot.last)).collect()
}

fn pairs(found: &[(&str, u64)]) -> Vec<(String, u64)> {
    found.iter().map(|(key, last)| ((*key).to_owned(), *last)).collect()
}

/// R9: written in batches, in one build, and again after a restart.
pub async fn r9_fields_are_those_of_the_documents(store: &impl Store) {
    let mut position = deposit(store, &[("a", 5), ("b", 4), ("c", 3)]).await;
    begin(Slots::<2, true>, store).await;
    let model = read_model::<Searched>(store);
    for round in 1..=4 {
        let shutdown = CancellationToken::new();
        let running = spawn(engines_project::projector(Slots::<2, true>, store), &shutdown);
        let base = round * 10;
        position =
            deposit(store, &[("a", base + 3), ("c", base), ("d", base + 2), ("c", base + 1), ("b", base + 4)]).await;
        model.wait_for(ReadToken(position), PATIENCE).await.expect("it catches up");
        let sorted = [("c", base + 1), ("d", base + 2), ("a", base + 3), ("b", base + 4)];
        assert_eq!(found(store).await, pairs(&sorted));
        let even = model.find(TEXT.range(..), 10).await.expect("a page").documents;
        assert_eq!(even.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), ["d", "b"]);
        let most = model.find(COUNT.range(..).descending(), 1).await.expect("a page").documents;
        assert_eq!(most[0].0, "c");
        stops(running, &shutdown).await;
    }
    assert_eq!(model.count(COUNT.is(5)).await.expect("a count"), 2);
    assert_eq!(model.find(LAST.is(43), 10).await.expect("a page").documents[0].1, Slot { last: 43, count: 5 });
    assert_eq!(position, Position::new(23));
}

/// R12: a document whose value stays is on one page, whatever is committed between two pages; a promotion is told.
pub async fn r12_all_pages_of_found_documents_are_of_one_generation(store: &impl Store) {
    deposit(store, &[("a", 10), ("b", 20), ("c", 30), ("d", 40), ("e", 50)]).await;
    begin(Slots::<2, true>, store).await;
    let model = read_model::<Searched>(store);
    let shutdown = CancellationToken::new();
    let running = spawn(projector(Slots::<2, true>, store, FailurePolicy::stop()), &shutdown);
    let keys = |documents: Vec<(String, Slot)>| documents.into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    let whole = model.find(LAST.range(..), 5).await.expect("a page");
    assert!(whole.documents.len() == 5 && whole.next.is_none(), "a full page may be the last one");
    for (range, pages) in
        [(LAST.range(..), [["a", "b"], ["c", "d"]]), (LAST.range(20..).descending(), [["e", "d"], ["c", "b"]])]
    {
        let first = model.find(range.clone(), 2).await.expect("a page");
        assert_eq!(keys(first.documents), pages[0]);
        // The key of the cursor, and others before it, move.
        let token = deposit(store, &[("a", 11), ("b", 21), ("new", 1), ("e", 51), ("d", 41)]).await;
        reaches::<Searched>(store, token).await;
        let cursor = first.next.expect("there is more").to_string();
        let cursor: FieldCursor = cursor.parse().expect("a cursor");
        let resumed = range.clone().resume(cursor.clone());
        let second = model.find(resumed.clone(), 2).await.expect("a page");
        let expected: Vec<_> = if pages[0][0] == "a" { vec!["b", "c"] } else { vec!["c", "b"] };
        assert_eq!(keys(second.documents), expected);
        assert!(model.count(resumed.clone()).await.expect("a count") >= 2);
        let other = model.find(COUNT.range(..).resume(cursor), 2).await;
        assert!(matches!(other, Err(QueryError::OtherCursor { field: "count", .. })), "{other:?}");
        begin(Slots::<2, true>, store).await;
        let (found, counted) = (model.find(resumed.clone(), 2).await, model.count(resumed).await);
        assert!(matches!(found, Err(QueryError::Replaced { .. })), "{found:?}");
        assert!(matches!(counted, Err(QueryError::Replaced { .. })), "{counted:?}");
    }
    stops(running, &shutdown).await;
}

/// R12: an older generation serves that has no fields; what it has is not taken for all there is. Fields that change need a new
/// version.
pub async fn r12_a_search_waits_for_a_generation_with_the_field(store: &impl Store) {
    deposit(store, &[("a", 1)]).await;
    begin(Slots::<1, false>, store).await;
    let model = read_model::<Searched>(store);
    assert!(model.get("a").await.expect("it reads the older version").is_some());
    let found = model.find(LAST.is(1), 10).await;
    assert!(matches!(found, Err(QueryError::NoField { field: "last", serving: 1, ours: 2, .. })), "{found:?}");
    let counted = model.count(LAST.is(1)).await;
    assert!(matches!(&counted, Err(error @ QueryError::NoField { .. }) if error.is_transient()), "{counted:?}");
    let changed = projector(Slots::<1, true>, store, FailurePolicy::stop()).run(CancellationToken::new()).await;
    assert!(matches!(changed, Err(EngineError::OtherDefinition { .. })), "{changed:?}");
    let waiting = tokio::spawn({
        let model = model.clone().patience(PATIENCE);
        async move { model.find(LAST.is(1), 10).await }
    });
    begin(Slots::<2, true>, store).await;
    let page = waiting.await.expect("no panic").expect("the new version has it");
    assert_eq!(page.documents, [("a".to_owned(), Slot { last: 1, count: 1 })]);
    // Waiting mends no field that the projection does not declare.
    let undeclared: Field<Slot, i64> = Field::new("undeclared", |slot: &Slot| Some(slot.count));
    let found = model.patience(Duration::MAX).find(undeclared.is(1), 10).await;
    assert!(matches!(&found, Err(QueryError::NoField { serving: 2, ours: 2, .. })), "{found:?}");
}

/// R11: events before the one that gives a second document the value are committed, it is not; in a rebuild too.
pub async fn r11_an_event_that_gives_a_taken_value_stops_the_projector(store: &impl Store) {
    begin(Slots::<2, true>, store).await;
    let refused = |outcome: Result<(), EngineError>, position| match outcome {
        Err(error @ EngineError::NotUnique { .. }) => {
            let text = format!(
                "account-c@1 at position {position} gives the document \"c\" the value of the unique field \"last\" that the \
                 document \"a\" has"
            );
            assert_eq!((error.to_string(), error.is_transient()), (text, false));
        }
        other => panic!("expected the value to be taken, got {other:?}"),
    };
    deposit(store, &[("a", 5), ("b", 2), ("a", 1), ("b", 3), ("d", 4), ("c", 1), ("b", 6)]).await;
    let stop = || projector(Slots::<2, true>, store, FailurePolicy::stop());
    refused(stop().run(CancellationToken::new()).await, 6);
    assert_eq!(found(store).await, pairs(&[("a", 1), ("b", 3), ("d", 4)]));
    assert_eq!(read_model::<Searched>(store).get("c").await.expect("a read"), None);
    refused(stop().rebuild(CancellationToken::new()).await.map(drop), 6);
    // A program that does not demand it passes the event.
    begin(Slots::<3, false>, store).await;
}

/// R11: the store finds it, and not the fold of a batch; the events of the batch before it are committed.
pub async fn r11_a_value_of_an_earlier_batch_is_taken(store: &impl Store) {
    begin(Slots::<2, true>, store).await;
    let last = deposit(store, &[("a", 1)]).await;
    let shutdown = CancellationToken::new();
    let stop = || projector(Slots::<2, true>, store, FailurePolicy::stop());
    let running = spawn(stop(), &shutdown);
    reaches::<Searched>(store, last).await;
    stops(running, &shutdown).await;
    deposit(store, &[("b", 2), ("d", 4), ("c", 1)]).await;
    match stop().run(CancellationToken::new()).await {
        Err(EngineError::NotUnique { event, taken }) => {
            assert_eq!((event.position, taken.key, taken.other), (Position::new(4), "c".to_owned(), "a".to_owned()));
        }
        other => panic!("expected the value to be taken, got {other:?}"),
    }
    assert_eq!(found(store).await, pairs(&[("a", 1), ("b", 2), ("d", 4)]));
}

/// R19: only the key that is refused is parked, here both keys of an event. When the value is free, its letters are handled.
pub async fn r19_a_key_whose_value_is_taken_is_parked(store: &impl Store) {
    begin(Slots::<2, true>, store).await;
    let park = || projector(Slots::<2, true>, store, FailurePolicy::park());
    let both = TWICE + 1;
    let deposits = [
        ("a", 1),
        ("b", 2),
        ("c", 1),
        ("d", 4),
        ("c", 3),
        ("e", both),
        ("f", both),
        ("g", 7),
        ("h", LONG),
        ("i", PANICS),
    ];
    let last = deposit(store, &deposits).await;
    let shutdown = CancellationToken::new();
    let running = spawn(park(), &shutdown);
    reaches::<Searched>(store, last).await;
    let sorted = [("a", 1), ("b", 2), ("d", 4), ("g", 7), ("e", both), ("e-copy", both + TWICE)];
    assert_eq!(found(store).await, pairs(&sorted));
    let parked = |letters: &[es_core::DeadLetter]| {
        letters.iter().map(|letter| (letter.key.clone(), letter.event.position.get())).collect::<Vec<_>>()
    };
    let expected = [("c", 3), ("c", 5), ("f", 7), ("f-copy", 7), ("h", 9), ("i", 10)];
    let before = letters(store, Searched::NAME).await;
    assert_eq!(parked(&before), pairs(&expected));
    let causes =
        [(0, "unique field \"last\""), (2, "unique field"), (3, "\"e-copy\""), (4, "2000 bytes"), (5, "panicked")];
    for (index, cause) in causes {
        assert!(before[index].cause.as_deref().is_some_and(|text| text.contains(cause)), "{:?}", before[index]);
    }
    assert_eq!(before[1].cause, None, "it waits behind the other");
    // Still taken. The next letter would give the document another value in the same commit.
    store.request_retry(Searched::NAME, "c", &act()).await.expect("parked");
    eventually("it fails again", async || {
        letters(store, Searched::NAME).await.first().filter(|letter| letter.attempts > before[0].attempts).map(drop)
    })
    .await;
    assert_eq!(parked(&letters(store, Searched::NAME).await), pairs(&expected));
    let token = deposit(store, &[("a", 9), ("e", 8)]).await;
    reaches::<Searched>(store, token).await;
    for key in ["c", "f"] {
        store.request_retry(Searched::NAME, key, &act()).await.expect("parked");
    }
    for key in ["f-copy", "h", "i"] {
        store.discard_letters(Searched::NAME, key, None, &act()).await.expect("parked");
    }
    no_letters(store, Searched::NAME).await;
    let sorted = [("b", 2), ("c", 3), ("d", 4), ("g", 7), ("e", 8), ("a", 9), ("f", both), ("e-copy", both + TWICE)];
    assert_eq!(found(store).await, pairs(&sorted));
    stops(running, &shutdown).await;
    // A rebuild refuses what was refused then.
    park().rebuild(CancellationToken::new()).await.expect("rebuilt");
    assert_eq!(parked(&letters(store, Searched::NAME).await), pairs(&expected));
    let sorted = [("b", 2), ("d", 4), ("g", 7), ("e", 8), ("a", 9), ("e-copy", both + TWICE)];
    assert_eq!(found(store).await, pairs(&sorted));
}
