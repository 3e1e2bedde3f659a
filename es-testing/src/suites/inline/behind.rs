//! What becomes of appends while a read model lacks events: it has stopped, is paused, follows another source, or waits for newer code.

use std::time::Duration;

use es_core::{
    Act, Append, AppendError, Event, EventData, ExecuteError, Expected, LogSource, NewEvent, Position, Projection,
    Service, ServiceStore, StreamId,
    service::{PartState, Parts},
    testing::account::{AccountEvent, Histories, Ledger, Overdrawn},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    Copy, Lasts, PATIENCE, POISON, POISONED, accounts, amounts, assert_is_the_fold, cause, deposit, gone, refused,
    serves,
};

/// R11, R22: an event that cannot be folded was appended by a process that does not know the read model. No append is to blame for it; all
/// are refused until an operator has skipped it.
pub async fn r11_r22_appends_are_refused_while_the_projector_has_stopped<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).inline(POISONED).start().await.expect("it starts");
    serves::<Ledger>(&service).await;
    gone(service, store).await;
    let poison = store.append(amounts("a", &[POISON])).await.expect("appended").position;
    let service = accounts(store).inline(POISONED).start().await.expect("it starts");
    let part = async || service.status().await.part(Ledger::<1>::NAME).expect("registered").clone();
    let stopped = async {
        while !matches!(part().await.state, PartState::Stopped { .. }) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stopped).await.expect("it stops");
    let behind = refused(deposit(&service, "b", 1).await);
    assert!(!behind.is_transient() && !behind.is_unknown() && cause(&behind).contains("account-a@1"), "{behind:?}");
    assert!(matches!(behind, AppendError::InlineBehind { reached: Position::ZERO, head, .. } if head == poison));
    assert_eq!(store.head().await.expect("a head"), poison);

    let stopped = store.stops(Ledger::<1>::NAME).await.expect("read").remove(0);
    let act = Act::new("ada", "a test").expect("not blank");
    store.skip(Ledger::<1>::NAME, &stopped.shard, stopped.position, stopped.event_id, &act).await.expect("skipped");
    let position = deposit(&service, "b", 1).await.expect("executed");
    let page = service.read_model::<Ledger>().get("all").await.expect("it serves").expect("it is there");
    assert_eq!(page.positions, [position.get()]);
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R22: a paused read model does not change, and no append is refused for it.
///
/// (Seen to fail where appends fold whatever serves.)
pub async fn r22_a_paused_read_model_is_left_out_of_appends<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).inline(POISONED).start().await.expect("it starts");
    serves::<Ledger>(&service).await;
    deposit(&service, "a", 1).await.expect("executed");
    let (name, act) = (Ledger::<1>::NAME, Act::new("ada", "a test").expect("not blank"));
    store.pause(name, &act).await.expect("paused");
    let model = service.read_model::<Ledger>();
    deposit(&service, "a", 2).await.expect("executed");
    assert_eq!(model.get("all").await.expect("it serves").expect("it is there").positions, [1]);
    store.resume(name, &act).await.expect("resumed");
    deposit(&service, "a", 3).await.expect("executed");
    assert_is_the_fold(POISONED, &service).await;
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// An append may wait for a projector, but not for ever.
async fn deposit_in_time(service: &Service, id: &str) -> Result<Position, ExecuteError<Overdrawn>> {
    tokio::time::timeout(PATIENCE, deposit(service, id, 1)).await.expect("it is answered in time")
}

