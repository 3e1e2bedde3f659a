//! Table projections of a topic that another system fills.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use es_core::{
    Act, DeadLetters, EngineError, FailurePolicy, Position, QueryError, ReadToken, Recorded, TableProjection,
    TableProjector, Tables, UnknownTypes,
    backend::{
        BoxError, Changes, CommitTablesError, GenerationState, Generations, Inbox, Leases, TableStore, TableWrite,
        WriteError,
    },
    testing::{account::AccountEvent, recorded},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Entry, TableFixture, entry};
use crate::suites::{
    engines_consume::Topic,
    engines_failures::{Fault, Faults, amount_of, eventually, stops},
    engines_project::PATIENCE,
    read_model_store::{changes, lease_of},
};

/// Enters the amount of each message, times the version, under the id of the message: one that is written twice is refused.
struct Messages<F, const V: u32 = 1> {
    faults: Faults,
    /// Whether keys are the ids of messages instead of streams.
    by_id: bool,
    fixture: PhantomData<fn() -> F>,
}

#[async_trait]
impl<F: TableFixture, const V: u32> TableProjection<F::Store> for Messages<F, V> {
    const NAME: &'static str = "messages";
    const VERSION: u32 = V;
    const MIGRATIONS: &'static [&'static str] = F::MIGRATIONS;
    type Event = AccountEvent;

    fn key(&self, event: &Recorded<AccountEvent>) -> String {
        if self.by_id { event.id.to_string() } else { event.stream.as_str().to_owned() }
    }

    async fn write(
        &self,
        tables: &mut <F::Store as TableStore>::Tables<'_>,
        events: &[Recorded<AccountEvent>],
    ) -> Result<(), BoxError> {
        let entries: Vec<_> = events.iter().map(|event| message(event, V)).collect();
        F::insert(tables, &entries).await?;
        let is_refused = |event| self.faults.0.lock().expect("no panic under it").contains_key(&amount_of(event));
        if events.iter().any(is_refused) {
            F::insert(tables, &entries).await?;
        }
        Ok(())
    }
}

fn message(event: &Recorded<AccountEvent>, version: u32) -> Entry {
    let position = i64::try_from(event.id.as_u128()).expect("small ids");
    Entry { position, ..entry(event, version) }
}

type Of<F, const V: u32> = TableProjector<Messages<F, V>, <F as TableFixture>::Store>;

fn of_topic<F: TableFixture, const V: u32>(topic: &Topic, store: &F::Store) -> Of<F, V> {
    with_faults(topic, store, Faults::default())
}

fn with_faults<F: TableFixture, const V: u32>(topic: &Topic, store: &F::Store, faults: Faults) -> Of<F, V> {
    keeps(Messages { faults, by_id: false, fixture: PhantomData }, topic, store)
}

fn keeps<F: TableFixture, const V: u32>(projection: Messages<F, V>, topic: &Topic, store: &F::Store) -> Of<F, V> {
    TableProjector::of_topic(projection, topic.clone(), store.clone())
        .lease(Duration::from_millis(300))
        .standby(Duration::from_millis(20))
}

fn start<F: TableFixture, const V: u32>(
    projector: Of<F, V>,
) -> (JoinHandle<Result<(), EngineError>>, CancellationToken) {
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    (tokio::spawn(async move { projector.run(stop).await }), shutdown)
}

/// The ids and amounts that the tables of version `V` hold, once there are so many.
async fn holds<F: TableFixture, const V: u32>(store: &F::Store, count: usize) -> Vec<(i64, i64)> {
    let model = Tables::<Messages<F, V>, F::Store>::of_topic(store.clone()).patience(PATIENCE);
    eventually("the messages are written", async || {
        let mut reading = model.read().await.expect("it serves");
        let found = F::entries(&mut reading, 0, i64::MAX).await;
        (found.len() >= count).then(|| found.into_iter().map(|entry| (entry.position, entry.amount)).collect())
    })
    .await
}

