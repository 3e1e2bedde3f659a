mod forward;

use std::sync::Mutex;

use super::*;
use crate::{
    event::{NewEvent, RecordedEvent},
    memory::MemoryStore,
    read::{
        failure::FailurePolicy,
        read_model::{DeadLetters, LetterPage},
        source::{LogSource, unreadable::UNREADABLE},
        worker::{Events, Handled, Handler},
    },
    stream::{Expected, Position},
    testing::{account::AccountEvent, recorded},
    write::{append::Append, store::EventStore},
};

/// Notes the amounts that it has seen.
#[derive(Default)]
struct Amounts(Mutex<Vec<u64>>);

#[async_trait]
impl Consumer for Amounts {
    const NAME: &'static str = "amounts";
    type Message = AccountEvent;

    async fn handle(&self, message: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        let AccountEvent::Deposited { amount } = message.data else { return Ok(()) };
        self.0.lock().expect("no panic").push(amount);
        Ok(())
    }
}

/// Deposits of 1, 2, …; the named ones have another name.
fn messages(others: &[(usize, &str)]) -> Vec<RecordedEvent> {
    let mut messages = recorded([1, 2, 3].map(|amount| ("a", AccountEvent::Deposited { amount })));
    for (nth, name) in others {
        messages[*nth].data.name = (*name).into();
    }
    messages
}

fn runner(unknown: UnknownTypes) -> ConsumerRunner<Amounts> {
    let store = MemoryStore::new();
    ConsumerRunner::new(Amounts::default(), LogSource::new(store.clone()), store).unknown_types(unknown)
}

async fn handled(runner: &ConsumerRunner<Amounts>, messages: &[RecordedEvent], room: usize) -> Handled {
    let (reader, _) = MemoryStore::new().ensure_reader("amounts", "consumer").await.expect("made");
    let mut events = Events::of_log(messages);
    events.course.room = room;
    runner.runner.handle(&reader, events, &CancellationToken::new()).await
}

/// Seen to fail where an unknown type is a failure whatever is declared.
#[tokio::test]
async fn r14_messages_of_unknown_types_are_passed_over_where_that_is_declared() {
    let runner = runner(UnknownTypes::Ignore);
    let handled = handled(&runner, &messages(&[(1, "account.frozen")]), 0).await;
    assert_eq!((handled.done, handled.failure.is_none(), handled.letters.len()), (3, true, 0));
    assert_eq!(*runner.runner.policy.0.0.lock().expect("no panic"), [1, 3]);
}

/// What follows of the key waits until the worker knows that it is parked. Seen to fail where the key is that of a policy, without the
/// shard, and where an unknown type is left to the failure policy.
#[tokio::test]
async fn r19_messages_of_unknown_types_are_parked_where_that_is_declared() {
    let runner = runner(UnknownTypes::Park);
    let messages = messages(&[(1, "account.frozen")]);
    let handled = handled(&runner, &messages, 9).await;
    assert_eq!((handled.done, handled.failure.is_none()), (2, true));
    assert_eq!((&*handled.letters[0].key, &handled.letters[0].event), ("log/account-a", &messages[1]));
    assert!(handled.letters[0].cause.as_ref().is_some_and(|cause| cause.contains("account.frozen")));
}

/// A retry that parks again would delete the letter: what a redemption parks is written nowhere.
#[tokio::test]
async fn r11_a_letter_of_a_type_that_is_still_unknown_stays() {
    let (runner, messages) = (runner(UnknownTypes::Park), messages(&[(0, "account.frozen")]));
    let (reader, _) = MemoryStore::new().ensure_reader("amounts", "consumer").await.expect("made");
    let mut events = Events::of_log(&messages);
    (events.course.only, events.course.room) = (Some("log/account-a"), 9);
    let handled = runner.runner.handle(&reader, events, &CancellationToken::new()).await;
    assert_eq!((handled.done, handled.letters.len()), (0, 0));
    assert!(handled.failure.is_some_and(|failure| failure.is_of_event()));
}

#[tokio::test]
async fn r11_a_consumer_stands_by_at_a_type_that_it_does_not_know_by_default() {
    let handled = handled(&runner(UnknownTypes::default()), &messages(&[(1, "account.frozen")]), 9).await;
    assert_eq!(handled.done, 1);
    assert!(handled.failure.is_some_and(|failure| failure.awaits_newer_code()));
}

/// The reason of the source is told, and also one that ignores unknown types does not pass over the record.
#[tokio::test]
async fn r11_a_record_that_its_source_cannot_read_is_a_failure_of_the_event() {
    let mut messages = messages(&[(1, UNREADABLE)]);
    for (payload, reason) in [(r#"{"reason":"no JSON","key":null}"#, "no JSON"), ("{}", "its source gives no reason")] {
        messages[1].data.payload = payload.into();
        let handled = handled(&runner(UnknownTypes::Ignore), &messages, 9).await;
        assert_eq!(handled.done, 1);
        let failure = handled.failure.expect("it cannot be read");
        assert!(failure.is_of_event() && !failure.is_transient() && !failure.awaits_newer_code());
        assert!(failure.to_string().ends_with(&format!("cannot be read: {reason}")), "{failure}");
    }
}

#[tokio::test]
async fn r19_a_record_that_cannot_be_read_parks_its_key() {
    let store = MemoryStore::new();
    let (shutdown, name) = (CancellationToken::new(), Amounts::NAME);
    for RecordedEvent { stream, data, .. } in messages(&[(1, UNREADABLE)]) {
        let append = Append::new(stream, Expected::Any, vec![NewEvent::new(data)]);
        store.append(append).await.expect("appended");
    }
    let source = LogSource::new(store.clone());
    let runner = ConsumerRunner::new(Amounts::default(), source, store.clone()).on_failure(FailurePolicy::park());
    let parked = async {
        while store.reached(name).await.expect("read") < Position::new(3) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(runner.run(shutdown.clone()), parked);
    ended.expect("in good order");
    let letters = store.dead_letters(name, &LetterPage::first(9)).await.expect("read");
    let positions: Vec<_> = letters.iter().map(|letter| letter.event.position.get()).collect();
    assert_eq!(positions, [2, 3], "and what follows of the key");
    assert_eq!(*runner.runner.policy.0.0.lock().expect("no panic"), [1]);
}

#[test]
fn a_consumer_does_not_continue_with_the_checkpoint_of_a_policy() {
    let runner = runner(UnknownTypes::Stop);
    let identity = Amounts::identity();
    assert!(runner.runner.admit(&format!("consumer {identity}")).is_ok());
    for other in [format!("policy {identity}"), "consumer Other".to_owned()] {
        assert!(matches!(runner.runner.admit(&other), Err(EngineError::OtherDefinition { name: "amounts", .. })));
    }
}
