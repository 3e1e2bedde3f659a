//! Documents that are found by wrong values, verified and mended.

use std::time::Duration;

use bytes::Bytes;
use es_core::{
    EngineError, Field, Fields, FoldResult, Keys, Position, Projection, Recorded, Service, ServiceStore,
    backend::{Changes, FieldChange, FieldValue, Lease, Shard, Takeover},
    read::refold::{Difference, WhatIf},
    service::Parts,
    testing::account::{Account, AccountEvent},
};
use uuid::Uuid;

use super::{
    engines_failures::act,
    engines_fields::{Searched, Slots},
    engines_project::PATIENCE,
    refold::{deposit, differences},
};

/// The last amount of each account.
struct Last;

const AMOUNT: Field<u64, i64> = Field::new("amount", |amount: &u64| i64::try_from(*amount).ok());
const IS_ODD: Field<u64, bool> = Field::new("is_odd", |amount| Some(!amount.is_multiple_of(2)));

impl Projection for Last {
    const NAME: &'static str = "last";
    const FIELDS: Fields<u64> = &[&AMOUNT, &IS_ODD];
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, last: &mut Option<u64>, event: &Recorded<AccountEvent>) -> FoldResult {
        if let AccountEvent::Deposited { amount } = event.data {
            *last = Some(amount);
        }
        Ok(())
    }
}

async fn lease<S: ServiceStore>(store: &S) -> Lease {
    let serving = store.generations(Last::NAME).await.expect("asked").serving.expect("it serves").generation;
    let ttl = Duration::from_mins(1);
    let lease = store.acquire(&serving.reader, &Shard::whole("log"), Uuid::now_v7(), Takeover::Always, ttl).await;
    lease.expect("asked").expect("it is there")
}

