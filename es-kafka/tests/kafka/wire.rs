//! The network between relay and broker fails.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use es_core::Position;
use es_kafka::{Relay, RelayConfig, Step};
use es_testing::wire::Wire;

use crate::{
    relay::assert_published_once,
    setup::{House, Running, brokers},
};

/// Requests of the protocol by their numbers: records for a partition, and the end of a transaction.
const PRODUCE: i16 = 0;
const END_TRANSACTION: i16 = 26;

/// A wire to the broker. Brokers tell clients where they are, so their answers get its port in place of their own.
async fn wire() -> Wire {
    let brokers = brokers();
    let (host, port) = brokers.rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    let address = [host.as_bytes(), &i32::from(port).to_be_bytes()].concat();
    let rewrite = move |own: u16, answer: &mut [u8]| {
        let mut at = 0;
        while let Some(found) = answer[at..].windows(address.len()).position(|window| window == address) {
            at += found + address.len();
            answer[at - 4..at].copy_from_slice(&i32::from(own).to_be_bytes());
        }
    };
    Wire::of_messages((host.to_owned(), port), rewrite).await.unwrap()
}

/// The broker has got the records or has committed, and the connection ends before the relay hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn r10_a_connection_that_is_cut_during_a_commit_loses_and_repeats_nothing() {
    let house = House::new();
    let (wire, cuts) = (Arc::new(wire().await), Arc::new(AtomicUsize::new(0)));
    let mut last = Position::ZERO;
    for id in ["a", "b", "c"] {
        last = house.append("order", id, 20).await.position;
    }
    let through = RelayConfig { brokers: format!("127.0.0.1:{}", wire.port), batch_events: 10, ..house.config() };
    let cut = {
        let (wire, cuts) = (wire.clone(), cuts.clone());
        move |number: i16| {
            let cuts = cuts.clone();
            wire.cut_answer_to(move |request| {
                // The number of a request follows the length of the message.
                let is_it = request[4..6] == number.to_be_bytes();
                cuts.fetch_add(usize::from(is_it), Ordering::SeqCst);
                is_it
            });
        }
    };
    let relay = Relay::new(house.store.clone(), through).at_each_step(move |step| {
        match step {
            Step::BeforeCommit => cut(END_TRANSACTION),
            Step::Committed => cut(PRODUCE),
            _ => {}
        }
        ControlFlow::Continue(())
    });
    let mut relay = Running::start(relay);
    relay.reaches(last).await;
    relay.stop().await.unwrap();
    // Six transactions: six commits, and the records of all but the first.
    assert!(cuts.load(Ordering::SeqCst) >= 11, "only {cuts:?} cuts");
    assert_published_once(&house.published(last).await, last);
}