/// R9: in one batch, in another partition, and after a restart; an id that is written twice would be refused by the table.
pub async fn r9_a_message_that_its_producer_repeats_is_written_once<F: TableFixture>(store: &F::Store) {
    let topic = Topic::default();
    for id in [1, 2, 1] {
        topic.send(0, id, "a", 10);
    }
    topic.send(1, 3, "b", 1);
    let (running, shutdown) = start(of_topic::<F, 1>(&topic, store));
    assert_eq!(holds::<F, 1>(store, 3).await, [(1, 10), (2, 10), (3, 1)]);
    topic.send(1, 1, "a", 10);
    topic.send(1, 4, "b", 2);
    assert_eq!(holds::<F, 1>(store, 4).await, [(1, 10), (2, 10), (3, 1), (4, 2)]);
    stops(running, &shutdown).await;
    topic.send(0, 4, "b", 2);
    topic.send(0, 5, "a", 5);
    let (running, shutdown) = start(of_topic::<F, 1>(&topic, store));
    assert_eq!(holds::<F, 1>(store, 5).await.last(), Some(&(5, 5)));
    stops(running, &shutdown).await;
}

/// R12: the new version lacks a message of the second partition, so the old one goes on to serve.
pub async fn r12_a_raised_version_of_a_topic_serves_when_it_has_what_the_one_has_that_serves<F: TableFixture>(
    store: &F::Store,
) {
    let topic = Topic::default();
    for id in 1..=9 {
        topic.send(0, id, "a", 1);
    }
    topic.send(1, 10, "b", 13);
    let (running, shutdown) = start(of_topic::<F, 1>(&topic, store));
    holds::<F, 1>(store, 10).await;
    stops(running, &shutdown).await;
    let failing = with_faults::<F, 2>(&topic, store, Faults::of([(13, Fault::Refuse)]));
    failing.run(CancellationToken::new()).await.expect_err("it stops at the message");
    assert_eq!(holds::<F, 1>(store, 10).await.len(), 10, "the old version serves");
    let (running, shutdown) = start(of_topic::<F, 2>(&topic, store));
    assert_eq!(holds::<F, 2>(store, 10).await.last(), Some(&(10, 26)));
    stops(running, &shutdown).await;
}

/// R13: a token of the log says nothing about a topic.
pub async fn r13_nothing_waits_for_tables_of_a_topic<F: TableFixture>(store: &F::Store) {
    let topic = Topic::default();
    topic.send(0, 1, "a", 1);
    let (running, shutdown) = start(of_topic::<F, 1>(&topic, store));
    holds::<F, 1>(store, 1).await;
    let tables = Tables::<Messages<F, 1>, F::Store>::of_topic(store.clone());
    let waited = tables.wait_for(ReadToken(Position::new(1)), PATIENCE).await;
    assert!(matches!(waited, Err(QueryError::NotOfLog { projection: "messages" })), "{waited:?}");
    stops(running, &shutdown).await;
}

/// R19: what is parked is the key in its partition; its later messages wait in order, and a retry writes them once.
pub async fn r19_a_message_that_cannot_be_written_holds_up_its_key_in_its_partition<F: TableFixture>(store: &F::Store) {
    let topic = Topic::default();
    for (partition, id, account, amount) in [(0, 1, "a", 13), (0, 2, "b", 1), (0, 3, "a", 1), (1, 4, "a", 1)] {
        topic.send(partition, id, account, amount);
    }
    let faults = Faults::of([(13, Fault::Refuse)]);
    let parks = with_faults::<F, 1>(&topic, store, faults.clone()).on_failure(FailurePolicy::park());
    let (running, shutdown) = start(parks);
    assert_eq!(holds::<F, 1>(store, 2).await, [(2, 1), (4, 1)]);
    let keys: Vec<_> = eventually("the key is parked", async || {
        let keys = store.parked_keys("messages").await.ok()?;
        (keys.first()?.letters == 2).then_some(keys)
    })
    .await
    .into_iter()
    .map(|key| key.key)
    .collect();
    assert_eq!(keys, ["topic/0/account-a"]);
    faults.mend();
    store.request_retry("messages", &keys[0], &Act::new("ada", "mended").expect("valid")).await.expect("parked");
    assert_eq!(holds::<F, 1>(store, 4).await, [(1, 13), (2, 1), (3, 1), (4, 1)]);
    stops(running, &shutdown).await;
}

