use std::{sync::Arc, time::Duration};

use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    EngineError, FoldResult, Keys, LogSource, MemoryStore, Projector, ReadToken, Recorded, Repository,
    read::{
        read_model::{GenerationState, Generations, Reader},
        scripted::Watched,
    },
    testing::account::{Account, AccountCommand, AccountEvent, Histories},
};

const PATIENCE: Duration = Duration::from_secs(30);

async fn deposit(store: &MemoryStore, id: &str) -> ReadToken {
    Repository::<Account>::new(store.clone()).execute(id, AccountCommand::Deposit(1)).await.expect("executed").token
}

fn project(store: &Watched, shutdown: &CancellationToken) -> JoinHandle<Result<(), EngineError>> {
    let projector = Projector::new(Histories, LogSource::new(store.memory.clone()), store.clone());
    let shutdown = shutdown.clone();
    tokio::spawn(async move { projector.run(shutdown).await })
}

#[tokio::test]
async fn r13_a_hundred_watches_read_no_document_but_that_of_the_key_that_has_changed() {
    let (store, shutdown) = (Watched::default(), CancellationToken::new());
    let running = project(&store, &shutdown);
    let model = ReadModel::<Histories>::new(store.clone()).patience(PATIENCE);
    let model = model.watched_with(Histories, store.memory.clone());
    model.wait_for(deposit(&store.memory, "a7").await, PATIENCE).await.expect("it is folded");
    let (mut watches, told) = (JoinSet::new(), Arc::new(tokio::sync::Barrier::new(101)));
    for number in 0..100 {
        let (mut watch, told) = (model.watch(format!("a{number}"), Since::Now).expect("it is known"), told.clone());
        watches.spawn(async move {
            watch.next().await.expect("its state");
            told.wait().await;
            watch.next().await.expect("a change").key
        });
    }
    told.wait().await;
    // Longer pauses, so that few looks are counted below.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = store.asked();
    deposit(&store.memory, "a7").await;
    let changed = watches.join_next().await.expect("one of them ends").expect("it does not panic");
    assert_eq!(changed, "a7");
    // The document, and the looks that have found it.
    let asked = store.asked() - asked;
    assert!(asked < 20, "{asked}");
    watches.abort_all();
    shutdown.cancel();
    running.await.expect("it does not panic").expect("it ends in good order");
}

#[tokio::test]
async fn r17_a_watch_that_nothing_is_asked_of_keeps_the_keys_of_one_page() {
    let (store, shutdown) = (Watched::default(), CancellationToken::new());
    let running = project(&store, &shutdown);
    let model = ReadModel::<Histories>::new(store.clone()).patience(PATIENCE);
    let model = model.watched_with(Histories, store.memory.clone());
    let first = deposit(&store.memory, "first").await;
    model.wait_for(first, PATIENCE).await.expect("it is folded");
    let mut watch = model.watch_range(KeyRange::default(), first).expect("it is known");
    let mut last = first;
    for number in 0..2_500 {
        last = deposit(&store.memory, &number.to_string()).await;
    }
    model.wait_for(last, PATIENCE).await.expect("it is folded");
    for number in 0..2_500 {
        let change = watch.next().await.expect("a change");
        assert_eq!(change.key, number.to_string());
        let following = watch.following.as_ref().expect("it has begun");
        assert!(following.pending.len() + following.ready.len() <= 1_000);
        // It continues before the page, unless that is told as a whole.
        assert_eq!(
            change.token.map(|token| token.position.get()),
            Some(1 + (number + 1) / 1_000 * 1_000).filter(|_| number < 2_499).or(Some(2_501))
        );
    }
    shutdown.cancel();
    running.await.expect("it does not panic").expect("it ends in good order");
}

#[tokio::test]
async fn a_page_of_events_is_read_once_for_all_that_want_it() {
    let store = MemoryStore::new();
    let last = deposit(&store, "a").await.0;
    let touched = TouchedKeys::new(Alone(Histories), Arc::new(store));
    let reader = Reader { id: 1, name: "histories".to_owned() };
    let (one, other) =
        tokio::join!(touched.page(&reader, Position::ZERO, last), touched.page(&reader, Position::ZERO, last));
    let one = one.expect("read");
    assert!(Arc::ptr_eq(&one, &other.expect("read")));
    touched.forget();
    assert!(!Arc::ptr_eq(&one, &touched.page(&reader, Position::ZERO, last).await.expect("read")));
    assert!(matches!(touched.page(&reader, last, last.next()).await, Err(WatchError::History { .. })));
}

#[tokio::test]
async fn a_read_model_that_does_not_know_its_projection_cannot_be_watched() {
    let model = ReadModel::<Histories>::new(MemoryStore::new());
    assert!(matches!(model.watch("a", Since::Now), Err(WatchError::Unregistered { projection: "histories" })));
    let known = model.watched_with(Histories, MemoryStore::new());
    let unbuilt = known.watch("a", Since::Now).expect("it is known").next().await;
    assert!(matches!(&unbuilt, Err(error @ WatchError::Query(QueryError::Building { .. })) if error.is_transient()));
}