/// R13: a read model that was kept in several shards becomes inline. No append is refused before its projector has it follow the log, and
/// then appends fold it.
///
/// (Seen to fail, in memory, where appends wait until it has a checkpoint in the log: all were refused.)
pub async fn r13_a_read_model_that_had_several_shards_is_folded_with_appends<S: ServiceStore + Clone>(store: &S) {
    let former = accounts(store).projection_with(Histories, |projector| projector.shards(2));
    let former = former.start().await.expect("it starts");
    serves::<Histories>(&former).await;
    deposit(&former, "a", 1).await.expect("executed");
    former.settled(PATIENCE).await.expect("it is folded");
    drop(former);

    let service = accounts(store).inline(Histories).start().await.expect("it starts");
    let follows = async {
        loop {
            let position = deposit_in_time(&service, "a").await.expect("executed");
            if store.reached(Histories::NAME).await.expect("asked") == position {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, follows).await.expect("it follows the log when the former shards are free");
    service.settled(PATIENCE).await.expect("it is folded");
    for _ in 0..3 {
        deposit_in_time(&service, "a").await.expect("executed");
        assert_is_the_fold(Histories, &service).await;
    }
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R13: an operator rebuilds it from what the other readers of the service follow, which is what `rebuild` does if it is told nothing else.
///
/// (Seen to fail, in memory and on `SQLite`, where it is read from there: all appends were refused.)
pub async fn r13_a_read_model_that_was_rebuilt_from_another_source_is_folded_with_appends<S: ServiceStore + Clone>(
    store: &S,
) {
    let service = accounts(store).inline(Histories).start().await.expect("it starts");
    serves::<Histories>(&service).await;
    deposit(&service, "a", 1).await.expect("executed");
    let source = Copy(LogSource::new(store.clone()));
    let rebuilt = service.rebuild::<Histories>(source, CancellationToken::new()).await.expect("rebuilt");
    rebuilt.expect("not interrupted");
    deposit_in_time(&service, "a").await.expect("executed");
    assert_is_the_fold(Histories, &service).await;
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R22: a pause takes a read model out of the appends, whatever it has followed.
pub async fn r22_a_read_model_of_another_source_is_left_out_of_appends_while_it_is_paused<S: ServiceStore + Clone>(
    store: &S,
) {
    let former = accounts(store).projection_with(Histories, |projector| projector.shards(2));
    let former = former.start().await.expect("it starts");
    serves::<Histories>(&former).await;
    drop(former);

    store.pause(Histories::NAME, &Act::new("ada", "a test").expect("not blank")).await.expect("paused");
    let service = accounts(store).inline(Histories).start().await.expect("it starts");
    deposit_in_time(&service, "a").await.expect("executed");
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// A service whose read model was stopped by an event that another process has appended, so all appends are refused. Before, `first` was
/// appended.
async fn stopped<S: ServiceStore + Clone>(store: &S, first: &Append) -> Service {
    let service = accounts(store).inline(POISONED).start().await.expect("it starts");
    serves::<Ledger>(&service).await;
    store.append(first.clone()).await.expect("appended");
    gone(service, store).await;
    store.append(amounts("p", &[POISON])).await.expect("appended");
    let service = accounts(store).inline(POISONED).parts(Parts::None).start().await.expect("it starts");
    let behind = refused(deposit(&service, "z", 1).await);
    assert!(matches!(behind, AppendError::InlineBehind { .. }), "{behind:?}");
    service
}

/// R6: the first outcome of a retry is known, alone and in a batch with other appends. `InlineBehind` would say that nothing was written.
///
/// (Seen to fail, on `SQLite` and Postgres, where all of a batch is told of the read model.)
pub async fn r6_a_retry_gets_its_first_outcome_while_appends_are_refused<S: ServiceStore + Clone>(store: &S) {
    let first = amounts("a", &[1]);
    let service = stopped(store, &first).await;
    let again = store.append(first.clone()).await.expect("it was written");
    assert!(again.repeated);
    let mut appends = JoinSet::new();
    for number in 0..20_u64 {
        let (store, is_retry) = (store.clone(), number == 10);
        let append = if is_retry { first.clone() } else { amounts(&format!("c{number}"), &[1]) };
        appends.spawn(async move { (is_retry, store.append(append).await) });
    }
    for (is_retry, outcome) in appends.join_all().await {
        match outcome {
            Ok(appended) => assert!(is_retry && appended.repeated),
            Err(error) => assert!(!is_retry, "it was written, and is told: {error:?}"),
        }
    }
    drop(service);
}

/// R2: an append that does not fit is a conflict, alone and in a batch with other appends.
///
/// (Seen to fail, on `SQLite` and Postgres, where all of a batch is told of the read model.)
pub async fn r2_a_conflict_is_told_while_appends_are_refused<S: ServiceStore + Clone>(store: &S) {
    let service = stopped(store, &amounts("a", &[1])).await;
    let mut appends = JoinSet::new();
    for number in 0..20_u64 {
        let (store, is_stale) = (store.clone(), number == 10);
        let stale = || Append { expected: Expected::NoStream, ..amounts("a", &[2]) };
        let append = if is_stale { stale() } else { amounts(&format!("c{number}"), &[1]) };
        appends.spawn(async move { (is_stale, store.append(append).await) });
    }
    for (is_stale, outcome) in appends.join_all().await {
        let is_conflict = matches!(outcome, Err(AppendError::Conflict(_)));
        assert_eq!(is_conflict, is_stale, "{outcome:?}");
    }
    drop(service);
}

/// R12: newer code, in which another version of the read model is being built, has appended an event that older code does not know. Older
/// code leaves the read model to its projector, which stands by, and goes on writing.
///
/// (Seen to fail where an event that cannot be folded is the same to all.)
pub async fn r12_an_event_of_newer_code_does_not_stop_the_appends_of_older_code<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).inline(Histories).start().await.expect("it starts");
    serves::<Histories>(&service).await;
    gone(service, store).await;
    let data = EventData { name: "account.frozen".into(), schema_version: 1, payload: "{}".into() };
    let stream = StreamId::new(AccountEvent::CATEGORY, "f").expect("a stream");
    store.append(Append::new(stream, Expected::Any, vec![NewEvent::new(data)])).await.expect("appended");
    let older = accounts(store).inline(Histories).start().await.expect("it starts");
    deposit_in_time(&older, "a").await.expect("executed");
    older.shutdown(PATIENCE).await.expect("it ends");
}

/// R4: the events that another process has appended touch more documents than one commit may write. The projector folds them in several
/// commits; the append waits for it.
///
/// (Seen to fail where missing events and those of an append are folded together.)
pub async fn r4_an_append_is_not_blamed_for_the_documents_of_missing_events<S: ServiceStore + Clone>(store: &S) {
    let builder = || accounts(store).inline_with(Histories, |projector| projector.document_bytes(100));
    let service = builder().start().await.expect("it starts");
    serves::<Histories>(&service).await;
    gone(service, store).await;
    for number in 0..60 {
        store.append(amounts(&format!("c{number}"), &[1; 15])).await.expect("appended");
    }
    let observer = builder().parts(Parts::None).start().await.expect("it starts");
    let waiting = tokio::spawn({
        let observer = observer.clone();
        async move { deposit_in_time(&observer, "b").await }
    });
    tokio::task::yield_now().await;
    let service = builder().start().await.expect("it starts");
    waiting.await.expect("no panic").expect("it waits for the projector");
    assert_is_the_fold(Histories, &service).await;
    drop(observer);
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R4, R11: two events that another process has appended give a document the value of another one. No append is to blame.
///
/// (Seen to fail where missing events and those of an append are folded together.)
pub async fn r4_an_append_is_not_blamed_for_a_value_that_missing_events_have_taken<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).inline(Lasts).start().await.expect("it starts");
    serves::<Lasts>(&service).await;
    deposit(&service, "a", 7).await.expect("executed");
    gone(service, store).await;
    store.append(amounts("b", &[1, 7])).await.expect("appended");
    let observer = accounts(store).inline(Lasts).parts(Parts::None).start().await.expect("it starts");
    let behind = refused(deposit(&observer, "z", 99).await);
    assert!(matches!(behind, AppendError::InlineBehind { .. }), "{behind:?}");
    drop(observer);
}