/// R14: what is parked is the stream, since the key was not known. Seen to fail where the letters of that key have to have it.
pub async fn r14_a_message_that_could_not_be_read_is_written_once_when_it_can<F: TableFixture>(store: &F::Store) {
    let topic = Topic::default();
    topic.send_unreadable(0, 101, "a");
    topic.send_unreadable(0, 102, "a");
    topic.send(0, 2, "b", 1);
    let projection = Messages::<F> { faults: Faults::default(), by_id: true, fixture: PhantomData };
    let (running, shutdown) = start(keeps(projection, &topic, store).on_failure(FailurePolicy::park()));
    let key = eventually("the stream is parked", async || {
        let keys = store.parked_keys("messages").await.expect("read");
        keys.into_iter().find(|key| key.letters == 2).map(|key| key.key)
    })
    .await;
    assert_eq!(key, "topic/0/account-a");
    for place in [101, 102] {
        topic.can_read(place, 1, "a", 10);
    }
    store.request_retry("messages", &key, &Act::new("ada", "declared").expect("valid")).await.expect("parked");
    assert_eq!(holds::<F, 1>(store, 2).await, [(1, 10), (2, 1)]);
    topic.send(0, 1, "a", 10);
    topic.send(0, 3, "a", 3);
    assert_eq!(holds::<F, 1>(store, 3).await, [(1, 10), (2, 1), (3, 3)]);
    stops(running, &shutdown).await;
}

/// R14: of an unknown type, as declared.
pub async fn r14_messages_of_unknown_types_are_passed_over_or_parked_as_declared<F: TableFixture>(store: &F::Store) {
    let topic = Topic::default();
    topic.send(0, 1, "a", 1);
    let mut unknown = recorded([("b", AccountEvent::Deposited { amount: 2 })]).remove(0);
    (unknown.id, unknown.data.name) = (Uuid::from_u128(2), "account.frozen".into());
    topic.put(0, unknown);
    topic.send(0, 3, "b", 3);
    topic.send(0, 4, "c", 4);
    let parks = of_topic::<F, 1>(&topic, store).unknown_types(UnknownTypes::Park);
    let (running, shutdown) = start(parks);
    assert_eq!(holds::<F, 1>(store, 2).await, [(1, 1), (4, 4)]);
    let keys = store.parked_keys("messages").await.expect("read");
    assert_eq!(keys.iter().map(|key| (&*key.key, key.letters)).collect::<Vec<_>>(), [("topic/0/account-b", 2)]);
    stops(running, &shutdown).await;
    let passes = of_topic::<F, 2>(&topic, store).unknown_types(UnknownTypes::Ignore);
    let (running, shutdown) = start(passes);
    assert_eq!(holds::<F, 2>(store, 3).await, [(1, 2), (3, 6), (4, 8)]);
    stops(running, &shutdown).await;
}

/// Writes nothing, and counts how often it was asked to.
#[derive(Default)]
struct Asked(AtomicUsize);

#[async_trait]
impl<S: TableStore> TableWrite<S> for Asked {
    async fn write(&self, _: &mut S::Tables<'_>) -> Result<(), WriteError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn time_limit(&self) -> Option<Duration> {
        None
    }
}

/// R9: its producer has sent it to two partitions, and two workers have looked it up before one of them commits. Seen to fail where the
/// commit notes what is known already.
pub async fn r9_a_message_that_another_worker_has_handled_meanwhile_is_not_written<F: TableFixture>(store: &F::Store) {
    let kept = store.ensure_generation("messages", 1, GenerationState::Building, "consumer Messages", &[]).await;
    let generation = kept.expect("made");
    store.create_tables(&generation, F::MIGRATIONS).await.expect("made");
    let (first, second) = ([1].map(Uuid::from_u128), [1, 2].map(Uuid::from_u128));
    let asked = Asked::default();
    let commit = async |shard: &str, messages: &[Uuid]| {
        let lease = lease_of(store, &generation.reader, shard).await;
        let inbox = Some(Inbox { handled: messages.to_vec(), keep_for: Duration::from_hours(1) });
        store.commit_tables(&lease, Changes { inbox, ..changes(1, &[], &[]) }, &asked).await
    };
    commit("topic/0", &first).await.expect("it is new");
    let refused = commit("topic/1", &second).await;
    assert!(matches!(refused, Err(CommitTablesError::Handled)), "{refused:?}");
    assert_eq!(asked.0.load(Ordering::SeqCst), 1, "nothing is written");
    assert_eq!(store.handled(&generation.reader, &second).await.expect("asked"), first);
    commit("topic/1", &second[1..]).await.expect("the rest is new");
}
