use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use super::{Projector, documents::Documents, keys, unique::UniqueValues};
use crate::{
    event::{EventData, Recorded},
    limits::MAX_KEY_BYTES,
    memory::MemoryStore,
    read::{
        engine_error::{EngineError, Location},
        field::{Field, Fields},
        projection::{EventOrder, FoldResult, Keys, Projection},
        read_model::{FieldChange, FieldValue, GenerationState, Generations},
        samples::Distinct,
        scripted::Watched,
        source::{EventFeed, EventSource, LogSource, SourceError, Subscription},
        worker::{Events, Handler},
    },
    testing::{
        account::{AccountEvent, Histories},
        recorded,
    },
};

/// Has the keys that it is made with, in per-stream order if it is `STRICT`.
struct Fixed<const STRICT: bool>(Vec<String>);

impl<const STRICT: bool> Projection for Fixed<STRICT> {
    const NAME: &'static str = "fixed";
    const ORDER: EventOrder = if STRICT { EventOrder::PerStream } else { EventOrder::PerKey };
    type Event = EventData;
    type Document = ();

    fn keys(&self, _: &Recorded<EventData>) -> Keys {
        Keys::many(self.0.clone())
    }

    fn fold(&self, _: &mut Option<()>, _: &Recorded<EventData>) -> FoldResult {
        Ok(())
    }
}

fn event() -> Recorded<EventData> {
    recorded([("a", AccountEvent::Deposited { amount: 1 })]).remove(0)
}

