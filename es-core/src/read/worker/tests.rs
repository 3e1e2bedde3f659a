use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Events, Handled, Handler, Step, Worker, persist};
use crate::{
    backoff::Backoff,
    event::Categories,
    memory::MemoryStore,
    read::{
        engine_error::{EngineError, Location},
        failure::{FailurePolicy, FailureSettings},
        projection::EventOrder,
        read_model::{Lease, Leases, Operations, Reader, Shard, Takeover},
        scripted::{Say, Script, Watched, checkpoint},
        source::{Batch, BatchEvents, Delivery, SourceError, Split, Subscription},
        worker_state::StateReport,
    },
    stream::Position,
    telemetry::LEASES_LOST,
    testing::{account::AccountEvent, recorded},
};

const TTL: Duration = Duration::from_hours(1);

/// Notes the positions that it is given, and handles so many of them at a time.
struct Notes {
    at_a_time: usize,
    handled: Mutex<Vec<u64>>,
}

#[async_trait]
impl Handler for Notes {
    async fn handle(&self, _: &Reader, events: Events<'_>, _: &CancellationToken) -> Handled {
        let done = events.list.len().min(self.at_a_time);
        let positions = events.list[..done].iter().map(|event| event.position.get());
        self.handled.lock().expect("nothing panics under it").extend(positions);
        Handled { done, ..Handled::default() }
    }
}

/// As [`Notes`], but it can go on while a commit is on its way. The commits wait until it has handled the event at `until`.
struct GoesOn {
    notes: Notes,
    until: u64,
    lets_commits_go: CancellationToken,
    /// Whether a commit was on its way.
    ahead: Mutex<Vec<bool>>,
}

impl GoesOn {
    fn new(store: &Watched, until: u64) -> Self {
        let notes = Notes { at_a_time: 1, handled: Mutex::default() };
        Self { notes, until, lets_commits_go: store.holds_commits_back(), ahead: Mutex::default() }
    }
}

#[async_trait]
impl Handler for GoesOn {
    async fn handle(&self, reader: &Reader, events: Events<'_>, stop: &CancellationToken) -> Handled {
        self.ahead.lock().expect("nothing panics under it").push(events.is_ahead);
        let handled = self.notes.handle(reader, events, stop).await;
        if events.list[..handled.done].iter().any(|event| event.position.get() >= self.until) {
            self.lets_commits_go.cancel();
        }
        Handled { goes_on: true, ..handled }
    }
}

/// Fails, and says nothing of what to do about it.
struct Fails;

#[async_trait]
impl Handler for Fails {
    async fn handle(&self, _: &Reader, events: Events<'_>, _: &CancellationToken) -> Handled {
        let failure = events.list.first().map(|event| EngineError::Panicked { event: Location::of(event) });
        Handled { failure, ..Handled::default() }
    }
}

/// What a worker has done.
struct Done {
    handled: Vec<u64>,
    started: Vec<Shard>,
    /// The end of the source, or `None`, after each step.
    ends: Vec<Option<u64>>,
    commits: Vec<u64>,
}

async fn reader(store: &MemoryStore) -> Reader {
    store.ensure_reader("notes", "projection").await.expect("made").0
}

/// What a worker does with these deliveries, if it handles so many events at a time.
async fn worked(store: Watched, at_a_time: usize, says: impl IntoIterator<Item = Say>) -> Done {
    let (outcome, done) = ended(store, at_a_time, says).await;
    outcome.expect("no error");
    done
}

async fn ended(
    store: Watched,
    at_a_time: usize,
    says: impl IntoIterator<Item = Say>,
) -> (Result<Option<()>, EngineError>, Done) {
    let notes = Notes { at_a_time, handled: Mutex::default() };
    let (outcome, done) = ended_with(&notes, store, says).await;
    (outcome, Done { handled: notes.handled.into_inner().expect("nothing panics under it"), ..done })
}

