//! The whole order service over HTTP: orders are placed on many connections, and some of them are followed until all read models show
//! them.

mod failover;
mod http;
mod program;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::Deserialize;
use tokio::task::JoinSet;
use uuid::Uuid;

pub(crate) use self::failover::Failover;
use self::{
    http::Connection,
    program::{Ground, Program},
};
use crate::{
    database::{Database, Server},
    embedded::Files,
    measure::{Timing, histogram},
    sheet::{Bound, Figure, Sheet},
};

/// How many connections place orders.
const CONNECTIONS: usize = 256;

/// How many of them follow each of their orders until it is visible, before they place the next one.
const FOLLOWED: usize = 4;

/// The same where a rate is given: each connection places few orders then.
const FOLLOWED_AT_A_RATE: usize = 16;

/// Where Kafka carries the events: readers join their groups again once the first topic is there, and their read models serve.
const UNTIL_READERS_ARE_THERE: Duration = Duration::from_secs(5);

/// The orders of a customer.
const ORDERS_PER_CUSTOMER: u64 = 10;

/// A measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OrderService {
    /// How it is chosen on the command line.
    pub(crate) name: &'static str,
    /// What it is, for people.
    pub(crate) title: &'static str,
    place: Place,
    /// How many orders are placed a second; as many as are answered where it is `None`.
    rate: Option<u32>,
}

/// Where the events are, and what carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Postgres,
    Sqlite,
    /// The log is on Postgres, and all read models follow Kafka, in processes of their own.
    Kafka,
}

const POSTGRES: &str = "The order service over HTTP, 256 connections";
const SQLITE: &str = "The order service over HTTP on SQLite, 256 connections";
const KAFKA: &str = "The order service over HTTP in seven processes with Kafka, 256 connections";

/// All of them, in the order of the report.
pub(crate) const ALL: [OrderService; 7] = [
    OrderService { name: "service", title: POSTGRES, place: Place::Postgres, rate: None },
    OrderService { name: "service-2000", title: POSTGRES, place: Place::Postgres, rate: Some(2_000) },
    OrderService { name: "sqlite-service", title: SQLITE, place: Place::Sqlite, rate: None },
    OrderService { name: "sqlite-service-2000", title: SQLITE, place: Place::Sqlite, rate: Some(2_000) },
    OrderService { name: "kafka-service", title: KAFKA, place: Place::Kafka, rate: None },
    OrderService { name: "kafka-service-200", title: KAFKA, place: Place::Kafka, rate: Some(200) },
    OrderService { name: "kafka-service-500", title: KAFKA, place: Place::Kafka, rate: Some(500) },
];

/// What a round gives.
struct Round {
    orders_per_second: f64,
    answered: Histogram<u64>,
    visible: Histogram<u64>,
    behind: Duration,
    service_seconds: Option<f64>,
}

impl OrderService {
    /// Measures on a new database in each round.
    pub(crate) async fn run(&self, server: &Server, rounds: usize, timing: Timing) -> Result<Sheet> {
        program::build(self.place == Place::Kafka).await?;
        let mut done = Vec::new();
        for round in 1..=rounds {
            let files = (self.place == Place::Sqlite).then(Files::new).transpose()?;
            let url = match &files {
                Some(files) => files.create(self.name),
                None => server.create(self.name, Duration::ZERO).await?,
            };
            let measured = self.round(&url, timing).await.with_context(|| self.name)?;
            eprintln!(
                "{:20} {round}/{rounds} {:>8.0}/s, answered p99 {:.1} ms, visible p99 {:.1} ms",
                self.name,
                measured.orders_per_second,
                milliseconds(&measured.answered, 0.99),
                milliseconds(&measured.visible, 0.99)
            );
            done.push(measured);
            if files.is_none() {
                server.drop(self.name).await?;
            }
        }
        let of = |figure: &dyn Fn(&Round) -> f64| done.iter().map(figure).collect::<Vec<_>>();
        let fast = (self.rate.is_none() && self.place != Place::Kafka).then_some(Bound::AtLeast(10_000.0));
        let mut figures = vec![
            Figure::of("orders a second", of(&|round| round.orders_per_second), fast),
            Figure::of("answered: p50 ms", of(&|round| milliseconds(&round.answered, 0.5)), None),
            Figure::of("answered: p99 ms", of(&|round| milliseconds(&round.answered, 0.99)), None),
            Figure::of("visible: p50 ms", of(&|round| milliseconds(&round.visible, 0.5)), None),
            Figure::of("visible: p99 ms", of(&|round| milliseconds(&round.visible, 0.99)), Some(Bound::AtMost(85.0))),
            Figure::of("all visible after the last answer: ms", of(&|round| round.behind.as_secs_f64() * 1e3), None),
        ];
        if done.iter().all(|round| round.service_seconds.is_some()) {
            let seconds = of(&|round| round.service_seconds.unwrap_or_default() / timing.window.as_secs_f64() * 100.0);
            figures.push(Figure::of("the service: % of a processor, all its processes", seconds, None));
        }
        let rate = self.rate.map_or("as fast as it answers".to_owned(), |rate| format!("{rate} orders a second"));
        Ok(Sheet { name: self.name.to_owned(), title: format!("{}, {rate}", self.title), figures })
    }

