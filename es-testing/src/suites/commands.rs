//! Commands of other services, on every store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use es_core::{
    Aggregate, CommandContext, CommandOwner, Commands, Consumer, Event, EventData, IdempotencyKey, Metadata, Position,
    RecordedEvent, Repository, SendError, ServiceStore, StreamId, Version,
    backend::{
        CommandAnswer, CommandKey, CommandMessage, CommandTopic, EventFeed, EventSource, Fingerprint, SourceError,
        Subscription,
    },
    testing::account::{Account, AccountCommand},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Commands as messages, and what was answered to them, in order.
#[derive(Debug, Clone, Default)]
struct Letterbox(Arc<Mutex<Vec<CommandAnswer>>>);

impl Letterbox {
    fn last(&self) -> CommandAnswer {
        self.0.lock().expect("no panic").last().cloned().expect("it was answered")
    }
}

#[async_trait]
impl EventSource for Letterbox {
    async fn open(&self, _: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        Err(SourceError::CannotForward)
    }
}

#[async_trait]
impl CommandTopic for Letterbox {
    fn command(&self, message: &RecordedEvent) -> Result<CommandMessage, String> {
        let extra = |name: &str| message.metadata.extra.get(name).cloned();
        let key = IdempotencyKey::new(extra("key").ok_or("it has no key")?).map_err(|error| error.to_string())?;
        Ok(CommandMessage {
            stream: message.stream.clone(),
            key: CommandKey::new(key, Fingerprint::of(b"")),
            if_version: extra("version").and_then(|version| version.parse().ok()).map(Version::new),
            deadline: extra("deadline").and_then(|deadline| deadline.parse().ok()),
            metadata: Metadata { correlation_id: message.metadata.correlation_id, ..Metadata::default() },
            payload: message.data.payload.clone(),
        })
    }

    async fn answer(&self, _: &RecordedEvent, answer: &CommandAnswer) -> Result<(), SourceError> {
        self.0.lock().expect("no panic").push(answer.clone());
        Ok(())
    }
}

/// A message with a command, as it is sent once.
fn message(stream: &str, command: &impl Serialize, extra: &[(&str, &str)]) -> RecordedEvent {
    let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let payload = serde_json::to_vec(command).expect("a command").into();
    RecordedEvent {
        position: Position::new(1),
        stream: stream.parse().expect("a stream"),
        version: Version::new(1),
        id: Uuid::now_v7(),
        recorded_at: Utc::now(),
        metadata: Metadata { correlation_id: Some(Uuid::from_u128(7)), extra: extra.collect(), ..Metadata::default() },
        data: EventData { name: "command".into(), schema_version: 1, payload },
    }
}

/// A lamp: what is there to do depends on whether it is lit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Lamp {
    lit: bool,
}

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "lamp")]
enum LampEvent {
    #[event(name = "lamp.switched")]
    Switched { lit: bool },
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never;

impl Aggregate for Lamp {
    type Command = bool;
    type Event = LampEvent;
    type Error = Never;

    fn handle(&self, lit: &bool) -> Result<Vec<LampEvent>, Never> {
        Ok(if self.lit == *lit { vec![] } else { vec![LampEvent::Switched { lit: *lit }] })
    }

    fn apply(&mut self, LampEvent::Switched { lit }: &LampEvent) {
        self.lit = *lit;
    }
}

struct Owner<S> {
    store: S,
    topic: Letterbox,
}

impl<S: ServiceStore + Clone> Owner<S> {
    fn new(store: &S) -> Self {
        Self { store: store.clone(), topic: Letterbox::default() }
    }

    fn accounts(&self) -> Repository<Account> {
        Repository::new(self.store.clone())
    }

    /// A process that has just started, so that it knows of nothing but what is stored.
    fn process(&self) -> CommandOwner {
        let lamps = Repository::<Lamp>::new(self.store.clone());
        CommandOwner::new(self.topic.clone(), self.store.clone()).aggregate(self.accounts()).aggregate(lamps)
    }

