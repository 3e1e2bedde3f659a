use std::sync::{Arc, Mutex};

use chrono::Utc;

use super::*;
use crate::{
    event::{EventData, Metadata, NewEvent, RecordedEvent},
    react::consumer::Consumer,
    read::source::{EventFeed, EventSource, SourceError, Subscription},
    stream::{Expected, Position, StreamId, Version},
    testing::account::{Account, AccountCommand, AccountEvent},
    write::{
        append::{Append, CommandKey, Fingerprint, IdempotencyKey},
        scripted::{Fate, Scripted},
        store::AppendError,
    },
};

/// A topic with one command, under the key `1`.
#[derive(Debug, Default)]
struct One(Mutex<Vec<CommandAnswer>>);

#[async_trait]
impl EventSource for One {
    async fn open(&self, _: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        Err(SourceError::CannotForward)
    }
}

fn key() -> CommandKey {
    CommandKey::new(IdempotencyKey::new("1").expect("a key"), Fingerprint::of(b""))
}

#[async_trait]
impl CommandTopic for One {
    fn command(&self, message: &RecordedEvent) -> Result<CommandMessage, String> {
        let (stream, payload) = (message.stream.clone(), message.data.payload.clone());
        let metadata = Metadata::default();
        Ok(CommandMessage { stream, key: key(), if_version: None, deadline: None, metadata, payload })
    }

    async fn answer(&self, _: &RecordedEvent, answer: &CommandAnswer) -> Result<(), SourceError> {
        self.0.lock().expect("no panic").push(answer.clone());
        Ok(())
    }
}

fn ada() -> StreamId {
    StreamId::new("account", "ada").expect("valid")
}

fn withdraw(amount: u64) -> RecordedEvent {
    let payload = serde_json::to_vec(&AccountCommand::Withdraw(amount)).expect("a command").into();
    RecordedEvent {
        position: Position::new(1),
        stream: ada(),
        version: Version::new(1),
        id: uuid::Uuid::now_v7(),
        recorded_at: Utc::now(),
        metadata: Metadata::default(),
        data: EventData { name: "account.command".into(), schema_version: 1, payload },
    }
}

/// What is answered to the withdrawal of 1 where the store meets these fates.
async fn answered(fates: impl IntoIterator<Item = Fate>) -> (Vec<CommandAnswer>, Result<(), PolicyError>, u64) {
    let (store, topic) = (Arc::new(Scripted::new(fates)), Arc::new(One::default()));
    let accounts = Repository::<Account>::new(store.clone());
    let owner = CommandOwner::new(topic.clone(), store.clone()).aggregate(accounts);
    let handled = owner.handle(&withdraw(1)).await;
    let answers = topic.0.lock().expect("no panic").clone();
    let balance = Repository::<Account>::new(store.memory.clone()).load("ada").await.expect("loaded").state.balance;
    (answers, handled, balance)
}

fn append(events: impl IntoIterator<Item = AccountEvent>) -> Append {
    let events = events.into_iter().map(|event| NewEvent::of(&event).expect("an event")).collect();
    Append { command: Some(key()), ..Append::new(ada(), Expected::Any, events) }
}

/// A worker that has lost its partition refuses the command, and meanwhile the one that has it executes it. Seen to fail where the
/// refusal is written under a key of its own: both were true.
#[tokio::test]
async fn r6_of_two_workers_that_decide_otherwise_the_first_one_has_decided() {
    let events = [AccountEvent::Deposited { amount: 5 }, AccountEvent::Withdrawn { amount: 1 }];
    let (answers, handled, balance) = answered([Fate::After(append(events))]).await;
    handled.expect("it is handled");
    assert_eq!(balance, 4);
    assert!(matches!(&answers[..], [CommandAnswer::Done(receipt)] if receipt.repeated), "{answers:?}");
}

/// The other way round: the refusal was written before.
#[tokio::test]
async fn r6_a_command_that_another_worker_has_refused_meanwhile_is_refused() {
    let store = Arc::new(Scripted::new([]));
    let topic = Arc::new(One::default());
    let accounts = || Repository::<Account>::new(store.clone());
    let first = CommandOwner::new(topic.clone(), store.clone()).aggregate(accounts());
    first.handle(&withdraw(1)).await.expect("it is handled");
    accounts().execute("ada", AccountCommand::Deposit(5)).await.expect("deposited");
    let second = CommandOwner::new(topic.clone(), store.clone()).aggregate(accounts());
    second.handle(&withdraw(1)).await.expect("it is handled");
    let refused = CommandAnswer::Rejected { reason: "the balance is 0".to_owned() };
    assert_eq!(*topic.0.lock().expect("no panic"), [refused.clone(), refused]);
    assert_eq!(accounts().load("ada").await.expect("loaded").state.balance, 5);
}

/// A refusal that cannot be written is not answered.
#[tokio::test]
async fn r6_nothing_is_answered_before_it_is_kept() {
    let busy = AppendError::Store("it is away".into());
    let (answers, handled, _) = answered([Fate::Fails(busy)]).await;
    assert!(answers.is_empty() && handled.is_err_and(|error| error.is_transient()));
}

/// Any characters, and any length.
#[tokio::test]
async fn every_store_can_keep_the_reason_of_a_refusal() {
    assert_eq!(outcome::kept("no \0 there"), "no \u{fffd} there");
    let long = outcome::kept(&"ü".repeat(20_000));
    assert!(long.ends_with("ü…") && long.len() <= 16 * 1024 + 3, "{}", long.len());
}
