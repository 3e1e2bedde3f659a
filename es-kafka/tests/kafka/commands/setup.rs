//! Two services: one has aggregates, and the other one a saga that sends them commands.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use es_core::{
    ActionContext, ActionError, Backoff, CommandOwner, Commands, ConsumerRunner, Correlation, Effect, FailurePolicy,
    Input, MemoryStore, Recorded, RecordedEvent, Repository, Retry, Saga, Service,
    backend::{
        CommandAnswer, CommandMessage, CommandTopic, EventFeed, EventSource, FailedEvent, Forwarded, Inspect,
        SourceError, Subscription,
    },
    error::BoxError,
    react::saga::Status,
    testing::account::{Account, AccountCommand, AccountEvent},
};
use es_kafka::{KafkaCommandTopic, KafkaCommands};
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::setup::{House, PATIENCE, brokers};

/// Pays what is put into `from-<name>` from there, and has the bank withdraw as much from `<name>`. If the bank refuses, it is given back.
pub(crate) struct Charging {
    own: Arc<dyn Commands<Account>>,
    bank: Arc<dyn Commands<Account>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Todo {
    Take { name: String, amount: u64 },
    Charge { name: String, amount: u64 },
    GiveBack { name: String, amount: u64 },
}

#[async_trait]
impl Saga for Charging {
    const NAME: &'static str = "charging";
    type Event = AccountEvent;
    type State = bool;
    type Action = Todo;
    type Answer = ();

    fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
        match (event.stream.id().strip_prefix("from-"), &event.data) {
            (Some(name), AccountEvent::Deposited { .. }) => Correlation::Starts(name.to_owned()),
            _ => Correlation::None,
        }
    }

    fn react(has_begun: &mut bool, input: Input<'_, Self>) -> Result<Vec<Effect<Todo>>, BoxError> {
        let perform = |todo| vec![Effect::Perform(todo)];
        Ok(match input {
            Input::Event(Recorded { data: AccountEvent::Deposited { amount }, stream, .. }) if !*has_begun => {
                *has_begun = true;
                let name = stream.id().trim_start_matches("from-").to_owned();
                perform(Todo::Take { name, amount: *amount })
            }
            Input::Event(_) | Input::Timer { .. } | Input::Asked(_) => vec![],
            Input::Answered { action: Todo::Take { name, amount }, .. } => {
                perform(Todo::Charge { name: name.clone(), amount: *amount })
            }
            Input::Answered { .. } => vec![Effect::End],
            Input::Refused { action: Todo::Charge { name, amount }, .. } => {
                vec![Effect::Compensate, Effect::Perform(Todo::GiveBack { name: name.clone(), amount: *amount })]
            }
            Input::Refused { reason, .. } => vec![Effect::Fail { cause: reason.to_owned() }],
        })
    }

    async fn perform(&self, action: &Todo, context: ActionContext) -> Result<(), ActionError> {
        let (commands, id, command) = match action {
            Todo::Take { name, amount } => (&self.own, format!("from-{name}"), AccountCommand::Withdraw(*amount)),
            Todo::GiveBack { name, amount } => (&self.own, format!("from-{name}"), AccountCommand::Deposit(*amount)),
            Todo::Charge { name, amount } => (&self.bank, name.clone(), AccountCommand::Withdraw(*amount)),
        };
        commands.send(&id, command, context.command()?).await?;
        Ok(())
    }

    fn retry(_: &Todo) -> Retry {
        let backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(100));
        Retry { attempts: 100, backoff, ..Retry::default() }
    }
}

/// The names of topics that no other test sees, and the store of the bank.
pub(crate) struct Bank {
    pub(crate) house: House,
}

impl Bank {
    pub(crate) fn new() -> Self {
        Self { house: House::new() }
    }

    pub(crate) fn topic(&self) -> KafkaCommandTopic {
        KafkaCommandTopic::new(brokers(), "bank").topic_prefix(&*self.house.prefix).partitions(1)
    }

    pub(crate) fn commands_topic(&self) -> String {
        format!("{}bank-commands", self.house.prefix)
    }

    pub(crate) fn replies_topic(&self) -> String {
        format!("{}orders-replies", self.house.prefix)
    }

