//! Several relays of one name: one publishes, the others stand by (R10, R18).

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use es_core::WorkerState;
use es_kafka::{RelayError, Step};

use crate::{
    relay::assert_published_once,
    setup::{House, Running},
};

/// Able to lose: with the transactions taken out of the producer, the older relay is not fenced and
/// continues to publish while the younger one does.
#[tokio::test(flavor = "multi_thread")]
async fn r10_of_two_relays_of_one_name_the_older_stands_by_and_publishes_nothing() {
    let house = House::new();
    house.append("order", "a", 15).await;
    let last = house.append("order", "b", 15).await.position;

    let (arrive, arrived) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let older = house.relay().at_each_step(move |step| {
        if step == Step::BeforeCommit {
            _ = arrive.send(());
            _ = released.lock().unwrap().recv();
        }
        ControlFlow::Continue(())
    });
    let mut older = Running::start(older);
    tokio::task::spawn_blocking(move || arrived.recv()).await.unwrap().unwrap();

    let mut younger = Running::start(house.relay());
    younger.reaches(last).await;
    release.send(()).unwrap();
    older.works(false).await;
    assert!(matches!(older.state(), WorkerState::StandingBy { .. }), "{:?}", older.state());

    let last = house.append("order", "a", 3).await.position;
    younger.reaches(last).await;
    // Longer than the older one waits for progress: without news there is nothing to take over.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(matches!(older.state(), WorkerState::StandingBy { .. }), "{:?}", older.state());
    assert_eq!(younger.state(), WorkerState::Working);
    older.stop().await.unwrap();
    younger.stop().await.unwrap();
    assert_published_once(&house.published(last).await, last);
}

/// Able to lose: a relay that ends when it is fenced takes nothing over.
#[tokio::test(flavor = "multi_thread")]
async fn r18_a_relay_that_stands_by_takes_over_within_ten_seconds_of_a_crash() {
    let house = House::new();
    let first = house.append("order", "a", 3).await.position;
    let mut standby = Running::start(house.relay());
    standby.reaches(first).await;

    let dies = Arc::new(AtomicBool::new(false));
    let told = dies.clone();
    // As after `kill -9`: the transaction stays open.
    let doomed = house.relay().at_each_step(move |step| match step {
        Step::BeforeCommit if told.load(Ordering::SeqCst) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let mut doomed = Running::start(doomed);
    doomed.reaches(first).await;
    let second = house.append("order", "b", 3).await.position;
    doomed.reaches(second).await;
    standby.works(false).await;

    dies.store(true, Ordering::SeqCst);
    let last = house.append("order", "a", 3).await.position;
    let crashed = doomed.ends().await;
    let since = Instant::now();
    assert!(matches!(crashed, Err(RelayError::Crashed)), "{crashed:?}");
    standby.reaches(last).await;
    let taken = since.elapsed();
    assert!(taken < Duration::from_secs(10), "it took {taken:?}");
    assert_eq!(standby.state(), WorkerState::Working);
    standby.stop().await.unwrap();
    assert_published_once(&house.published(last).await, last);
}
