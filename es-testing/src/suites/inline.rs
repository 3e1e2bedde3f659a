//! Read models that a store folds in the transaction of each append.

mod behind;

pub use behind::*;

use std::{error::Error, time::Duration};

use es_core::{
    Append, AppendError, Event, EventOrder, ExecuteError, Expected, Field, Fields, FoldResult, KeyRange, Keys,
    NewEvent, Position, Projection, QueryError, Recorded, Service, ServiceBuilder, ServiceStore, StreamId,
    service::Parts,
    testing::{
        account::{Account, AccountCommand, AccountEvent, Histories, Ledger, Overdrawn},
        project,
    },
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::engines_project::{Copy, PATIENCE, projector, spawn};

/// The amount that [`POISONED`] cannot fold.
const POISON: u64 = 666;

const POISONED: Ledger<1> = Ledger { poison: Some(POISON) };

/// The last amount of each account, of which no two may be the same.
#[derive(Debug, Clone, Copy)]
struct Lasts;

/// The document of [`Lasts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Last {
    amount: i64,
}

const AMOUNT: Field<Last, i64> = Field::new("amount", |last: &Last| Some(last.amount)).unique();

impl Projection for Lasts {
    const NAME: &'static str = "lasts";
    const ORDER: EventOrder = EventOrder::PerKey;
    const FIELDS: Fields<Last> = &[&AMOUNT];
    type Event = AccountEvent;
    type Document = Last;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, last: &mut Option<Last>, event: &Recorded<AccountEvent>) -> FoldResult {
        let (AccountEvent::Deposited { amount } | AccountEvent::Withdrawn { amount }) = event.data;
        *last = Some(Last { amount: i64::try_from(amount)? });
        Ok(())
    }
}

fn accounts<S: ServiceStore + Clone>(store: &S) -> ServiceBuilder {
    Service::builder("accounts", store.clone()).aggregate::<Account>()
}

/// The read model is there: from now on appends fold it.
async fn serves<P: Projection>(service: &Service) {
    let model = service.read_model::<P>().patience(PATIENCE);
    model.get("no such key").await.expect("it serves");
}

async fn deposit(service: &Service, id: &str, amount: u64) -> Result<Position, ExecuteError<Overdrawn>> {
    let executed = service.repository::<Account>().execute(id, AccountCommand::Deposit(amount)).await?;
    Ok(executed.position.expect("it has an event"))
}

/// Why the append of `executed` was refused.
fn refused<T: std::fmt::Debug>(executed: Result<T, ExecuteError<Overdrawn>>) -> AppendError {
    match executed.expect_err("it is refused") {
        ExecuteError::Append(error) => error,
        other => panic!("{other:?}"),
    }
}

fn cause(error: &AppendError) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// The read model has all events, and is their fold.
async fn assert_is_the_fold<P: Projection>(projection: P, service: &Service)
where
    P::Document: std::fmt::Debug,
{
    let store = service.store();
    loop {
        let head = store.head().await.expect("a head");
        let log = store.read_log(Position::ZERO, 100_000).await.expect("the log");
        let found = service.read_model::<P>().scan(KeyRange::default(), 100_000).await.expect("a scan");
        let reached = store.reached(P::NAME).await.expect("asked");
        // Nothing was appended meanwhile.
        if store.head().await.expect("a head") == head {
            assert_eq!(reached, head);
            let truth: Vec<_> = project(&projection, &log).expect("the fold").into_iter().collect();
            assert_eq!(found.documents, truth);
            return;
        }
    }
}

/// An append of these amounts to one account, past all services.
fn amounts(id: &str, amounts: &[u64]) -> Append {
    let event = |amount: &u64| {
        let deposited = AccountEvent::Deposited { amount: *amount };
        NewEvent::of(&deposited).expect("an event")
    };
    let stream = StreamId::new(AccountEvent::CATEGORY, id).expect("a stream");
    Append::new(stream, Expected::Any, amounts.iter().map(event).collect())
}

