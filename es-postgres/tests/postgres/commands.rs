//! Commands of one process on one aggregate, decided one after the other before any of them is written.

use es_core::{
    Append, AppendError, EventStore, Expected, NewEvent, Repository, StreamId, Version,
    testing::account::{Account, AccountCommand, AccountEvent},
};
use tokio::task::JoinSet;

use super::server::{Schema, exact, soon};

fn stream(id: &str) -> StreamId {
    StreamId::new("account", id).unwrap()
}

/// Another session's event takes the place of the one on which the second command was decided.
///
/// It can lose: where a state's append expects its version and not its last event, the withdrawal finds the
/// version that it expects, is written, and the account is overdrawn.
#[tokio::test(flavor = "multi_thread")]
async fn r2_what_was_decided_on_an_event_that_never_came_is_decided_again() {
    let schema = Schema::new();
    let store = schema.store().await;
    let accounts = Repository::<Account>::new(store.clone());
    accounts.execute("a", AccountCommand::Deposit(10)).await.unwrap();

    let (mut other, mut watcher) = (schema.session().await, schema.session().await);
    other.run("BEGIN").await;
    let foreign = NewEvent::of(&AccountEvent::Deposited { amount: 1 }).unwrap();
    store.append_in(&mut other.0, Append::new(stream("a"), exact(1), vec![foreign])).await.unwrap();

    let deposit = tokio::spawn({
        let accounts = accounts.clone();
        async move { accounts.execute("a", AccountCommand::Deposit(100)).await }
    });
    watcher.until_blocked(&schema, 1).await;
    let mut withdrawal = Box::pin(accounts.execute("a", AccountCommand::Withdraw(105)));
    // One poll decides it and puts its append into the queue.
    tokio::select! { biased; _ = &mut withdrawal => panic!("the append lock is held"), () = async {} => {} }
    other.run("COMMIT").await;
    let deposit = soon(deposit).await.unwrap().unwrap();
    // Until the deposit is there the withdrawal is refused, on a state that was read.
    let withdrawn = match soon(withdrawal).await {
        Ok(receipt) => {
            assert!(receipt.version > deposit.version);
            105
        }
        Err(_) => 0,
    };
    let account = Repository::<Account>::new(store.clone()).load("a").await.expect("never overdrawn");
    assert_eq!(account.state.balance, 111 - withdrawn);
}

/// Commands on a hot aggregate share commits.
#[tokio::test(flavor = "multi_thread")]
async fn commands_that_are_decided_while_the_append_lock_is_taken_are_written_with_one_commit() {
    let schema = Schema::new();
    let store = schema.store().await;
    let accounts = Repository::<Account>::new(store.clone());
    accounts.execute("a", AccountCommand::Deposit(1)).await.unwrap();
    let (mut holder, mut watcher) = (schema.session().await, schema.session().await);
    holder.hold_append_lock().await;
    let mut clients = JoinSet::new();
    let execute = |amount| {
        let accounts = accounts.clone();
        async move { accounts.execute("a", AccountCommand::Deposit(amount)).await.unwrap() }
    };
    clients.spawn(execute(1));
    watcher.until_blocked(&schema, 1).await;
    let mut others: Vec<_> = (0..40).map(|amount| Box::pin(execute(amount + 1))).collect();
    for other in &mut others {
        tokio::select! { biased; _ = other => panic!("the append lock is held"), () = async {} => {} }
    }
    holder.run("COMMIT").await;
    soon(clients.join_all()).await;
    for (version, other) in (3..).zip(others) {
        assert_eq!(soon(other).await.version, Version::new(version), "in the order of the decisions");
    }
    let transactions = "SELECT count(DISTINCT xmin::text) FROM events WHERE stream = 'account-a'";
    assert_eq!(watcher.number(transactions).await, 3);
}

/// A chain that meets a foreign event is refused link by link, without a look at each.
#[tokio::test(flavor = "multi_thread")]
async fn r2_two_processes_on_one_aggregate_lose_nothing() {
    let schema = Schema::new();
    let processes = [schema.store().await, schema.store().await].map(|store| Repository::<Account>::new(store.clone()));
    let mut clients = JoinSet::new();
    for client in 0..32 {
        let accounts = processes[client % 2].clone().attempts(10_000);
        clients.spawn(async move {
            for _ in 0..10 {
                accounts.execute("hot", AccountCommand::Deposit(1)).await.unwrap();
            }
        });
    }
    soon(clients.join_all()).await;
    let account = processes[0].load("hot").await.unwrap();
    assert_eq!((account.state.balance, account.version), (320, Version::new(320)));
}

/// A state of another history, for example of before a failover that lost the tail of the log, is found out
/// by the append itself.
#[tokio::test(flavor = "multi_thread")]
async fn r2_no_event_follows_one_of_another_history() {
    let schema = Schema::new();
    let store = schema.store().await;
    let accounts = Repository::<Account>::new(store.clone());
    accounts.execute("a", AccountCommand::Deposit(100)).await.unwrap();
    let mut session = schema.session().await;
    // The event is lost, and another one stands in its place.
    session.run("ALTER TABLE events DISABLE TRIGGER events_append_only; DELETE FROM events").await;
    let other = NewEvent::of(&AccountEvent::Deposited { amount: 1 }).unwrap();
    store.append(Append::new(stream("a"), Expected::NoStream, vec![other])).await.unwrap();
    assert!(accounts.execute("a", AccountCommand::Withdraw(50)).await.is_err(), "there is not so much on it");
    accounts.execute("a", AccountCommand::Withdraw(1)).await.unwrap();
    let stale = Append::new(stream("a"), exact(1), vec![NewEvent::of(&AccountEvent::Deposited { amount: 1 }).unwrap()]);
    assert!(matches!(store.append(stale).await, Err(AppendError::Conflict(_))));
}