    async fn round(&self, url: &str, timing: Timing) -> Result<Round> {
        let ground = if self.place == Place::Kafka { Ground::with_kafka(url)? } else { Ground::of(url) };
        let program = Program::start(&ground).await?;
        let run = Uuid::now_v7().simple().to_string();
        let (placed, mut clients) = (Arc::new(AtomicU64::new(0)), JoinSet::new());
        // Topics are made with their first event, and readers find them some seconds later.
        let mut first = Client::open(program.address, &run, CONNECTIONS, placed.clone()).await?;
        let (customer, order) = first.place().await?;
        Models::open(program.address).await?.show_order(&customer, &order).await?;
        let begin = Instant::now();
        let warm_up = if self.place == Place::Kafka { UNTIL_READERS_ARE_THERE } else { timing.warm_up };
        let counts = begin + warm_up..begin + warm_up + timing.window;
        let followed = if self.rate.is_some() { FOLLOWED_AT_A_RATE } else { FOLLOWED };
        for number in 0..CONNECTIONS {
            let mut client = Client::open(program.address, &run, number, placed.clone()).await?;
            let models = if number < followed { Models::open(program.address).await?.into() } else { None };
            let every = self.rate.map(|rate| Duration::from_secs(1) * u32::try_from(CONNECTIONS).unwrap_or(1) / rate);
            let counts = counts.clone();
            clients.spawn(async move { client.repeat(models, every, number, begin, counts).await });
        }
        tokio::time::sleep_until(counts.start.into()).await;
        let before = program.seconds();
        tokio::time::sleep_until(counts.end.into()).await;
        let service_seconds = program.seconds().zip(before).map(|(after, before)| after - before);
        let (mut answered, mut visible, mut last) = (histogram(), histogram(), String::new());
        while let Some(client) = clients.join_next().await {
            let done = client??;
            answered.add(&done.answered)?;
            visible.add(&done.visible)?;
            last = later(last, done.last);
        }
        let ended = Instant::now();
        Models::open(program.address).await?.show(&run, &last).await?;
        let behind = ended.elapsed();
        program.end().await?;
        ensure!(!visible.is_empty(), "no order was followed");
        // Its log holds an event for each order that was placed, and nothing else.
        let log = if self.place == Place::Sqlite { "events" } else { "es.events" };
        let events = Database::open(url).await?.count(&format!("SELECT count(*) FROM {log}")).await?;
        let placed = placed.load(Ordering::Relaxed);
        ensure!(events == placed, "{placed} orders were placed, but the log holds {events} events");
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let orders_per_second = answered.len() as f64 / timing.window.as_secs_f64();
        Ok(Round { orders_per_second, answered, visible, behind, service_seconds })
    }
}

#[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 nanoseconds")]
fn milliseconds(times: &Histogram<u64>, share: f64) -> f64 {
    times.value_at_quantile(share) as f64 / 1e6
}

/// The later one of two tokens: `p` and a position.
fn later(one: String, other: String) -> String {
    let position = |token: &str| token.get(1..).and_then(|digits| digits.parse::<u64>().ok());
    if position(&one) < position(&other) { other } else { one }
}

/// Places orders, one after the other.
struct Client {
    connection: Connection,
    customer: String,
    placed: Arc<AtomicU64>,
    orders: u64,
}

/// What it did within the window.
struct Done {
    /// From a request to its answer, in nanoseconds.
    answered: Histogram<u64>,
    /// From a request until all read models showed the order.
    visible: Histogram<u64>,
    /// The last token.
    last: String,
}