/// The same with another handler, of which it does not know what it has handled.
async fn ended_with(
    handler: &dyn Handler,
    store: Watched,
    says: impl IntoIterator<Item = Say>,
) -> (Result<Option<()>, EngineError>, Done) {
    let shutdown = CancellationToken::new();
    let source = Script::new(store.clone(), says, shutdown.clone());
    let (store_id, categories, order) = (Uuid::nil(), Categories::All, EventOrder::PerKey);
    let split = Split::NONE;
    let subscription =
        Subscription { reader: "notes".into(), store: store_id, categories, order, split, forwards: false };
    let (reader, leases) = (reader(&store.memory).await, Arc::new(store.clone()));
    let worker = Worker::open(handler, &source, &subscription, leases, reader, TTL).await.expect("opened");
    let ends = Mutex::new(Vec::new());
    let outcome = worker.run::<()>(&shutdown, |step| {
        let end = if let Step::AtEnd(end) = step { Some(end.get()) } else { None };
        ends.lock().expect("nothing panics under it").push(end);
        Box::pin(async { Ok(ControlFlow::Continue(())) })
    });
    let outcome = outcome.await;
    let ends = ends.into_inner().expect("nothing panics under it");
    (outcome, Done { handled: Vec::new(), started: source.started(), ends, commits: store.commits() })
}

fn shard(number: u32) -> Shard {
    Shard::partition("topic", number)
}

fn assigned<const N: usize>(shards: [u32; N]) -> Say {
    Say::Next(Delivery::Assigned(shards.map(shard).to_vec()))
}

fn revoked(number: u32) -> Delivery {
    Delivery::Revoked(vec![shard(number)])
}

/// The events at these positions, which are the last ones of the shard.
fn batch(number: u32, positions: std::ops::RangeInclusive<u64>) -> Say {
    let end = *positions.end();
    let log = recorded((0..10).map(|_| ("a", AccountEvent::Deposited { amount: 1 })));
    let events: BatchEvents = log.into_iter().filter(|event| positions.contains(&event.position.get())).collect();
    let (shard, end) = (shard(number), Some(Position::new(end)));
    Say::Next(Delivery::Batch(Batch { shard, events, checkpoint: checkpoint(*positions.end()), end }))
}

/// A lease that another worker has on this shard.
async fn taken(store: &MemoryStore, number: u32) -> Lease {
    let reader = reader(store).await;
    store.ensure_shards(&reader, &[shard(number)]).await.expect("ensured");
    let lease = store.acquire(&reader, &shard(number), Uuid::now_v7(), Takeover::WhenFree, TTL).await;
    lease.expect("asked").expect("free")
}

/// As that of a build does: the projector's own handler decides then. Seen to fail where the default is to stop.
#[tokio::test]
async fn r19_a_handler_that_does_not_say_what_to_do_about_failures_ends_and_records_no_stop() {
    let store = Watched::default();
    let (outcome, done) = ended_with(&Fails, store.clone(), [assigned([0]), batch(0, 1..=2)]).await;
    assert!(matches!(outcome, Err(EngineError::Panicked { .. })), "{outcome:?}");
    assert!(done.commits.is_empty());
    assert_eq!(store.memory.stops("notes").await.expect("read"), []);
}

/// Fails at its first event, once.
#[derive(Default)]
struct FailsOnce {
    settings: FailureSettings,
    handled: Mutex<Vec<u64>>,
    has_failed: AtomicBool,
}

#[async_trait]
impl Handler for FailsOnce {
    async fn handle(&self, _: &Reader, events: Events<'_>, _: &CancellationToken) -> Handled {
        let first = events.list.first().filter(|_| !self.has_failed.swap(true, Ordering::Relaxed));
        if let Some(event) = first {
            return Handled {
                failure: Some(EngineError::Panicked { event: Location::of(event) }),
                ..Handled::default()
            };
        }
        let positions = events.list.iter().map(|event| event.position.get());
        self.handled.lock().expect("nothing panics under it").extend(positions);
        Handled { done: events.list.len(), ..Handled::default() }
    }

    fn failures(&self) -> Option<&FailureSettings> {
        Some(&self.settings)
    }
}

/// The source delivers the batch once: a worker that drops it would have to be told so by the source.
#[tokio::test(start_paused = true)]
async fn r11_an_event_is_tried_again_from_a_source_that_cannot_leave_its_shard_out() {
    let pause = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));
    let mut fails = FailsOnce::default();
    fails.settings.policy = FailurePolicy::retry(pause, 1).then_stop();
    let (outcome, _) = ended_with(&fails, Watched::default(), [assigned([0]), batch(0, 1..=2)]).await;
    outcome.expect("no error");
    assert_eq!(*fails.handled.lock().expect("nothing panics under it"), [1, 2]);
}