/// What is stored under keys is told with the values by which it is found, also where there is nothing.
pub async fn r9_what_is_stored_is_told_with_its_fields<S: ServiceStore + Clone>(store: &S) {
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let service = builder.projection(Last).start().await.expect("it starts");
    deposit(&service, "b", 7).await;
    deposit(&service, "a", 8).await;
    service.settled(PATIENCE).await.expect("it settles");
    let reader = lease(store).await.reader;
    let stored = store.stored(&reader, &["b", "missing", "a"].map(str::to_owned)).await.expect("read");
    let told = stored.iter().map(|stored| {
        let number = |field: &str| stored.fields.get(field).map(|value| value.number);
        (stored.document.as_deref(), number("amount"), number("is_odd"), stored.fields.len())
    });
    let seven: (Option<&[u8]>, _, _, _) = (Some(b"7"), Some(7), Some(1), 2);
    assert_eq!(told.collect::<Vec<_>>(), [seven, (None, None, None, 0), (Some(b"8"), Some(8), Some(0), 2)]);
    assert!(store.stored(&reader, &[]).await.expect("read").is_empty());
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R9, R22: the documents are right, but for one, and are found by wrong values or not at all. (It would fail where only documents were
/// compared: nothing was found, and nothing mended.)
pub async fn r9_r22_values_that_are_not_those_of_the_document_are_found_and_mended<S: ServiceStore + Clone>(store: &S) {
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let service = builder.projection(Last).start().await.expect("it starts");
    for (id, amount) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        deposit(&service, id, amount).await;
    }
    service.settled(PATIENCE).await.expect("it settles");
    assert_eq!(differences(&service, Last::NAME, 1.0).await, (4, Vec::new()));

    let lease = lease(store).await;
    let change = |key: &str, field, value: Option<i64>| FieldChange {
        key: key.to_owned(),
        field,
        is_unique: false,
        value: value.map(|number| FieldValue { number, text: String::new() }),
        passed: Vec::new(),
    };
    let fields = vec![
        change("a", "amount", Some(77)),
        change("a", "is_odd", Some(1)),
        change("b", "amount", None),
        change("b", "is_odd", None),
        change("c", "amount", Some(88)),
        change("c", "is_odd", Some(0)),
    ];
    // Values are written with their documents.
    let documents = [("a", "1"), ("b", "2"), ("c", "88")];
    let upserts = documents.map(|(key, document)| (key.to_owned(), Bytes::from(document))).to_vec();
    let changes = Changes { upserts, fields, checkpoint: lease.checkpoint.clone(), ..Changes::default() };
    store.commit(&lease, changes).await.expect("committed");
    store.release(&lease).await.expect("released");

    let wrong = |differences: &[Difference]| {
        let one = |found: &Difference| (found.key.clone(), found.stored == found.folded, found.fields.clone());
        let mut wrong: Vec<_> = differences.iter().map(one).collect();
        wrong.sort_unstable();
        wrong
    };
    let expected = [
        ("a".to_owned(), true, vec!["amount"]),
        ("b".to_owned(), true, vec!["amount", "is_odd"]),
        ("c".to_owned(), false, Vec::new()),
    ];
    assert_eq!(wrong(&differences(&service, Last::NAME, 1.0).await.1), expected);
    let mut told = Vec::new();
    let healed = service.heal_named(Last::NAME, 1.0, &act(), &mut |found| told.push(found)).await.expect("mended");
    assert_eq!((wrong(&told), healed.differing, healed.mended), (expected.to_vec(), 3, 3));
    assert_eq!(differences(&service, Last::NAME, 1.0).await, (4, Vec::new()));
    let found = service.read_model::<Last>().find(AMOUNT.range(..), 10).await.expect("found");
    assert_eq!(found.documents, [("a", 1), ("b", 2), ("c", 3), ("d", 4)].map(|(key, last)| (key.to_owned(), last)));
    let odd = service.read_model::<Last>().count(IS_ODD.is(true)).await.expect("counted");
    assert_eq!(odd, 2);
    let acts = store.acts(None, 10).await.expect("read");
    assert_eq!(acts.iter().filter(|act| act.what == "heal").count(), 3);
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// Also by a document of which no event is changed.
pub async fn r11_a_value_that_would_be_taken_twice_hinders_a_document<S: ServiceStore + Clone>(store: &S) {
    let builder = Service::builder("accounts", store.clone()).aggregate::<Account>();
    let service = builder.projection(Slots::<2, true>).parts(Parts::None).start().await.expect("it starts");
    for (id, amount) in [("a", 1), ("b", 2), ("b", 3)] {
        deposit(&service, id, amount).await;
    }
    let replaced =
        |at: u64, amount: u64| WhatIf::default().replacing(Position::new(at), format!(r#"{{"amount":{amount}}}"#));
    for (changes, hindered, differing) in [
        (replaced(1, 2), Some(("b", 2)), &["a", "b"][..]),
        (replaced(1, 3), Some(("b", 3)), &["a", "b"]),
        (replaced(3, 1), Some(("b", 3)), &["b"]),
        (replaced(2, 4), None, &[]),
        (WhatIf::default().without(Position::new(1)), None, &["a"]),
    ] {
        let found = service.what_if_named(Searched::NAME, &changes).await.expect("folded");
        let told = found.hindered.first().map(|found| (&*found.key, found.position.get()));
        assert_eq!((told, found.hindered.len()), (hindered, usize::from(hindered.is_some())), "{changes:?}");
        let is_unique =
            |error: &EngineError| matches!(error, EngineError::NotUnique { taken, .. } if taken.other == "a");
        assert!(found.hindered.iter().all(|found| is_unique(&found.error)), "{found:?}");
        let keys: Vec<_> = found.documents.iter().map(|found| &*found.key).collect();
        assert_eq!(keys, differing, "{changes:?}");
    }
    // In the log it is hindered too.
    deposit(&service, "c", 3).await;
    let found = service.what_if_named(Searched::NAME, &replaced(1, 5)).await.expect("folded");
    assert!(found.hindered.is_empty() && found.documents.len() == 1 && found.documents[0].key == "a", "{found:?}");
}