/// The part of an answer that is used.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Placed {
    order_id: String,
    token: String,
}

impl Client {
    async fn open(address: SocketAddr, run: &str, number: usize, placed: Arc<AtomicU64>) -> Result<Self> {
        let customer = format!("USR-{}-{number}", &run[12..]);
        Ok(Self { connection: Connection::open(address).await?, customer, placed, orders: 0 })
    }

    /// Places orders until the end of the window, one `every` so often or without pauses.
    async fn repeat(
        &mut self,
        mut models: Option<Models>,
        every: Option<Duration>,
        number: usize,
        begin: Instant,
        counts: std::ops::Range<Instant>,
    ) -> Result<Done> {
        let mut done = Done { answered: histogram(), visible: histogram(), last: String::new() };
        // The connections take turns.
        let mut due = begin + every.unwrap_or_default() * u32::try_from(number)? / u32::try_from(CONNECTIONS)?;
        loop {
            // A request that is late counts from when it was due.
            let asked = if every.is_some() { due } else { Instant::now() };
            if asked >= counts.end {
                return Ok(done);
            }
            tokio::time::sleep_until(asked.into()).await;
            let (customer, placed) = self.place().await?;
            record(&mut done.answered, asked, &counts);
            if let Some(models) = &mut models {
                models.show_order(&customer, &placed).await?;
                record(&mut done.visible, asked, &counts);
            }
            done.last = placed.token;
            due += every.unwrap_or_default();
            if let (Some(every), Some(_)) = (every, &models) {
                // Following took its time; that is no delay of the next request.
                while due < Instant::now() {
                    due += every;
                }
            }
        }
    }

    async fn place(&mut self) -> Result<(String, Placed)> {
        let customer = format!("{}-{}", self.customer, self.orders / ORDERS_PER_CUSTOMER);
        self.orders += 1;
        let items = r#"[{"productId":"PROD-456","quantity":2,"price":49.99}]"#;
        let body = format!(r#"{{"userId":"{customer}","items":{items},"totalAmount":99.98}}"#);
        let answer = self.connection.post("/api/orders?drive=manual", &body).await?;
        ensure!(answer.status == 201, "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
        self.placed.fetch_add(1, Ordering::Relaxed);
        Ok((customer, serde_json::from_slice(&answer.body)?))
    }
}

fn record(times: &mut Histogram<u64>, since: Instant, counts: &std::ops::Range<Instant>) {
    let now = Instant::now();
    if counts.contains(&now) {
        times.saturating_record(u64::try_from((now - since).as_nanos()).unwrap_or(u64::MAX));
    }
}

/// The queries of five read models, each on a connection of its own.
struct Models([Connection; 5]);

impl Models {
    async fn open(address: SocketAddr) -> Result<Self> {
        let open = || Connection::open(address);
        Ok(Self([open().await?, open().await?, open().await?, open().await?, open().await?]))
    }

    /// Returns when all show the order.
    async fn show_order(&mut self, customer: &str, placed: &Placed) -> Result<()> {
        let Placed { order_id, token } = placed;
        self.ask(&format!("/api/orders/{order_id}?"), customer, token).await
    }

    /// Returns when all have reached `token`.
    async fn show(&mut self, customer: &str, token: &str) -> Result<()> {
        self.ask("/api/audit?limit=1&", customer, token).await
    }

    async fn ask(&mut self, first: &str, customer: &str, token: &str) -> Result<()> {
        let Self([details, by_customer, revenue, audit, search]) = self;
        let customers = format!("/api/customers/{customer}/orders?limit=1&");
        let found = format!("/api/orders/search?customer={customer}&limit=1&");
        tokio::try_join!(
            shown(details, first, token),
            shown(by_customer, &customers, token),
            shown(revenue, "/api/revenue?", token),
            shown(audit, "/api/audit?limit=1&", token),
            shown(search, &found, token),
        )?;
        Ok(())
    }
}

/// Returns when the answer to `path` contains the write of `token`. The service waits for some seconds, then it is asked again.
async fn shown(connection: &mut Connection, path: &str, token: &str) -> Result<()> {
    loop {
        let answer = connection.get(&format!("{path}after={token}")).await?;
        match answer.status {
            200 => return Ok(()),
            503 => {}
            status => anyhow::bail!("{path}: {status} {}", String::from_utf8_lossy(&answer.body)),
        }
    }
}
