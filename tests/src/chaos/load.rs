//! The steady load of a run, of which is known what was acknowledged.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use es_core::{
    CommandContext, IdempotencyKey, Position, Repository, Service, Version,
    error::with_causes,
    testing::account::{Account, AccountCommand},
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::KafkaError,
    producer::{FutureProducer, FutureRecord},
};
use tokio::{task::JoinSet, time::interval};
use tokio_util::sync::CancellationToken;

use super::{domain::CLIENT, ground::Ground};

/// How many clients append, and on how many accounts at a time. After a while they turn to others: what was done wrong in between stays.
const CLIENTS: u32 = 2;
const ACCOUNTS: u64 = 8;
const WHILE: Duration = Duration::from_secs(3);

/// How many partitions the topic of the other system has, and how many keys its messages.
const PARTITIONS: i32 = 3;
const KEYS: u64 = 16;

/// How often the other system sends a message.
const MESSAGES: Duration = Duration::from_millis(100);

const PATIENCE: Duration = Duration::from_mins(2);

/// An append of which a client knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acknowledged {
    pub(crate) account: String,
    pub(crate) version: Version,
    pub(crate) position: Position,
}

/// What clients and the other system know in the end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    pub(crate) appended: Vec<Acknowledged>,
    /// Messages that were sent, and of these the ones that brokers have confirmed.
    pub(crate) sent: BTreeSet<u64>,
    pub(crate) confirmed: BTreeSet<u64>,
    /// The same of messages that no consumer can read.
    pub(crate) garbage_sent: BTreeSet<u64>,
    pub(crate) garbage_confirmed: BTreeSet<u64>,
    /// What went wrong on the side of the clients.
    pub(crate) failed: Vec<String>,
}

/// Clients and another system at work.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    known: Arc<Mutex<Known>>,
    stop: CancellationToken,
    /// How often a client appends.
    every: Duration,
    outside: Outside,
    tasks: Arc<tokio::sync::Mutex<JoinSet<()>>>,
}

impl Load {
    /// Begins with `events` appends a second.
    pub(crate) async fn begin(service: &Service, ground: &Ground, events: u32) -> Self {
        let known = Arc::new(Mutex::new(Known::default()));
        let outside = Outside::open(ground, known.clone()).await;
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        let every = Duration::from_secs(1) * CLIENTS / events.max(1);
        for client in 0..CLIENTS {
            let (accounts, known, stop) = (service.repository::<Account>(), known.clone(), stop.clone());
            tasks.spawn(async move { append(&accounts, client, every, &known, &stop).await });
        }
        let (sending, ends) = (outside.clone(), stop.clone());
        tasks.spawn(async move { sending.send_until(&ends).await });
        Self { known, stop, every, outside, tasks: Arc::new(tokio::sync::Mutex::new(tasks)) }
    }

    /// Is `times` as high for `duration`, by so many clients and other systems more.
    pub(crate) async fn raise(&self, service: &Service, times: u32, duration: Duration) {
        let (stop, mut tasks) = (self.stop.child_token(), JoinSet::new());
        for client in CLIENTS..CLIENTS * times {
            let (accounts, known, stop) = (service.repository::<Account>(), self.known.clone(), stop.clone());
            let every = self.every;
            tasks.spawn(async move { append(&accounts, client, every, &known, &stop).await });
        }
        for _ in 1..times {
            let (sending, stop) = (self.outside.clone(), stop.clone());
            tasks.spawn(async move { sending.send_until(&stop).await });
        }
        let _ = self.stop.run_until_cancelled(tokio::time::sleep(duration)).await;
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    }

    /// The other system.
    pub(crate) fn outside(&self) -> &Outside {
        &self.outside
    }

    /// Ends it, and tells what is known when the brokers have answered.
    pub(crate) async fn end(&self) -> Known {
        self.stop.cancel();
        while self.tasks.lock().await.join_next().await.is_some() {}
        let mut deliveries = std::mem::take(&mut *lock(&self.outside.deliveries));
        let answered = async { while deliveries.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, answered).await.is_err() {
            lock(&self.known).failed.push("messages are neither confirmed nor refused".to_owned());
        }
        lock(&self.known).clone()
    }
}

