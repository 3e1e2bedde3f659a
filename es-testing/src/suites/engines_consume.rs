//! Consumers, on every store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use es_core::{
    Act, Consumer, ConsumerRunner, EventData, FailurePolicy, PolicyError, Position, Recorded, RecordedEvent,
    Repository,
    backend::{
        Batch, Checkpoint, Delivery, EventFeed, EventSource, Shard, SourceError, Subscription, Takeover, UNREADABLE,
    },
    react::policy::reaction,
    testing::{
        account::{Account, AccountCommand, AccountEvent},
        recorded,
    },
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::engines_project::{PATIENCE, Store};

/// A topic of two partitions, in memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Topic {
    partitions: Arc<Mutex<[Vec<RecordedEvent>; 2]>>,
    /// What records that could not be read are today, by the id of their place.
    readable: Arc<Mutex<HashMap<Uuid, RecordedEvent>>>,
}

impl Topic {
    /// A message with this id, from another system: its position is that of its partition.
    pub(super) fn send(&self, partition: usize, id: u128, account: &'static str, amount: u64) {
        let event = recorded([(account, AccountEvent::Deposited { amount })]).remove(0);
        self.put(partition, RecordedEvent { id: Uuid::from_u128(id), ..event });
    }

    /// The next record of the partition.
    pub(super) fn put(&self, partition: usize, mut event: RecordedEvent) {
        let partition = &mut self.partitions.lock().expect("no panic")[partition];
        event.position = Position::new(partition.len() as u64 + 1);
        partition.push(event);
    }

    /// A record of this stream that cannot be read: the id is that of its place.
    pub(super) fn send_unreadable(&self, partition: usize, place: u128, account: &'static str) {
        let mut event = recorded([(account, AccountEvent::Deposited { amount: 0 })]).remove(0);
        event.id = Uuid::from_u128(place);
        event.data = EventData { name: UNREADABLE.into(), payload: r#"{"reason":"no JSON"}"#.into(), ..event.data };
        self.put(partition, event);
    }

    /// From now on the record at this place can be read, as this message.
    pub(super) fn can_read(&self, place: u128, id: u128, account: &'static str, amount: u64) {
        let event = recorded([(account, AccountEvent::Deposited { amount })]).remove(0);
        let read = RecordedEvent { id: Uuid::from_u128(id), ..event };
        self.readable.lock().expect("no panic").insert(Uuid::from_u128(place), read);
    }

    fn shards() -> Vec<Shard> {
        (0..2).map(|partition| Shard::partition("topic", partition)).collect()
    }
}

#[async_trait]
impl EventSource for Topic {
    async fn open(&self, _: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        Ok(Box::new(Feed { topic: self.clone(), is_assigned: false, next: [None; 2] }))
    }

    fn read_again(&self, event: &RecordedEvent) -> Result<RecordedEvent, String> {
        let read = self.readable.lock().expect("no panic").get(&event.id).cloned();
        read.map(|read| RecordedEvent { position: event.position, ..read }).ok_or_else(|| "no JSON".to_owned())
    }
}

#[derive(Debug)]
struct Feed {
    topic: Topic,
    is_assigned: bool,
    next: [Option<usize>; 2],
}

#[async_trait]
impl EventFeed for Feed {
    fn shards(&self) -> Vec<Shard> {
        Topic::shards()
    }

    fn takeover(&self) -> Takeover {
        Takeover::Always
    }

    async fn next(&mut self) -> Result<Delivery, SourceError> {
        if !std::mem::replace(&mut self.is_assigned, true) {
            return Ok(Delivery::Assigned(Topic::shards()));
        }
        for (shard, next) in Topic::shards().into_iter().zip(&mut self.next) {
            let partition = shard.partition.expect("it has one") as usize;
            let all = self.topic.partitions.lock().expect("no panic")[partition].clone();
            let Some(from) = next.filter(|from| *from < all.len()) else { continue };
            *next = Some(all.len());
            let position = Position::new(all.len() as u64);
            let checkpoint = Checkpoint { position, witness: None, cursor: Some(position.to_string()) };
            return Ok(Delivery::Batch(Batch { shard, events: all[from..].to_vec().into(), checkpoint, end: None }));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        Ok(Delivery::Idle)
    }

    async fn start(&mut self, shard: &Shard, checkpoint: &Checkpoint) -> Result<(), SourceError> {
        let partition = shard.partition.expect("it has one") as usize;
        self.next[partition] = usize::try_from(checkpoint.position.get()).ok();
        Ok(())
    }
}

/// Deposits amounts, without keys: what it handles twice is deposited twice.
#[derive(Debug)]
struct Deposits {
    accounts: Repository<Account>,
    has_key: bool,
    /// After it has deposited so much it never returns, and tells.
    hangs: Option<(u64, Arc<Notify>)>,
}

#[async_trait]
impl Consumer for Deposits {
    const NAME: &'static str = "deposits";
    type Message = AccountEvent;