/// One that continued there would miss the others.
#[tokio::test]
async fn r13_a_watch_of_a_range_tells_no_place_to_continue_before_all_documents_are_told() {
    let (store, shutdown) = (Watched::default(), CancellationToken::new());
    let running = project(&store, &shutdown);
    let model = ReadModel::<Histories>::new(store.clone()).patience(PATIENCE);
    let model = model.watched_with(Histories, store.memory.clone());
    deposit(&store.memory, "a").await;
    model.wait_for(deposit(&store.memory, "b").await, PATIENCE).await.expect("it is folded");
    let mut watch = model.watch_range(KeyRange::default(), Since::Now).expect("it is known");
    let mut tokens = Vec::new();
    for _ in 0..2 {
        tokens.push(watch.next().await.expect("a document").token.map(|token| token.position));
    }
    assert_eq!(tokens, [None, Some(Position::new(2))]);
    shutdown.cancel();
    running.await.expect("it does not panic").expect("it ends in good order");
}

/// R3: the store was restored from an older copy while the client was away. (Seen to fail: the watch waited until the new past had come
/// as far as the old one, and told nothing of what had happened up to there.)
#[tokio::test]
async fn r3_a_watch_does_not_continue_beyond_the_end_of_the_read_model() {
    let (store, shutdown) = (Watched::default(), CancellationToken::new());
    let running = project(&store, &shutdown);
    let model = ReadModel::<Histories>::new(store.clone()).patience(PATIENCE);
    let model = model.watched_with(Histories, store.memory.clone());
    model.wait_for(deposit(&store.memory, "a").await, PATIENCE).await.expect("it is folded");
    let told = model.watch("a", Since::Now).expect("it is known").next().await.expect("its state");
    let token = told.token.expect("it is complete");
    let mut watch = model.watch("a", token).expect("it is known");
    let waits = tokio::time::timeout(Duration::from_millis(20), watch.next()).await;
    assert!(waits.is_err(), "nothing has happened since: {waits:?}");
    let later = ChangeToken { position: token.position.next(), ..token };
    let mut watch = model.watch("a", later).expect("it is known");
    let ended = tokio::time::timeout(PATIENCE, watch.next()).await.expect("it ends");
    assert!(matches!(ended, Err(WatchError::History { .. })), "{ended:?}");
    shutdown.cancel();
    running.await.expect("it does not panic").expect("it ends in good order");
}

/// The same, and the new past is as long. (It would fail where a token told no event: the changes of the new past up to there were
/// never told.)
#[tokio::test]
async fn r3_a_watch_does_not_continue_in_another_history() {
    let (store, shutdown) = (Watched::default(), CancellationToken::new());
    let running = project(&store, &shutdown);
    let model = ReadModel::<Histories>::new(store.clone()).patience(PATIENCE);
    let model = model.watched_with(Histories, store.memory.clone());
    let written = deposit(&store.memory, "a").await;
    model.wait_for(written, PATIENCE).await.expect("it is folded");
    for since in [Since::Now, Since::Write(written)] {
        let mut watch = model.watch("a", since).expect("it is known");
        if since != Since::Now {
            model.wait_for(deposit(&store.memory, "a").await, PATIENCE).await.expect("it is folded");
        }
        let token = watch.next().await.expect("its state").token.expect("it is complete");
        let next = async |token: ChangeToken| {
            let mut watch = model.watch("a", token).expect("it is known");
            deposit(&store.memory, "a").await;
            tokio::time::timeout(PATIENCE, watch.next()).await.expect("it ends or goes on")
        };
        let other = ChangeToken { witness: token.witness.map(|witness| witness ^ 1), ..token };
        let ended = next(other).await;
        assert!(
            matches!(&ended, Err(WatchError::OtherHistory { position }) if *position == token.position),
            "{ended:?}"
        );
        // The text of an older program has none.
        for token in [token, ChangeToken { witness: None, ..token }] {
            next(token).await.expect("it goes on");
        }
    }
    shutdown.cancel();
    running.await.expect("it does not panic").expect("it ends in good order");
}

/// Its keys are others in each version.
struct Moved<const VERSION: u32, const SINCE: u32>;

impl<const VERSION: u32, const SINCE: u32> Projection for Moved<VERSION, SINCE> {
    const NAME: &'static str = "moved";
    const VERSION: u32 = VERSION;
    const READS_SINCE: u32 = 1;
    const KEYS_SINCE: u32 = SINCE;
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(format!("{}-{}", event.stream.id(), if SINCE == 1 { 1 } else { VERSION }))
    }

    fn fold(&self, count: &mut Option<u64>, _: &Recorded<AccountEvent>) -> FoldResult {
        *count.get_or_insert_default() += 1;
        Ok(())
    }
}

/// It would fail where the watch began: it looked for changes under keys that the older generation does not have.
#[tokio::test]
async fn a_watch_does_not_begin_while_a_version_with_other_keys_serves() {
    let store = MemoryStore::new();
    store.ensure_generation("moved", 1, GenerationState::Serving, "projection", &[]).await.expect("made");
    let waiting = ReadModel::<Moved<2, 2>>::new(store.clone()).watched_with(Moved::<2, 2>, store.clone());
    assert_eq!(waiting.get("a-1").await.expect("it can be read"), None);
    let refused = waiting.watch("a-2", Since::Now).expect("it is known").next().await;
    assert!(
        matches!(refused, Err(WatchError::Query(QueryError::OtherVersion { serving: 1, ours: 2, .. }))),
        "{refused:?}"
    );
    let same = ReadModel::<Moved<2, 1>>::new(store.clone()).watched_with(Moved::<2, 1>, store);
    let state = same.watch("a-1", Since::Now).expect("it is known").next().await.expect("it begins");
    assert_eq!(state.document, None);
}