/// Seen to fail where each commit is waited for: the first one never ends.
#[tokio::test(start_paused = true)]
async fn the_next_events_are_handled_while_a_commit_is_on_its_way() {
    let store = Watched::default();
    let handler = GoesOn::new(&store, 2);
    let worked = ended_with(&handler, store.clone(), [assigned([0]), batch(0, 1..=3)]);
    let (outcome, done) = tokio::time::timeout(Duration::from_mins(1), worked).await.expect("it goes on");
    outcome.expect("no error");
    assert_eq!(*handler.notes.handled.lock().expect("nothing panics under it"), [1, 2, 3]);
    assert_eq!(*handler.ahead.lock().expect("nothing panics under it"), [false, true, true]);
    assert_eq!((done.commits, done.ends), (vec![1, 2, 3], vec![None, None, None, Some(3)]));
}

/// What was handled after a commit that another worker has shut out is not committed. (The store tells the holder of a lost lease too:
/// it fails where the worker heeds neither that nor the outcome of the commit.)
#[tokio::test]
async fn r9_a_commit_that_is_shut_out_on_its_way_is_the_last_one() {
    let store = Watched::default();
    let handler = GoesOn::new(&store, u64::MAX);
    let says = [assigned([0]), batch(0, 1..=3)];
    let (worked, ()) = tokio::join!(ended_with(&handler, store.clone(), says), async {
        while store.commits().is_empty() {
            tokio::task::yield_now().await;
        }
        let reader = reader(&store.memory).await;
        let other = store.memory.acquire(&reader, &shard(0), Uuid::now_v7(), Takeover::Always, TTL).await;
        assert_eq!(other.expect("asked").expect("taken").checkpoint.position, Position::ZERO);
        handler.lets_commits_go.cancel();
    });
    assert!(matches!(worked.0, Err(EngineError::Fenced(_))), "{:?}", worked.0);
    assert_eq!(worked.1.commits, [1]);
    assert_eq!(store.memory.reached("notes").await.expect("read"), Position::ZERO);
}

/// The source ends the worker while the only commit is on its way. (Seen to fail where the worker ends without a look at it.)
#[tokio::test(start_paused = true)]
async fn r16_a_commit_that_is_on_its_way_at_the_shutdown_is_waited_for() {
    let store = Watched::default();
    let handler = GoesOn::new(&store, u64::MAX);
    let Say::Next(Delivery::Batch(events)) = batch(0, 1..=1) else { panic!("a batch") };
    let more = Say::Next(Delivery::Batch(Batch { end: None, ..events }));
    let mut worked = std::pin::pin!(ended_with(&handler, store.clone(), [assigned([0]), more]));
    // Nothing else is left to do: the worker has seen the shutdown.
    let waits = tokio::time::timeout(Duration::from_secs(1), &mut worked).await;
    assert!(waits.is_err(), "it ends");
    assert_eq!((store.commits(), store.released()), (vec![1], 0));
    handler.lets_commits_go.cancel();
    worked.await.0.expect("no error");
    assert_eq!(store.released(), 1);
    assert_eq!(store.memory.reached("notes").await.expect("read"), Position::new(1));
}

/// (Seen to fail where the worker waits for it when it releases the lease, and not before.)
#[tokio::test(start_paused = true)]
async fn r16_a_commit_that_fails_at_the_shutdown_is_an_error() {
    let store = Watched::default();
    let handler = GoesOn::new(&store, 1);
    let Say::Next(Delivery::Batch(events)) = batch(0, 1..=1) else { panic!("a batch") };
    let more = Say::Next(Delivery::Batch(Batch { end: None, ..events }));
    store.breaks();
    let (outcome, _) = ended_with(&handler, store.clone(), [assigned([0]), more]).await;
    assert!(matches!(outcome, Err(EngineError::Store(_))), "{outcome:?}");
    assert_eq!(store.held(), 0, "the next worker need not wait until the lease expires");
}

#[tokio::test]
async fn a_shard_that_is_assigned_later_is_taken_too() {
    let says = [assigned([0]), batch(0, 1..=2), assigned([1]), batch(1, 3..=4)];
    let done = worked(Watched::default(), 10, says).await;
    assert_eq!((done.started, done.handled), (vec![shard(0), shard(1)], vec![1, 2, 3, 4]));
}

