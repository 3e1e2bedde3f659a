//! Commands to aggregates of another service.

#[path = "commands/setup.rs"]
mod setup;

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use chrono::{DateTime, Utc};
use es_core::{
    Aggregate, CommandContext, Commands, Event, IdempotencyKey, Metadata, Position, Receipt, SendError, Version,
    react::saga::Status,
    testing::account::{Account, AccountCommand, AccountEvent, Overdrawn},
};
use es_kafka::KafkaCommandError;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use self::setup::{Bank, Losing, Orders};
use crate::{
    foreign::{picky::records, setup::Foreign},
    setup::PATIENCE,
};

fn keyed(key: &str) -> CommandContext {
    CommandContext::default().idempotent(IdempotencyKey::new(key).unwrap(), b"")
}

/// Why no command was executed, as far as its sender knows.
fn reason(sent: Result<Receipt, SendError>) -> (bool, KafkaCommandError) {
    match sent {
        Err(SendError::Transient(cause)) => (true, cause.downcast_ref::<KafkaCommandError>().unwrap().clone()),
        Err(SendError::Permanent(cause)) => (false, cause.downcast_ref::<KafkaCommandError>().unwrap().clone()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_a_saga_has_an_aggregate_of_another_service_do_its_part() {
    let bank = Bank::new();
    bank.accounts().execute("ada", AccountCommand::Deposit(10)).await.unwrap();
    let service = bank.open().await;
    let orders = Orders::open(Some(&bank.commands())).await;
    orders.order("ada", 7).await;
    orders.order("bob", 7).await;
    assert_eq!(orders.ended("ada").await, Status::Completed);
    assert_eq!((orders.balance("from-ada").await, bank.balance("ada").await), (0, 3));
    assert_eq!(orders.ended("bob").await, Status::Compensated);
    assert_eq!((orders.balance("from-bob").await, bank.balance("bob").await), (7, 0));
    orders.0.shutdown(PATIENCE).await.unwrap();
    service.shutdown(PATIENCE).await.unwrap();
}

/// With the very code of the saga.
#[tokio::test(flavor = "multi_thread")]
async fn r20_the_same_saga_works_where_both_aggregates_are_in_one_store() {
    let orders = Orders::open(None).await;
    let accounts = orders.0.repository::<Account>();
    accounts.execute("ada", AccountCommand::Deposit(10)).await.unwrap();
    orders.order("ada", 7).await;
    orders.order("bob", 7).await;
    assert_eq!((orders.ended("ada").await, orders.ended("bob").await), (Status::Completed, Status::Compensated));
    assert_eq!((orders.balance("ada").await, orders.balance("from-bob").await), (3, 7));
}

/// The process of the owner ends between what it has done and the answer.
///
/// Seen to fail where the owner gives each delivery a key of its own: it withdrew 7 twice.
#[tokio::test(flavor = "multi_thread")]
async fn r20_a_command_is_executed_once_where_its_owner_is_killed_before_it_answers() {
    let bank = Bank::new();
    bank.accounts().execute("ada", AccountCommand::Deposit(20)).await.unwrap();
    let has_lost = Arc::new(Notify::new());
    let (topic, losses) = (bank.topic(), AtomicU32::new(1));
    let killed = bank.process(Losing { topic, losses, hangs: true, has_lost: has_lost.clone() });
    let orders = Orders::open(Some(&bank.commands())).await;
    orders.order("ada", 7).await;
    tokio::time::timeout(PATIENCE, has_lost.notified()).await.expect("it is executed");
    assert_eq!(bank.balance("ada").await, 13);
    killed.abort();
    let service = bank.open().await;
    assert_eq!(orders.ended("ada").await, Status::Completed);
    assert_eq!((orders.balance("from-ada").await, bank.balance("ada").await), (0, 13));
    service.shutdown(PATIENCE).await.unwrap();
}

/// Its message is in the inbox by then. Seen to fail where the id of the command is that of the message: it waited for ever.
#[tokio::test(flavor = "multi_thread")]
async fn r6_a_command_whose_answer_was_lost_is_answered_when_it_is_sent_again() {
    let bank = Bank::new();
    let (topic, losses) = (bank.topic(), AtomicU32::new(1));
    let owner = bank.process(Losing { topic, losses, hangs: false, has_lost: Arc::default() });
    let accounts = bank.commands().time_limit(Duration::from_secs(1)).to::<Account>("bank");
    let mut attempts = 0;
    let receipt = loop {
        match accounts.send("ada", AccountCommand::Deposit(7), keyed("1")).await {
            Ok(receipt) => break receipt,
            // Its first attempts may come before the topic is there.
            Err(error) => assert!(error.is_transient() && attempts < 20, "{error:?}"),
        }
        attempts += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(attempts > 0 && receipt.repeated, "{receipt:?}");
    assert_eq!((bank.balance("ada").await, receipt.version), (7, Version::new(1)));
    owner.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_a_command_that_its_owner_comes_to_after_the_deadline_is_not_executed() {
    let bank = Bank::new();
    // The topic is there, and no process of the bank.
    bank.house.create_topic(&bank.commands_topic(), 1).await;
    let accounts = bank.commands().time_limit(Duration::from_secs(1)).to::<Account>("bank");
    let (is_transient, no_answer) = reason(accounts.send("ada", AccountCommand::Deposit(7), keyed("1")).await);
    assert!(is_transient && matches!(no_answer, KafkaCommandError::NoAnswer { .. }));
    let sent = records(bank.commands_topic(), 1).await.remove(0);
    assert!(sent.header("ce_deadline").parse::<DateTime<Utc>>().unwrap() < Utc::now());
    let service = bank.open().await;
    bank.reaches(1).await;
    let answer = records(bank.replies_topic(), 1).await.remove(0);
    assert_eq!((answer.header("ce_type"), answer.header("ce_causationid")), ("command.expired", sent.header("ce_id")));
    assert_eq!(bank.balance("ada").await, 0);
    // The same command with another deadline.
    let accounts = bank.commands().to::<Account>("bank");
    let receipt = accounts.send("ada", AccountCommand::Deposit(7), keyed("1")).await.unwrap();
    assert_eq!((receipt.repeated, bank.balance("ada").await), (false, 7));
    service.shutdown(PATIENCE).await.unwrap();
}

/// Accounts as a program knows them that is newer than the bank's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Newer(u64);

impl Aggregate for Newer {
    type Command = String;
    type Event = AccountEvent;
    type Error = Overdrawn;

    fn handle(&self, _: &String) -> Result<Vec<AccountEvent>, Overdrawn> {
        Ok(vec![])
    }

    fn apply(&mut self, _: &AccountEvent) {}
}

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "safe")]
enum SafeEvent {
    #[event(name = "safe.opened")]
    Opened,
}

/// Not owned by the bank.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Safe;

impl Aggregate for Safe {
    type Command = ();
    type Event = SafeEvent;
    type Error = Overdrawn;

    fn handle(&self, (): &()) -> Result<Vec<SafeEvent>, Overdrawn> {
        Ok(vec![SafeEvent::Opened])
    }

    fn apply(&mut self, _: &SafeEvent) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_what_cannot_be_executed_is_in_the_dead_letters_and_its_sender_knows() {
    let (bank, foreign) = (Bank::new(), Foreign::new(1).await);
    bank.house.create_topic(&bank.commands_topic(), 1).await;
    let service = bank.open().await;
    let commands = bank.commands();
    let newer = commands.to::<Newer>("bank").send("ada", "hunter2".to_owned(), keyed("1")).await;
    let (is_transient, undecodable) = reason(newer);
    let KafkaCommandError::Failed { reason: text } = undecodable else { panic!("{undecodable}") };
    assert!(!is_transient && text.contains("cannot be decoded") && !text.contains("hunter2"), "{text}");
    let (_, not_owned) = reason(commands.to::<Safe>("bank").send("1", (), keyed("2")).await);
    assert!(matches!(&not_owned, KafkaCommandError::Failed { reason } if reason.contains("\"safe\"")), "{not_owned}");
    // Not even JSON, of a program that is not written with Evenfold.
    let replies = bank.replies_topic();
    let fields = [
        ("ce_specversion", "1.0"),
        ("ce_id", "17"),
        ("ce_source", "/legacy"),
        ("ce_type", "deposit"),
        ("ce_subject", "account-ada"),
        ("ce_replyto", &*replies),
    ];
    foreign.send_to(&bank.commands_topic(), 0, Some("account-ada"), &fields, Some("hunter2"));
    let kept = records(format!("{}.dlq", bank.commands_topic()), 3).await;
    let told: Vec<_> = kept.iter().map(|kept| (kept.header("handler"), kept.header("error-class"))).collect();
    assert_eq!(told, [("commands", "refused"), ("commands", "refused"), ("commands", "unreadable")]);
    let answer = records(replies, 3).await.remove(2);
    assert_eq!((answer.header("ce_type"), answer.header("ce_causationid")), ("command.failed", "17"));
    assert!(!answer.value.unwrap().contains("hunter2"));
    // Others go on.
    let accounts = commands.to::<Account>("bank");
    accounts.send("ada", AccountCommand::Deposit(7), keyed("3")).await.unwrap();
    assert_eq!(bank.balance("ada").await, 7);
    service.shutdown(PATIENCE).await.unwrap();
}

/// Little is asked of other programs, and answers go to no topic that is not for them.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_another_program_needs_only_name_its_aggregate() {
    let (bank, foreign) = (Bank::new(), Foreign::new(1).await);
    bank.house.create_topic(&bank.commands_topic(), 1).await;
    let service = bank.open().await;
    let gone = format!("{}gone-replies", bank.house.prefix);
    for (id, reply_to) in [("1", None), ("1", None), ("2", Some(foreign.topic.as_str())), ("3", Some(gone.as_str()))] {
        let fields = [
            ("ce_specversion", "1.0"),
            ("ce_id", id),
            ("ce_source", "/legacy"),
            ("ce_type", "deposit"),
            ("ce_subject", "account-ada"),
        ];
        let fields: Vec<_> = fields.into_iter().chain(reply_to.map(|topic| ("ce_replyto", topic))).collect();
        foreign.send_to(&bank.commands_topic(), 0, Some("account-ada"), &fields, Some(r#"{"Deposit":7}"#));
    }
    bank.reaches(4).await;
    assert_eq!(bank.balance("ada").await, 21, "the second one is the first one");
    foreign.pay(0, "a", 1, 1);
    let first = records(foreign.topic.clone(), 1).await.remove(0);
    assert_eq!(first.key.as_deref(), Some("a"), "no answer is before it");
    service.shutdown(PATIENCE).await.unwrap();
}

/// Correlation, cause, trace, actor, and what else there is: as in the owner's own process.
#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_of_a_command_are_those_of_its_events() {
    let bank = Bank::new();
    bank.house.create_topic(&bank.commands_topic(), 1).await;
    let service = bank.open().await;
    let metadata = Metadata {
        correlation_id: Some(Uuid::from_u128(1)),
        causation_id: Some(Uuid::from_u128(2)),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        tracestate: Some("a=b".into()),
        actor: Some("Ä. Müller".into()),
        extra: [("tenant".to_owned(), "blue".to_owned())].into(),
    };
    let accounts = bank.commands().to::<Account>("bank");
    let sent = accounts.send("ada", AccountCommand::Deposit(7), metadata.clone().into()).await.unwrap();
    assert_eq!((sent.version, sent.position.map(Position::get)), (Version::new(1), Some(1)));
    let stream = bank.accounts().stream("ada").unwrap();
    let store: &dyn es_core::EventStore = &bank.house.store;
    let event = store.read_stream(&stream, Version::ZERO, 1).await.unwrap().remove(0);
    assert_eq!(event.metadata, metadata);
    // The version that the client has seen holds there too.
    let stale = CommandContext { if_version: Some(Version::new(9)), ..CommandContext::default() };
    let (_, stale) = reason(accounts.send("ada", AccountCommand::Deposit(7), stale).await);
    assert!(matches!(stale, KafkaCommandError::Failed { .. }));
    service.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_to_a_service_that_has_never_run_fails_for_now() {
    let bank = Bank::new();
    let (is_transient, error) =
        reason(bank.commands().to::<Account>("bank").send("ada", AccountCommand::Deposit(7), keyed("1")).await);
    assert_eq!((is_transient, error), (true, KafkaCommandError::NoTopic { topic: bank.commands_topic() }));
}