async fn append(
    accounts: &Repository<Account>,
    client: u32,
    every: Duration,
    known: &Mutex<Known>,
    stop: &CancellationToken,
) {
    let (mut ticks, began) = (interval(every), Instant::now());
    for number in 0.. {
        if stop.run_until_cancelled(ticks.tick()).await.is_none() {
            return;
        }
        let turn = began.elapsed().as_millis() / WHILE.as_millis();
        let account = format!("{CLIENT}{turn}-{}", fastrand::u64(..ACCOUNTS));
        let key = IdempotencyKey::new(format!("{client}/{number}")).expect("a valid key");
        // Some requests are sent twice.
        for _ in 0..=u32::from(number % 10 == 0) {
            let context = CommandContext::default().idempotent(key.clone(), b"");
            match accounts.execute_with(&account, AccountCommand::Deposit(1 + number % 100), context).await {
                Ok(receipt) => lock(known).appended.push(Acknowledged {
                    account: account.clone(),
                    version: receipt.version,
                    position: receipt.position.unwrap_or_default(),
                }),
                Err(error) => lock(known).failed.push(format!("an append failed: {}", with_causes(&error))),
            }
        }
    }
}

/// The other system, which writes a topic of its own.
#[derive(Clone)]
pub(crate) struct Outside {
    producer: FutureProducer,
    topic: String,
    known: Arc<Mutex<Known>>,
    next: Arc<AtomicU64>,
    deliveries: Arc<Mutex<JoinSet<()>>>,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Outside {
    async fn open(ground: &Ground, known: Arc<Mutex<Known>>) -> Self {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &ground.brokers).set("reconnect.backoff.max.ms", "500");
        let topic = ground.foreign_topic();
        let admin: AdminClient<DefaultClientContext> = client.create().expect("a client");
        let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(ground.replication));
        admin.create_topics([&new], &AdminOptions::new()).await.expect("the brokers are up");
        client.set("enable.idempotence", "true").set("message.timeout.ms", PATIENCE.as_millis().to_string());
        let producer = client.create().expect("a producer");
        Self { producer, topic, known, next: Arc::default(), deliveries: Arc::default() }
    }

    async fn send_until(&self, stop: &CancellationToken) {
        let mut ticks = interval(MESSAGES);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.send();
        }
    }

    /// Sends a message.
    fn send(&self) {
        let number = 1 + self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.known).sent.insert(number);
        let key = account(number);
        self.record(FutureRecord::to(&self.topic).key(&key).payload(&message(number)), move |known| {
            known.confirmed.insert(number);
        });
    }

    /// Sends some of the last messages again, to any partition.
    pub(crate) fn repeat(&self, count: usize) {
        let last: Vec<u64> = lock(&self.known).sent.iter().rev().take(count).copied().collect();
        for number in last {
            let (key, text) = (account(number), message(number));
            let record = FutureRecord::to(&self.topic).partition(fastrand::i32(..PARTITIONS));
            self.record(record.key(&key).payload(&text), move |known| {
                known.confirmed.insert(number);
            });
        }
    }

    /// Sends what cannot be read, and what no consumer wants to know.
    pub(crate) fn garbage(&self, count: usize) {
        for _ in 0..count {
            let number = 1 + self.next.fetch_add(1, Ordering::Relaxed);
            lock(&self.known).garbage_sent.insert(number);
            let key = format!("garbage-{number}");
            let texts = [
                "?".to_owned(),
                r#"{"type":"paid_in""#.to_owned(),
                format!(r#"{{"type":"paid_in","id":"g{number}","number":"x"}}"#),
                "[]".to_owned(),
            ];
            let record = FutureRecord::to(&self.topic).key(&key).payload(&texts[fastrand::usize(..texts.len())]);
            self.record(record, move |known| {
                known.garbage_confirmed.insert(number);
            });
            let unknown = format!("{{\"type\":\"viewed\",\"id\":\"v{number}\"}}");
            let key = account(number);
            self.record(FutureRecord::to(&self.topic).key(&key).payload(&unknown), |_| ());
        }
    }

    fn record(&self, record: FutureRecord<'_, String, String>, confirmed: impl FnOnce(&mut Known) + Send + 'static) {
        let known = self.known.clone();
        match self.producer.send_result(record) {
            Ok(delivery) => drop(lock(&self.deliveries).spawn(async move {
                // One that is not confirmed may be there or not.
                if let Ok(Ok(_)) = delivery.await {
                    confirmed(&mut lock(&known));
                }
            })),
            Err((KafkaError::MessageProduction(_), _)) => {}
            Err((error, _)) => lock(&known).failed.push(error.to_string()),
        }
    }
}

fn account(number: u64) -> String {
    (number % KEYS).to_string()
}

fn message(number: u64) -> String {
    format!(r#"{{"type":"paid_in","id":"{number}","account":"{}","number":{number}}}"#, account(number))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