    /// What a process answers to `message`.
    async fn answers(&self, message: &RecordedEvent) -> CommandAnswer {
        self.process().handle(message).await.expect("it is handled");
        self.topic.last()
    }

    async fn balance(&self, account: &str) -> u64 {
        self.accounts().load(account).await.expect("loaded").state.balance
    }
}

/// Whatever has happened since.
pub async fn r6_a_command_that_is_delivered_again_is_executed_once_and_answered_the_same(
    store: &(impl ServiceStore + Clone),
) {
    let owner = Owner::new(store);
    let deposit = message("account-ada", &AccountCommand::Deposit(7), &[("key", "1")]);
    let CommandAnswer::Done(first) = owner.answers(&deposit).await else { panic!("it is done") };
    owner.accounts().execute("ada", AccountCommand::Withdraw(3)).await.expect("withdrawn");
    // Sent again, it is another message.
    let sent_again = RecordedEvent { id: Uuid::now_v7(), ..deposit.clone() };
    for message in [&deposit, &sent_again] {
        let CommandAnswer::Done(again) = owner.answers(message).await else { panic!("it is done") };
        assert_eq!((again.version, again.position, again.repeated), (first.version, first.position, true));
    }
    assert_eq!(owner.balance("ada").await, 4);
    let stream = StreamId::new("account", "ada").expect("valid");
    let events = store.read_stream(&stream, Version::ZERO, 10).await.expect("read");
    assert_eq!(events[0].metadata.correlation_id, Some(Uuid::from_u128(7)), "the metadata come with it");
}

/// Seen to fail where a refusal is only answered: the sender was told that the money stays, and it went.
pub async fn r6_a_refusal_that_was_answered_stays_a_refusal(store: &(impl ServiceStore + Clone)) {
    let owner = Owner::new(store);
    let withdraw = message("account-ada", &AccountCommand::Withdraw(5), &[("key", "1")]);
    let refused = CommandAnswer::Rejected { reason: "the balance is 0".into() };
    assert_eq!(owner.answers(&withdraw).await, refused);
    owner.accounts().execute("ada", AccountCommand::Deposit(7)).await.expect("deposited");
    assert_eq!(owner.answers(&withdraw).await, refused);
    // So does a process that comes upon another refusal.
    owner.accounts().execute("ada", AccountCommand::Withdraw(7)).await.expect("withdrawn");
    owner.accounts().execute("ada", AccountCommand::Deposit(1)).await.expect("deposited");
    assert_eq!(owner.answers(&withdraw).await, refused);
    assert_eq!(owner.balance("ada").await, 1);
    // Another command is decided on what is there, and the same key names another command of another aggregate.
    owner.accounts().execute("bob", AccountCommand::Deposit(7)).await.expect("deposited");
    let others = [
        message("account-ada", &AccountCommand::Withdraw(1), &[("key", "2")]),
        message("account-bob", &AccountCommand::Withdraw(5), &[("key", "1")]),
    ];
    for other in &others {
        assert!(matches!(owner.answers(other).await, CommandAnswer::Done(_)));
    }
    assert_eq!((owner.balance("ada").await, owner.balance("bob").await), (0, 2));
}

/// Seen to fail where that is only answered: a command that was done long ago switched the lamp off again.
pub async fn r6_a_command_that_had_nothing_to_do_does_nothing_later(store: &(impl ServiceStore + Clone)) {
    let owner = Owner::new(store);
    let off = message("lamp-1", &false, &[("key", "off")]);
    let CommandAnswer::Done(first) = owner.answers(&off).await else { panic!("it is done") };
    assert_eq!((first.version, first.position), (Version::ZERO, None));
    let on = message("lamp-1", &true, &[("key", "on")]);
    assert!(matches!(owner.answers(&on).await, CommandAnswer::Done(_)));
    let CommandAnswer::Done(again) = owner.answers(&off).await else { panic!("it is done") };
    assert_eq!((again.version, again.position, again.repeated), (Version::ZERO, None, true));
    let lamps = Repository::<Lamp>::new(store.clone());
    assert!(lamps.load("1").await.expect("loaded").state.lit);
}

/// By the clock of the store. What an earlier sending has brought about is told also then.
pub async fn r20_a_command_whose_deadline_has_passed_is_not_executed(store: &(impl ServiceStore + Clone)) {
    let owner = Owner::new(store);
    let now = store.now().await.expect("it has a clock");
    let sent = |key: &str, deadline: DateTime<Utc>| {
        message("account-ada", &AccountCommand::Deposit(7), &[("key", key), ("deadline", &deadline.to_rfc3339())])
    };
    let (past, future) = (now - TimeDelta::milliseconds(1), now + TimeDelta::hours(1));
    assert_eq!(owner.answers(&sent("1", past)).await, CommandAnswer::Expired);
    assert_eq!(owner.balance("ada").await, 0);
    let CommandAnswer::Done(first) = owner.answers(&sent("1", future)).await else { panic!("it is done") };
    let CommandAnswer::Done(late) = owner.answers(&sent("1", past)).await else { panic!("it was done in time") };
    assert_eq!((late.version, late.position, late.repeated), (first.version, first.position, true));
    assert_eq!(owner.balance("ada").await, 7);
    let withdraw = |deadline: DateTime<Utc>| {
        let fields = [("key", "2"), ("deadline", &*deadline.to_rfc3339())];
        message("account-bob", &AccountCommand::Withdraw(1), &fields)
    };
    let refused = CommandAnswer::Rejected { reason: "the balance is 0".into() };
    for deadline in [future, past] {
        assert_eq!(owner.answers(&withdraw(deadline)).await, refused);
    }
}

/// They are failures for the failure policy, and say nothing of the content.
pub async fn r11_r14_what_is_no_command_of_this_service_is_a_permanent_failure(store: &(impl ServiceStore + Clone)) {
    let owner = Owner::new(store);
    let wrong = BTreeMap::from([
        ("it has no key", message("account-ada", &AccountCommand::Deposit(7), &[])),
        ("category \"order\"", message("order-1", &"hunter2", &[("key", "1")])),
        ("cannot be decoded", message("account-ada", &"hunter2", &[("key", "1")])),
    ]);
    for (reason, message) in wrong {
        let error = owner.process().handle(&message).await.expect_err("it cannot be executed");
        let text = es_core::error::with_causes(&error);
        assert!(!error.is_transient() && text.contains(reason) && !text.contains("hunter2"), "{text}");
    }
    assert!(owner.topic.0.lock().expect("no panic").is_empty());
    // That the aggregate has changed since it was read is an answer.
    let stale = message("account-ada", &AccountCommand::Deposit(7), &[("key", "1"), ("version", "9")]);
    assert!(matches!(owner.answers(&stale).await, CommandAnswer::Failed { .. }));
}

/// The same saga code works where the aggregates are in its own store.
pub async fn commands_to_aggregates_of_the_same_store_are_executed_there(store: &(impl ServiceStore + Clone)) {
    let accounts: Arc<dyn Commands<Account>> = Arc::new(Repository::<Account>::new(store.clone()));
    let context = || {
        let key = IdempotencyKey::new("1").expect("a key");
        CommandContext::default().idempotent(key, b"")
    };
    let first = accounts.send("ada", AccountCommand::Deposit(7), context()).await.expect("done");
    let again = accounts.send("ada", AccountCommand::Deposit(7), context()).await.expect("done");
    assert_eq!((first.position, again.position, again.repeated), (first.position, first.position, true));
    let refused = accounts.send("ada", AccountCommand::Withdraw(8), CommandContext::default()).await;
    assert!(matches!(refused, Err(SendError::Rejected(reason)) if reason == "the balance is 7"));
    let invalid = accounts.send("", AccountCommand::Withdraw(8), CommandContext::default()).await;
    assert!(matches!(invalid, Err(SendError::Permanent(_))));
}
