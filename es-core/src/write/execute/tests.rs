use std::{
    future::{self, Future},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use tokio::sync::Semaphore;

use super::{ExecuteError, Repository, finish::Finished};
use crate::{
    stream::{Conflict, Expected, Version},
    testing::account::{Account, AccountCommand},
    write::{
        scripted::{Fate, Scripted},
        store::AppendError,
    },
};

fn conflict(accounts: &Repository<Account>) -> Fate {
    let stream = accounts.stream("a").expect("a valid name");
    Fate::Fails(AppendError::Conflict(Conflict { stream, expected: Expected::NoStream, actual: Version::new(7) }))
}

fn accounts(conflicts: usize) -> (Arc<Scripted>, Repository<Account>) {
    let names = Repository::<Account>::new(Scripted::new([]));
    let store = Arc::new(Scripted::new((0..conflicts).map(|_| conflict(&names))));
    (store.clone(), Repository::new(store))
}

#[tokio::test]
async fn a_command_is_tried_as_often_as_it_may_be() {
    let (store, accounts) = accounts(2);
    accounts.attempts(3).execute("a", AccountCommand::Deposit(1)).await.expect("the third attempt is written");
    assert_eq!(store.appends(), 3);
}

#[tokio::test]
async fn a_command_that_meets_a_conflict_each_time_ends_and_may_be_tried_again() {
    let (store, accounts) = accounts(100);
    let error = accounts.attempts(3).execute("a", AccountCommand::Deposit(1)).await.expect_err("a conflict each time");
    assert!(matches!(error, ExecuteError::Contended { attempts: 3 }), "{error}");
    assert!(error.is_transient());
    assert_eq!(store.appends(), 3);
}

/// Seen to fail where the second command is decided on what is written: it meets a conflict.
#[tokio::test]
async fn a_command_is_decided_on_what_the_command_before_it_has_sent() {
    let store = Arc::new(Scripted::new([Fate::Waits, Fate::Waits]));
    let accounts = Repository::<Account>::new(store.clone());
    let mut first = Box::pin(accounts.execute("a", AccountCommand::Deposit(1)));
    assert!(poll(first.as_mut()).await.is_pending());
    let mut second = Box::pin(accounts.execute("a", AccountCommand::Withdraw(1)));
    assert!(poll(second.as_mut()).await.is_pending());
    assert_eq!(store.appends(), 2);
    store.let_through();
    store.let_through();
    first.await.expect("deposited");
    second.await.expect("withdrawn");
    assert_eq!(accounts.load("a").await.expect("loaded").state.balance, 0);
}

/// Polls once.
async fn poll<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// A future that counts when it ends, and ends at its second poll.
fn counted(ended: &Arc<AtomicUsize>) -> impl Future<Output = ()> + Send + 'static {
    let ended = ended.clone();
    async move {
        tokio::task::yield_now().await;
        ended.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn r7_an_append_that_was_sent_is_finished_without_its_caller() {
    let (ended, places) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(1)));
    let mut sent = [(); 2].map(|()| Finished::new(counted(&ended), places.clone()));
    for append in &mut sent {
        assert!(poll(Pin::new(append)).await.is_pending());
    }
    drop(Finished::new(counted(&ended), places.clone()));
    drop(sent);
    // One at a time (R17); one that was not sent is not begun.
    assert_eq!(places.available_permits(), 0);
    let place = places.acquire().await.expect("open");
    assert_eq!(ended.load(Ordering::SeqCst), 1);
    drop(place);
}