#[tokio::test]
async fn r9_an_event_that_is_delivered_again_is_handled_once() {
    let says = [assigned([0]), batch(0, 1..=2), batch(0, 2..=3), batch(0, 1..=3)];
    let done = worked(Watched::default(), 10, says).await;
    assert_eq!((done.handled, done.commits), (vec![1, 2, 3], vec![2, 3]));
    assert_eq!(done.ends, [None, Some(2), Some(3), Some(3)]);
}

#[tokio::test]
async fn r9_an_event_is_handled_once_in_parts_of_any_size() {
    let done = worked(Watched::default(), 1, [assigned([0]), batch(0, 1..=3)]).await;
    assert_eq!((done.handled, done.commits), (vec![1, 2, 3], vec![1, 2, 3]));
    assert_eq!(done.ends, [None, None, None, Some(3)], "the end is after the last part");
}

/// Seen to fail where all that waits is dropped with a shard, and where all that is wanted is.
#[tokio::test]
async fn a_shard_that_is_revoked_takes_nothing_from_the_others() {
    let done = worked(Watched::default(), 1, [assigned([0, 1]), batch(1, 1..=3), Say::Urgent(revoked(0))]);
    assert_eq!(done.await.handled, [1, 2, 3]);
    let store = Watched::default();
    let (first, second) = (taken(&store.memory, 0).await, taken(&store.memory, 1).await);
    let says = [assigned([0, 1]), Say::Next(revoked(0)), Say::Free(first), Say::Free(second)];
    assert_eq!(worked(store, 1, says).await.started, [shard(1)]);
}

#[tokio::test]
async fn a_worker_is_at_the_end_when_it_holds_all_its_shards_there() {
    let store = Watched::default();
    let other = taken(&store.memory, 1).await;
    let says = [assigned([0, 1]), batch(0, 1..=2), Say::Free(other), batch(1, 3..=4)];
    assert_eq!(worked(store, 10, says).await.ends, [None, None, None, Some(4)]);
}

#[tokio::test]
async fn r19_parked_keys_are_read_with_the_lease_and_not_with_each_batch() {
    let store = Watched::default();
    let says = [assigned([0, 1]), batch(0, 1..=2), batch(1, 3..=4), batch(0, 5..=9)];
    let done = worked(store.clone(), 1, says).await;
    assert_eq!((done.commits.len(), store.situations()), (9, 2));
}

#[tokio::test]
async fn a_batch_without_news_is_not_committed() {
    let done = worked(Watched::default(), 10, [assigned([0]), batch(0, 1..=2), batch(0, 2..=2)]).await;
    assert_eq!(done.commits, [2]);
}

#[tokio::test]
async fn a_failure_at_the_shutdown_is_none() {
    for stops in [true, false] {
        let (report, shutdown) = (StateReport::default(), CancellationToken::new());
        let ended = persist("notes", &report, &shutdown, || {
            Box::pin(async {
                let is_first = report.last_failure().is_none();
                if stops || !is_first {
                    shutdown.cancel();
                }
                Err::<Option<()>, _>(EngineError::Source(SourceError::Unavailable("it is gone".into())))
            })
        });
        assert!(ended.await.expect("the shutdown ends it").is_none());
        assert_eq!(report.last_failure().is_some(), !stops);
    }
}

#[tokio::test]
async fn r16_a_worker_that_ends_releases_all_its_leases() {
    let store = Watched::default();
    worked(store.clone(), 10, [assigned([0, 1])]).await;
    assert_eq!(store.released(), 2);
}

#[tokio::test]
async fn a_worker_whose_leases_are_lost_ends_and_counts_them() {
    let recorder = DebuggingRecorder::new();
    let _installed = metrics::set_default_local_recorder(&recorder);
    let (outcome, _) = ended(Watched::default(), 10, [assigned([0, 1, 2]), Say::LoseAll]).await;
    assert!(matches!(outcome, Err(EngineError::Fenced(_))), "{outcome:?}");
    let all = recorder.snapshotter().snapshot().into_vec();
    let (.., lost) = all.into_iter().find(|(key, ..)| key.key().name() == LEASES_LOST.name).expect("counted");
    assert_eq!(lost, DebugValue::Counter(3));
}