#[test]
fn a_key_has_1_to_512_bytes_without_control_characters() {
    for (key, valid) in [
        ("a".to_owned(), true),
        ("b/ü".to_owned(), true),
        ("k".repeat(MAX_KEY_BYTES), true),
        ("k".repeat(MAX_KEY_BYTES + 1), false),
        (String::new(), false),
        ("a\nb".to_owned(), false),
    ] {
        let checked = keys(&Fixed::<false>(vec![key.clone()]), &event());
        match checked {
            Ok(keys) => assert!(valid && keys == [key]),
            Err(EngineError::Key { key: named, .. }) => assert!(!valid && named == key),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn in_per_stream_order_the_key_is_the_id_of_the_stream() {
    assert_eq!(keys(&Fixed::<true>(vec!["a".into()]), &event()).expect("its id"), ["a"]);
    assert!(matches!(keys(&Fixed::<true>(vec!["b".into()]), &event()), Err(EngineError::Key { .. })));
    assert_eq!(keys(&Fixed::<false>(vec!["b".into(), "a".into(), "b".into()]), &event()).expect("any"), ["a", "b"]);
}

#[test]
fn r17_a_commit_writes_32_mebibytes_at_once_and_512_for_one_event_at_most() {
    let projector = Projector::new(Histories, LogSource::new(MemoryStore::new()), MemoryStore::new());
    assert_eq!((projector.document_bytes, projector.most_document_bytes()), (33_554_432, 268_435_456));
    let largest = projector.document_bytes(usize::MAX);
    assert_eq!((largest.document_bytes, largest.most_document_bytes()), (536_870_912, 536_870_912));
}

#[tokio::test]
async fn in_per_stream_order_a_projection_listens_to_one_category() {
    let store = Watched::default();
    let generation =
        store.ensure_generation("fixed", 1, GenerationState::Serving, "projection", &[]).await.expect("made");
    let reader = generation.reader;
    let source = LogSource::new(store.memory.clone());
    let opened = Projector::new(Fixed::<true>(Vec::new()), source.clone(), store.clone());
    assert!(matches!(opened.worker(&opened, &source, &reader).await.err(), Some(EngineError::NotPerStream)));
    let opened = Projector::new(Fixed::<false>(Vec::new()), source.clone(), store.clone());
    assert!(opened.worker(&opened, &source, &reader).await.is_ok());
    let opened = Projector::new(Histories, source.clone(), store);
    assert!(opened.worker(&opened, &source, &reader).await.is_ok());
}

#[tokio::test]
async fn a_projector_has_leases_of_the_length_that_was_set() {
    let (store, ttl) = (Watched::default(), Duration::from_hours(7));
    let projector = Projector::new(Histories, LogSource::new(store.memory.clone()), store.clone()).lease(ttl);
    let shutdown = CancellationToken::new();
    let acquired = async {
        while store.ttl().is_none() {
            tokio::task::yield_now().await;
        }
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(projector.run(shutdown.clone()), acquired);
    ended.expect("in good order");
    assert_eq!(store.ttl(), Some(ttl));
}

#[test]
fn a_projector_stands_by_with_the_pauses_and_the_limit_that_were_set() {
    let (retry, limit) = (Duration::from_millis(7), Duration::from_hours(7));
    let projector = Projector::new(Histories, LogSource::new(MemoryStore::new()), MemoryStore::new());
    let projector = projector.standby(retry).standby_limit(limit);
    assert_eq!((projector.standby.retry, projector.standby.limit), (retry, limit));
}

#[tokio::test]
async fn documents_that_cannot_be_loaded_are_a_failure_before_the_first_event() {
    let store = Watched::default();
    let generation =
        store.ensure_generation("histories", 1, GenerationState::Serving, "projection", &[]).await.expect("made");
    let reader = generation.reader;
    let projector = Projector::new(Histories, LogSource::new(store.memory.clone()), store.clone());
    let events = recorded([("a", AccountEvent::Deposited { amount: 1 })]);
    store.breaks();
    let handled = projector.handle(&reader, Events::of_log(&events), &CancellationToken::new()).await;
    assert_eq!((handled.done, handled.upserts.len()), (0, 0));
    assert!(matches!(handled.failure, Some(EngineError::Store(_))), "{handled:?}");
}

#[test]
fn r17_a_document_that_is_encoded_again_counts_once() {
    let (event, mut documents) = (event(), Documents::<Fixed<false>>::new());
    documents.add("a".to_owned(), Some("null".into()));
    for _ in 0..3 {
        documents.fold(&Fixed(Vec::new()), "a", &event, Duration::MAX).expect("folded");
        documents.write(&Location::of(&event)).expect("written");
        assert_eq!(documents.written, "a".len() + "null".len());
    }
}

#[tokio::test]
async fn a_read_model_with_unique_fields_has_one_shard() {
    let store = MemoryStore::new();
    let projector = || Projector::new(Distinct, LogSource::new(store.clone()), store.clone());
    let refused = projector().shards(2).rebuild(CancellationToken::new()).await;
    assert!(matches!(refused, Err(EngineError::UniqueInShards)), "{refused:?}");
    assert!(projector().shards(1).rebuild(CancellationToken::new()).await.is_ok());
}

/// The last amount, in two documents: one too many, since no two may have the same. A fold takes long enough for what was folded to be
/// encoded before the next fold.
struct Twice;

impl Projection for Twice {
    const NAME: &'static str = "twice";
    const FIELDS: Fields<u64> = &[&Field::<u64, i64>::new("amount", |amount| i64::try_from(*amount).ok()).unique()];
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, _: &Recorded<AccountEvent>) -> Keys {
        Keys::many(["one", "other"])
    }

    fn fold(&self, last: &mut Option<u64>, event: &Recorded<AccountEvent>) -> FoldResult {
        std::thread::sleep(Duration::from_millis(20));
        let (AccountEvent::Deposited { amount } | AccountEvent::Withdrawn { amount }) = event.data;
        *last = Some(amount);
        Ok(())
    }
}

#[tokio::test]
async fn the_unique_values_of_documents_that_are_encoded_within_an_event_are_compared() {
    let store = Watched::default();
    let generation =
        store.ensure_generation("twice", 1, GenerationState::Serving, "projection", &[]).await.expect("made");
    let projector = Projector::new(Twice, LogSource::new(store.memory.clone()), store.clone());
    let events = recorded([("a", AccountEvent::Deposited { amount: 1 })]);
    // So little may stay in memory that of an encoded document only the bytes do.
    let projector = projector.document_bytes(8);
    let handled = projector.handle(&generation.reader, Events::of_log(&events), &CancellationToken::new()).await;
    let Some(EngineError::NotUnique { taken, .. }) = &handled.failure else { panic!("{handled:?}") };
    assert_eq!((&*taken.field, &*taken.key, &*taken.other), ("amount", "other", "one"));
}

#[test]
fn r11_the_values_that_a_document_has_had_stay_with_their_field() {
    let (event, mut unique) = (event(), UniqueValues::default());
    let value = |number: i64| FieldValue { number, text: String::new() };
    for number in [1, 2] {
        let values = vec![("first", value(number)), ("second", value(5))];
        unique.settle(&event, vec![("a", values)]).map_err(|(key, _)| key).expect("no other document has them");
    }
    let change = |field, number| FieldChange {
        key: "a".to_owned(),
        field,
        is_unique: true,
        value: Some(value(number)),
        passed: Vec::new(),
    };
    let mut changes = [change("first", 2), change("second", 5)];
    unique.add_passed("a", &mut changes);
    assert_eq!(changes.map(|change| change.passed), [vec![value(1)], vec![]]);
}

/// The document that has the value may lose it with a later event of the same commit.
#[test]
fn r11_the_unique_values_of_stored_documents_are_known_before_the_first_event() {
    let events = recorded([("a", AccountEvent::Deposited { amount: 7 })]);
    let event = events[0].decode::<AccountEvent>().expect("readable").expect("its own");
    let mut documents = Documents::<Twice>::new();
    documents.add("one".to_owned(), Some("7".into()));
    documents.add("other".to_owned(), None);
    documents.fold(&Twice, "other", &event, Duration::MAX).expect("folded");
    let refused = documents.settle(&["other".to_owned()], &event).map_err(|(key, _)| key);
    assert_eq!(refused, Err("other".to_owned()));
}

/// Notes the order in which it is asked to deliver, and refuses.
#[derive(Debug, Default)]
struct Asked(Arc<Mutex<Vec<EventOrder>>>);

#[async_trait]
impl EventSource for Asked {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        self.0.lock().expect("nothing panics under it").push(subscription.order);
        Err(SourceError::Order(subscription.order))
    }
}

/// In the order per stream, Kafka delivers each partition by itself. (Seen to fail: a document that got the value which another one
/// had lost in a partition that lagged behind stopped the reader.)
#[tokio::test]
async fn r11_a_read_model_with_unique_fields_is_folded_in_log_order() {
    let (store, asked) = (MemoryStore::new(), Asked::default());
    let orders = asked.0.clone();
    let refused = Projector::new(Distinct, asked, store).rebuild(CancellationToken::new()).await;
    assert!(matches!(refused, Err(EngineError::Source(SourceError::Order(_)))), "{refused:?}");
    assert_eq!(
        (Distinct::ORDER, &orders.lock().expect("nothing panics under it")[..]),
        (EventOrder::PerStream, &[EventOrder::PerKey][..])
    );
}