/// The service is gone, and its store folds nothing any more.
async fn gone<S: ServiceStore>(service: Service, store: &S) {
    drop(service);
    while !store.inline_models().expect("it folds read models").is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// R13: right after the receipt, in the process that runs the projector and in one that runs nothing.
///
/// (Seen to fail where a store does not look for inline read models.)
pub async fn r13_a_read_after_the_receipt_sees_the_write_without_waiting<S: ServiceStore + Clone>(store: &S) {
    let builder = || accounts(store).inline(Histories).inline(POISONED);
    let service = builder().start().await.expect("it starts");
    let other = builder().parts(Parts::None).start().await.expect("it starts");
    serves::<Histories>(&service).await;
    serves::<Ledger>(&service).await;
    for number in 1..=40_u64 {
        let (service, id) = (if number % 2 == 0 { &service } else { &other }, format!("a{}", number % 4));
        let position = deposit(service, &id, 1).await.expect("executed");
        let page = service.read_model::<Ledger>().get("all").await.expect("it serves").expect("it is there");
        assert_eq!(page.positions.last(), Some(&position.get()));
        let history = service.read_model::<Histories>().get(&id).await.expect("it serves");
        assert_eq!(history.map(|versions| versions.len() as u64), Some(number.div_ceil(4)), "{id}");
    }
    assert_is_the_fold(Histories, &service).await;
    drop(other);
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R9: clients append at once, through two services. Some are dropped in the middle, and some send what cannot be folded.
///
/// (Seen to fail where an append that is refused leaves its documents behind.)
pub async fn r9_inline_documents_are_the_fold_of_the_log<S: ServiceStore + Clone>(store: &S) {
    let builder = || accounts(store).inline(Histories).inline(POISONED);
    let one = builder().start().await.expect("it starts");
    let other = builder().start().await.expect("it starts");
    serves::<Histories>(&one).await;
    serves::<Ledger>(&one).await;
    let mut clients = JoinSet::new();
    for client in 0..12_u64 {
        let service = if client % 2 == 0 { one.clone() } else { other.clone() };
        clients.spawn(async move {
            let accounts = service.repository::<Account>();
            for number in 0..20 {
                let amount = if (client + number) % 5 == 0 { POISON } else { 1 };
                let id = format!("a{}", (client + number) % 7);
                match accounts.execute(&id, AccountCommand::Deposit(amount)).await {
                    Ok(_) => assert_eq!(amount, 1),
                    Err(ExecuteError::Append(AppendError::Unfoldable { projection, .. })) => {
                        assert_eq!((amount, projection), (POISON, Ledger::<1>::NAME));
                    }
                    // The others were first, too often.
                    Err(ExecuteError::Contended { .. }) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        });
        let service = if client % 2 == 0 { other.clone() } else { one.clone() };
        clients.spawn(async move {
            for number in 0..20 {
                let within = Duration::from_micros(100 * number);
                let _ = tokio::time::timeout(within, deposit(&service, &format!("b{client}"), 1)).await;
            }
        });
    }
    clients.join_all().await;
    // What the clients have left behind is written before this.
    deposit(&one, "z", 1).await.expect("executed");
    assert_is_the_fold(Histories, &one).await;
    assert_is_the_fold(POISONED, &one).await;
    drop(other);
    one.shutdown(PATIENCE).await.expect("it ends");
}

/// R1, R4: in a batch of many appends, and among appends that are made together.
///
/// (Seen to fail, on `SQLite`, where a refusal is the answer to a whole batch.)
pub async fn r1_r4_an_append_that_cannot_be_folded_fails_alone<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).inline(POISONED).start().await.expect("it starts");
    serves::<Ledger>(&service).await;
    let mut appends = JoinSet::new();
    for number in 0..60_u64 {
        let (store, is_poison) = (store.clone(), number % 20 == 7);
        let append = amounts(&format!("a{number}"), &[1, if is_poison { POISON } else { 2 }]);
        appends.spawn(async move { (is_poison, store.append(append).await) });
    }
    let mut written = 0;
    for (is_poison, outcome) in appends.join_all().await {
        match outcome {
            Ok(_) => {
                assert!(!is_poison);
                written += 2;
            }
            Err(error @ AppendError::Unfoldable { projection, .. }) => {
                assert!(is_poison && !error.is_transient() && !error.is_unknown());
                assert_eq!(projection, Ledger::<1>::NAME);
                assert!(cause(&error).contains("cannot be folded into \"all\""), "{error:?}");
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!((written, store.head().await.expect("a head")), (114, Position::new(114)));
    let together = store.append_together(vec![amounts("x", &[1]), amounts("y", &[POISON])]).await;
    assert!(matches!(together, Err(AppendError::Unfoldable { .. })), "{together:?}");
    assert_eq!(store.head().await.expect("a head"), Position::new(114));
    // The same command can be sent with another content: nothing is remembered of the first one.
    assert_eq!(store.append(amounts("y", &[1])).await.expect("appended").version.get(), 1);
    assert_is_the_fold(POISONED, &service).await;
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R4: of appends that build on each other, also the later ones of the stream.
pub async fn r4_what_builds_on_an_append_that_cannot_be_folded_is_a_conflict<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).inline(POISONED).start().await.expect("it starts");
    serves::<Ledger>(&service).await;
    let after = |version, amount| Append {
        expected: if version == 0 { Expected::NoStream } else { Expected::Exact(es_core::Version::new(version)) },
        ..amounts("a", &[amount])
    };
    let sent = [after(0, 1), after(1, POISON), after(2, 3)].map(|append| store.append(append));
    let [first, second, third] = sent;
    let (first, second, third) = tokio::join!(first, second, third);
    assert!(first.is_ok(), "{first:?}");
    assert!(matches!(second, Err(AppendError::Unfoldable { .. })), "{second:?}");
    assert!(matches!(third, Err(AppendError::Conflict(_))), "{third:?}");
    assert_is_the_fold(POISONED, &service).await;
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R11: a unique field is one for the events themselves, also of appends in one batch.
///
/// (Seen to fail where the values of a batch are compared only with each other.)
pub async fn r11_an_append_that_gives_a_taken_value_is_refused<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).inline(Lasts).start().await.expect("it starts");
    serves::<Lasts>(&service).await;
    deposit(&service, "a", 7).await.expect("executed");
    let taken = refused(deposit(&service, "b", 7).await);
    assert!(matches!(taken, AppendError::Unfoldable { projection: "lasts", .. }), "{taken:?}");
    assert!(cause(&taken).contains("unique field \"amount\""), "{taken:?}");
    let mut appends = JoinSet::new();
    for number in 0..20_u64 {
        let (store, append) = (store.clone(), amounts(&format!("c{number}"), &[100 + number % 10]));
        appends.spawn(async move { store.append(append).await });
    }
    let outcomes = appends.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 10, "{outcomes:?}");
    // The value is free again, in one append, and then in the same batch.
    deposit(&service, "a", 8).await.expect("executed");
    deposit(&service, "b", 7).await.expect("executed");
    assert_is_the_fold(Lasts, &service).await;
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R12, R13: each client sees its writes at once, before, during and after the rebuild, and so does each new version of the projection.
///
/// (Seen to fail where a generation is promoted only if it happens to be as far as the one that serves: the rebuild did not end.)
pub async fn r12_inline_read_models_are_rebuilt_beside_appends<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).inline(Ledger::<1>::default()).inline(Histories).start().await.expect("it starts");
    serves::<Histories>(&service).await;
    serves::<Ledger>(&service).await;
    let stop = CancellationToken::new();
    let mut clients = JoinSet::new();
    for client in 0..4 {
        let (service, stop, id) = (service.clone(), stop.clone(), format!("a{client}"));
        clients.spawn(async move {
            let mut written = 0;
            while !stop.is_cancelled() {
                deposit(&service, &id, 1).await.expect("executed");
                written += 1;
                let history = service.read_model::<Histories>().get(&id).await.expect("it serves");
                assert_eq!(history.map(|versions| versions.len()), Some(written));
                tokio::task::yield_now().await;
            }
        });
    }
    let former = store.generations(Histories::NAME).await.expect("asked").serving.expect("it serves").generation;
    for _ in 0..3 {
        let rebuilt = service.rebuild::<Histories>(service.log(), CancellationToken::new());
        let rebuilt = tokio::time::timeout(PATIENCE, rebuilt).await.expect("in time").expect("rebuilt");
        assert_ne!(rebuilt.expect("not interrupted").reader.id, former.reader.id);
    }
    let next = accounts(store).inline(Ledger::<2>::default()).inline(Histories).start().await.expect("it starts");
    let model = next.read_model::<Ledger<2>>();
    let promoted = async {
        while !matches!(model.get("all").await, Ok(Some(_))) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, promoted).await.expect("it is built");
    let position = deposit(&next, "b", 1).await.expect("executed");
    let page = model.get("all").await.expect("it serves").expect("it is there");
    assert!(page.balance.is_some() && page.positions.contains(&position.get()));
    stop.cancel();
    clients.join_all().await;
    assert_is_the_fold(Histories, &next).await;
    assert_is_the_fold(Ledger::<2>::default(), &next).await;
    let older = service.read_model::<Ledger<1>>().get("all").await;
    assert!(matches!(older, Err(QueryError::OtherVersion { .. })), "{older:?}");
    drop(service);
    next.shutdown(PATIENCE).await.expect("it ends");
}

/// R9: a process that does not know the read model appends. The next append that knows it folds that too, if it is not much, and waits
/// for the projector if it is. Without any append the projector does it.
///
/// (Seen to fail where an append folds only its own events.)
pub async fn r9_what_was_appended_without_the_read_model_is_folded_later<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).inline(Histories).start().await.expect("it starts");
    serves::<Histories>(&service).await;
    deposit(&service, "a", 1).await.expect("executed");
    gone(service, store).await;

    store.append(amounts("a", &[1; 10])).await.expect("appended");
    let observer = accounts(store).inline(Histories).parts(Parts::None).start().await.expect("it starts");
    deposit(&observer, "b", 1).await.expect("executed");
    assert_is_the_fold(Histories, &observer).await;
    gone(observer, store).await;

    for number in 0..30 {
        store.append(amounts(&format!("c{number}"), &[1; 50])).await.expect("appended");
    }
    let service = accounts(store).inline(Histories).start().await.expect("it starts");
    deposit(&service, "b", 1).await.expect("it waits for the projector");
    assert_is_the_fold(Histories, &service).await;
    gone(service, store).await;

    store.append(amounts("a", &[1; 10])).await.expect("appended");
    let service = accounts(store).inline(Histories).start().await.expect("it starts");
    service.settled(PATIENCE).await.expect("the projector folds it");
    assert_is_the_fold(Histories, &service).await;
    service.shutdown(PATIENCE).await.expect("it ends");
}

/// R9: a program that does not know that appends fold the read model folds it, too. Each finds what the other has done.
///
/// (Seen to fail where an append leaves the lease to a worker that holds it: the worker stopped at an event that it found folded.)
pub async fn r9_an_ordinary_projector_beside_appends_folds_nothing_twice<S: ServiceStore + Clone>(store: &S) {
    let service = accounts(store).inline(Histories).start().await.expect("it starts");
    serves::<Histories>(&service).await;
    let shutdown = CancellationToken::new();
    let running = spawn(projector(Histories, store), &shutdown);
    let mut clients = JoinSet::new();
    for client in 0..4 {
        let (service, id) = (service.clone(), format!("a{client}"));
        clients.spawn(async move {
            for written in 1..=40 {
                deposit(&service, &id, 1).await.expect("executed");
                let history = service.read_model::<Histories>().get(&id).await.expect("it serves");
                assert_eq!(history.map(|versions| versions.len()), Some(written));
            }
        });
    }
    clients.join_all().await;
    assert_is_the_fold(Histories, &service).await;
    shutdown.cancel();
    running.await.expect("no panic").expect("it stops in order");
    service.shutdown(PATIENCE).await.expect("it ends");
}