    async fn handle(&self, message: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        let AccountEvent::Deposited { amount } = message.data else { return Ok(()) };
        let (id, command) = (message.stream.id(), AccountCommand::Deposit(amount));
        if self.has_key {
            let context = reaction(message, Self::NAME, "deposit")?;
            self.accounts.execute_with(id, command, context).await?;
        } else {
            self.accounts.execute(id, command).await?;
        }
        if let Some((_, reached)) = self.hangs.as_ref().filter(|(hangs, _)| *hangs == amount) {
            reached.notify_one();
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}

fn deposits(store: &impl Store) -> Deposits {
    Deposits { accounts: Repository::new(store.clone()), has_key: false, hangs: None }
}

fn runner(store: &impl Store, topic: &Topic, deposits: Deposits) -> ConsumerRunner<Deposits> {
    ConsumerRunner::new(deposits, topic.clone(), store.clone())
}

async fn balance(store: &impl Store, account: &str) -> u64 {
    Repository::<Account>::new(store.clone()).load(account).await.expect("loaded").state.balance
}

/// Runs until each partition is handled up to there.
async fn run_to(store: &impl Store, runner: ConsumerRunner<Deposits>, reached: u64) {
    run_until(runner, async || store.reached(Deposits::NAME).await.expect("asked") >= Position::new(reached)).await;
}

/// In one batch, in another one and in another shard; what is older than the retention is a new message.
pub async fn r9_a_message_that_its_producer_repeats_is_handled_once(store: &impl Store) {
    let topic = Topic::default();
    // Twice in one batch, and in the other partition.
    for id in [1, 2, 1] {
        topic.send(0, id, "a", 10);
    }
    topic.send(1, 3, "b", 1);
    run_to(store, runner(store, &topic, deposits(store)), 1).await;
    topic.send(1, 1, "a", 10);
    topic.send(1, 4, "b", 2);
    run_to(store, runner(store, &topic, deposits(store)), 3).await;
    assert_eq!([balance(store, "a").await, balance(store, "b").await], [20, 3]);
    // A commit forgets what is older than its retention; then it is a new message.
    topic.send(0, 2, "a", 10);
    topic.send(1, 5, "b", 4);
    let forgetful = || runner(store, &topic, deposits(store)).inbox(Duration::from_nanos(1));
    run_to(store, forgetful(), 4).await;
    topic.send(0, 2, "a", 10);
    topic.send(1, 6, "b", 8);
    run_to(store, forgetful(), 5).await;
    assert_eq!([balance(store, "a").await, balance(store, "b").await], [30, 15]);
}

/// The crash is between what it has done and the checkpoint.
pub async fn r9_a_consumer_that_is_killed_repeats_nothing_in_effect(store: &impl Store) {
    let topic = Topic::default();
    for (id, amount) in [(1, 10), (2, 20), (3, 30)] {
        topic.send(0, id, "a", amount);
    }
    topic.send(1, 4, "b", 1);
    let reached = Arc::new(Notify::new());
    let hanging = Deposits { has_key: true, hangs: Some((20, reached.clone())), ..deposits(store) };
    let hanging = runner(store, &topic, hanging);
    let killed = tokio::spawn(async move { hanging.run(CancellationToken::new()).await });
    tokio::time::timeout(PATIENCE, reached.notified()).await.expect("it comes there");
    killed.abort();
    run_to(store, runner(store, &topic, Deposits { has_key: true, ..deposits(store) }), 1).await;
    let rest = async {
        while balance(store, "a").await < 60 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let shutdown = CancellationToken::new();
    let runner = runner(store, &topic, Deposits { has_key: true, ..deposits(store) });
    let both = async {
        tokio::join!(runner.run(shutdown.clone()), async {
            rest.await;
            shutdown.cancel();
        })
    };
    tokio::time::timeout(PATIENCE, both).await.expect("it is late").0.expect("in good order");
    assert_eq!([balance(store, "a").await, balance(store, "b").await], [60, 1]);
}

/// The id of a record that cannot be read is that of its place; when it can, its producer's id counts, also for repetitions. Seen to
/// fail where the inbox looks up the id of the place.
pub async fn r9_a_message_that_could_not_be_read_is_handled_once_when_it_can(store: &impl Store) {
    let topic = Topic::default();
    topic.send_unreadable(0, 101, "a");
    topic.send_unreadable(0, 102, "a");
    topic.send(1, 9, "b", 1);
    let parks = || runner(store, &topic, deposits(store)).on_failure(FailurePolicy::park());
    run_to(store, parks(), 1).await;
    run_until(parks(), async || store.parked_keys(Deposits::NAME).await.expect("read").len() == 1).await;
    for place in [101, 102] {
        topic.can_read(place, 1, "a", 10);
    }
    let act = Act::new("ada", "it is declared now").expect("valid");
    store.request_retry(Deposits::NAME, "topic/0/account-a", &act).await.expect("parked");
    run_until(parks(), async || store.parked_keys(Deposits::NAME).await.expect("read").is_empty()).await;
    topic.send(1, 1, "a", 10);
    run_until(parks(), async || store.reached(Deposits::NAME).await.expect("asked") == Position::new(2)).await;
    assert_eq!([balance(store, "a").await, balance(store, "b").await], [10, 1]);
}

async fn run_until(runner: ConsumerRunner<Deposits>, holds: impl AsyncFn() -> bool) {
    let shutdown = CancellationToken::new();
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shutdown.cancel();
    };
    let both = async { tokio::join!(runner.run(shutdown.clone()), wait) };
    tokio::time::timeout(PATIENCE, both).await.expect("it is late").0.expect("in good order");
}