    pub(crate) fn commands(&self) -> KafkaCommands {
        KafkaCommands::new(brokers(), "orders").topic_prefix(&*self.house.prefix)
    }

    /// A service that owns the accounts.
    pub(crate) async fn open(&self) -> Service {
        let builder = Service::builder("bank", self.house.store.clone()).aggregate::<Account>();
        let builder = builder.commands(self.topic(), |owner, shared| owner.aggregate(shared.repository::<Account>()));
        builder.start().await.unwrap()
    }

    /// A process of it that can be killed.
    pub(crate) fn process(&self, topic: impl CommandTopic) -> JoinHandle<()> {
        let (topic, store) = (Arc::new(topic), self.house.store.clone());
        let accounts = Repository::<Account>::new(store.clone());
        let owner = CommandOwner::new(topic.clone(), store.clone()).aggregate(accounts);
        let none = Backoff::new(Duration::ZERO, Duration::ZERO);
        let runner = ConsumerRunner::new(owner, topic, store).on_failure(FailurePolicy::retry(none, 0).then_forward());
        tokio::spawn(async move { runner.run(CancellationToken::new()).await.unwrap() })
    }

    pub(crate) fn accounts(&self) -> Repository<Account> {
        Repository::new(self.house.store.clone())
    }

    pub(crate) async fn balance(&self, account: &str) -> u64 {
        self.accounts().load(account).await.unwrap().state.balance
    }

    /// Waits until so many commands are handled.
    pub(crate) async fn reaches(&self, offset: u64) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let readers = self.house.store.list_readers().await.unwrap();
            let mut shards = readers.into_iter().filter(|of| of.reader.name == "commands").flat_map(|of| of.shards);
            if shards.any(|shard| shard.position.get() >= offset) {
                return;
            }
            assert!(Instant::now() < deadline, "the bank has not come to {offset}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A service with the saga.
pub(crate) struct Orders(pub(crate) Service);

impl Orders {
    /// `None`: the bank is in the same store.
    pub(crate) async fn open(bank: Option<&KafkaCommands>) -> Self {
        let bank = bank.map(|commands| Arc::new(commands.to::<Account>("bank")) as Arc<dyn Commands<Account>>);
        let builder = Service::builder("orders", MemoryStore::new()).aggregate::<Account>();
        let builder = builder.saga(|shared| {
            let own: Arc<dyn Commands<Account>> = Arc::new(shared.repository::<Account>());
            Charging { bank: bank.unwrap_or_else(|| own.clone()), own }
        });
        Self(builder.start().await.unwrap())
    }

    pub(crate) async fn order(&self, name: &str, amount: u64) {
        let accounts = self.0.repository::<Account>();
        accounts.execute(format!("from-{name}"), AccountCommand::Deposit(amount)).await.unwrap();
    }

    pub(crate) async fn ended(&self, name: &str) -> Status {
        self.0.sagas::<Charging>().ended(name, PATIENCE).await.unwrap().status
    }

    pub(crate) async fn balance(&self, account: &str) -> u64 {
        self.0.repository::<Account>().load(account).await.unwrap().state.balance
    }
}

/// A topic of which the first answers that something was done get lost: the process hangs there, or goes on.
#[derive(Debug)]
pub(crate) struct Losing {
    pub(crate) topic: KafkaCommandTopic,
    pub(crate) losses: AtomicU32,
    pub(crate) hangs: bool,
    pub(crate) has_lost: Arc<Notify>,
}

#[async_trait]
impl EventSource for Losing {
    async fn open(&self, subscription: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        self.topic.open(subscription).await
    }

    async fn forward(&self, failed: FailedEvent<'_>) -> Result<Forwarded, SourceError> {
        self.topic.forward(failed).await
    }
}

#[async_trait]
impl CommandTopic for Losing {
    fn command(&self, message: &RecordedEvent) -> Result<CommandMessage, String> {
        self.topic.command(message)
    }

    async fn answer(&self, message: &RecordedEvent, answer: &CommandAnswer) -> Result<(), SourceError> {
        let is_done = matches!(answer, CommandAnswer::Done(_));
        let next = |losses: u32| losses.checked_sub(1).filter(|_| is_done);
        if self.losses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next).is_err() {
            return self.topic.answer(message, answer).await;
        }
        self.has_lost.notify_one();
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}
