use std::{ops::ControlFlow, slice, sync::Arc, sync::Mutex, time::Duration};

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::{
    event::Categories,
    memory::MemoryStore,
    read::{
        projection::EventOrder,
        read_model::{
            Act, DeadLetters, DeclaredField, FieldChange, FieldKind, FieldValue, GenerationState, Generations, Leases,
            LetterPage, NewLetter, ReadModelError, Reader, Takeover,
        },
        scripted::{Say, Script, Watched, checkpoint},
        source::{Delivery, Split, Subscription},
        worker::Handler,
    },
    testing::{account::AccountEvent, recorded},
};

const TTL: Duration = Duration::from_hours(1);
const FIELD: &str = "amount";

/// Notes the positions that it is given.
#[derive(Default)]
struct Notes {
    handled: Mutex<Vec<u64>>,
    /// The store fails after this event, once.
    fails_after: Mutex<Option<u64>>,
    /// The document gets a value with this event that another document has.
    takes_at: Option<u64>,
}

#[async_trait]
impl Handler for Notes {
    async fn handle(&self, _: &Reader, events: Events<'_>, _: &CancellationToken) -> Handled {
        let mut handled = Handled::default();
        for event in events.list {
            let position = event.position.get();
            self.handled.lock().expect("nothing panics under it").push(position);
            handled.done += 1;
            if self.takes_at == Some(position) {
                handled.fields.push(change("a", "1"));
            }
            if self.fails_after.lock().expect("nothing panics under it").take_if(|after| *after == position).is_some() {
                handled.failure = Some(EngineError::Store(ReadModelError("it is gone".into())));
                break;
            }
        }
        handled
    }
}

/// The document under `key` has this value.
fn change(key: &str, value: &str) -> FieldChange {
    let value = Some(FieldValue { number: 0, text: value.to_owned() });
    FieldChange { key: key.to_owned(), field: FIELD, is_unique: true, value, passed: Vec::new() }
}

/// A store where the key `a` is parked with two letters whose retry is requested, and another document has the value 1.
async fn parked() -> (Watched, Reader) {
    let (store, fields) = (Watched::default(), [DeclaredField { name: FIELD, kind: FieldKind::Text }]);
    let state = GenerationState::Serving;
    let made = store.memory.ensure_generation("notes", 1, state, "projection", &fields).await.expect("made");
    let (reader, shard) = (made.reader, shard());
    store.memory.ensure_shards(&reader, slice::from_ref(&shard)).await.expect("ensured");
    let lease = store.memory.acquire(&reader, &shard, Uuid::nil(), Takeover::Always, TTL).await;
    let lease = lease.expect("asked").expect("free");
    let letter = |event| NewLetter { key: "a".to_owned(), event, cause: None, attempts: 1 };
    let letters = recorded([1, 2].map(|amount| ("a", AccountEvent::Deposited { amount }))).into_iter().map(letter);
    let (upserts, fields) = (vec![("other".to_owned(), "1".into())], vec![change("other", "1")]);
    let changes =
        Changes { upserts, fields, letters: letters.collect(), checkpoint: checkpoint(2), ..Changes::default() };
    store.memory.commit(&lease, changes).await.expect("committed");
    store.memory.release(&lease).await.expect("released");
    store.memory.request_retry("notes", "a", &Act::new("ada", "ticket 7").expect("valid")).await.expect("parked");
    (store, reader)
}

fn shard() -> Shard {
    Shard::partition("topic", 0)
}

/// Runs a worker until it has done what operators want, and returns what its handler was given.
async fn retried(handler: Notes, store: &Watched, reader: Reader) -> Vec<u64> {
    let shutdown = CancellationToken::new();
    let source = Script::new(store.clone(), [Say::Next(Delivery::Assigned(vec![shard()]))], shutdown.clone());
    let (categories, order) = (Categories::All, EventOrder::PerKey);
    let subscription = Subscription {
        reader: "notes".into(),
        store: Uuid::nil(),
        categories,
        order,
        split: Split::NONE,
        forwards: false,
    };
    let worker = Worker::open(&handler, &source, &subscription, Arc::new(store.clone()), reader, TTL).await;
    let outcome = worker.expect("opened").run::<()>(&shutdown, |_| Box::pin(async { Ok(ControlFlow::Continue(())) }));
    outcome.await.expect("no error");
    handler.handled.into_inner().expect("nothing panics under it")
}

async fn letters(store: &MemoryStore) -> Vec<(u64, bool)> {
    let letters = store.dead_letters("notes", &LetterPage::first(10)).await.expect("read");
    letters.iter().map(|letter| (letter.event.position.get(), letter.cause.is_some())).collect()
}

/// Otherwise a reaction to the first letter would be repeated.
#[tokio::test]
async fn r9_letters_that_were_handled_are_committed_before_the_next_one_is_tried_again() {
    let (store, reader) = parked().await;
    let fails = Notes { fails_after: Mutex::new(Some(1)), ..Notes::default() };
    assert_eq!(retried(fails, &store, reader).await, [1, 2]);
    assert_eq!(letters(&store.memory).await, []);
}

#[tokio::test]
async fn r19_the_letter_whose_value_is_taken_fails_and_not_the_one_before_it() {
    let (store, reader) = parked().await;
    let takes = Notes { takes_at: Some(2), ..Notes::default() };
    assert_eq!(retried(takes, &store, reader).await, [1, 2, 1, 2]);
    assert_eq!(letters(&store.memory).await, [(2, true)]);
}
