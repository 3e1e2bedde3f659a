//! How long events are not visible after the relay, or a process that follows Kafka, was killed, with the time-outs that both have by
//! themselves.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::process::Child;

use super::{
    Client,
    program::{Ground, Program},
    shown,
};
use crate::{
    database::Server,
    service::http::Connection,
    sheet::{Bound, Figure, Sheet},
};

/// How it is chosen on the command line.
const NAME: &str = "kafka-failover";

/// A measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failover;

/// What is killed: started last, it publishes; the orders of some partitions are its own.
const RELAY: &[&str] = &["publish"];
const READER: &[&str] = &["project", "order-details"];

/// Orders before a kill: every partition has some.
const ORDERS: usize = 24;

impl Failover {
    pub(crate) const NAME: &str = NAME;
    pub(crate) const TITLE: &str = "From kill -9 of a process until the next order is visible, Kafka between";

    /// Kills each kind of process once in each round, with a second one that stands by.
    pub(crate) async fn run(self, server: &Server, rounds: usize) -> Result<Sheet> {
        super::program::build(true).await?;
        let (mut relay, mut reader) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            let url = server.create(NAME, Duration::ZERO).await?;
            let ground = Ground::with_kafka(&url)?;
            let program = Program::start_with(&ground, &[RELAY, READER]).await?;
            let mut orders = Orders::open(&program).await?;
            // The relay that starts last publishes once the next event is there, and the readers share the partitions.
            orders.place(ORDERS).await?;
            let second = ground.spawn(READER)?;
            orders.settle().await?;
            reader.push(orders.after_the_end_of(second).await?);
            let second = ground.spawn(RELAY)?;
            orders.settle().await?;
            relay.push(orders.after_the_end_of(second).await?);
            eprintln!("{NAME:20} {round}/{rounds} relay {:.1} s, reader {:.1} s", relay[round - 1], reader[round - 1]);
            program.end().await?;
            server.drop(NAME).await?;
        }
        let figures = vec![
            Figure::of("the relay: s", relay, Some(Bound::AtMost(5.0))),
            Figure::of("one of two readers: s", reader, Some(Bound::AtMost(5.0))),
        ];
        Ok(Sheet { name: NAME.to_owned(), title: Self::TITLE.to_owned(), figures })
    }
}

/// Places orders, and looks whether they are visible.
struct Orders {
    client: Client,
    model: Connection,
}

impl Orders {
    async fn open(program: &Program) -> Result<Self> {
        let client =
            Client::open(program.address, &uuid::Uuid::now_v7().simple().to_string(), 0, <_>::default()).await?;
        Ok(Self { client, model: Connection::open(program.address).await? })
    }

    /// Returns when all of them are visible.
    async fn place(&mut self, orders: usize) -> Result<()> {
        let mut last = None;
        for _ in 0..orders {
            last = Some(self.client.place().await?.1);
        }
        let Some(last) = last else { return Ok(()) };
        shown(&mut self.model, &format!("/api/orders/{}?", last.order_id), &last.token).await
    }

    /// Places orders for as long as a new process needs to take its part.
    async fn settle(&mut self) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(10) {
            self.place(ORDERS).await?;
        }
        Ok(())
    }

    /// The seconds from the end of `process` until orders that were placed afterwards are visible.
    async fn after_the_end_of(&mut self, mut process: Child) -> Result<f64> {
        process.kill().await?;
        let killed = Instant::now();
        self.place(ORDERS).await?;
        Ok(killed.elapsed().as_secs_f64())
    }
}
