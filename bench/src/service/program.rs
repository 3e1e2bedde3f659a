//! The order service as processes: built, started, ended.

use std::{env, net::SocketAddr, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use uuid::Uuid;

use super::http::Connection;
use crate::{embedded, usage};

/// Where its release build is, as seen from this directory.
const PROGRAM: &str = "../target/release/order-service";

/// What runs beside the API where Kafka carries the events.
const BESIDE: [&[&str]; 6] = [
    &["publish"],
    &["saga"],
    &["project", "order-details", "orders-by-customer", "order-search"],
    &["project", "daily-revenue"],
    &["project", "audit-trail", "stock"],
    &["project", "order-funnel"],
];

/// Builds it as its users do.
pub(super) async fn build(with_kafka: bool) -> Result<()> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--release", "--locked", "--package", "order-service"]);
    build.args(with_kafka.then_some(["--features", "kafka"]).into_iter().flatten());
    ensure!(build.current_dir("..").status().await?.success(), "the order service cannot be built");
    Ok(())
}

/// What a service runs on.
pub(super) struct Ground {
    arguments: Vec<String>,
    has_kafka: bool,
}

impl Ground {
    /// The database of `url`.
    pub(super) fn of(url: &str) -> Self {
        let (option, value) = if embedded::is_file(url) { ("--db", embedded::path(url)) } else { ("--store", url) };
        Self { arguments: vec![option.to_owned(), value.to_owned()], has_kafka: false }
    }

    /// The database of `url`, and new topics.
    pub(super) fn with_kafka(url: &str) -> Result<Self> {
        let Self { mut arguments, .. } = Self::of(url);
        let brokers = env::var("KAFKA_BROKERS").context("KAFKA_BROKERS names no broker")?;
        let prefix = format!("bench-{}.", Uuid::now_v7().simple());
        arguments.extend(["--kafka".to_owned(), brokers, "--topic-prefix".to_owned(), prefix]);
        Ok(Self { arguments, has_kafka: true })
    }

    /// Starts a process with this role.
    pub(super) fn spawn(&self, role: &[&str]) -> Result<Child> {
        let mut command = Command::new(PROGRAM);
        command.args(role).args(&self.arguments).args(["--listen", "127.0.0.1:0"]);
        command.stdout(Stdio::piped()).kill_on_drop(true);
        command.spawn().with_context(|| format!("cannot start {PROGRAM}"))
    }
}

/// A running service.
pub(super) struct Program {
    api: Child,
    beside: Vec<Child>,
    pub(super) address: SocketAddr,
}

impl Program {
    /// Starts it, and returns when it is ready.
    pub(super) async fn start(ground: &Ground) -> Result<Self> {
        let roles: &[&[&str]] = if ground.has_kafka { &BESIDE } else { &[] };
        Self::start_with(ground, roles).await
    }

    /// Starts the API with these processes beside it.
    pub(super) async fn start_with(ground: &Ground, roles: &[&[&str]]) -> Result<Self> {
        let api: &[&str] = if ground.has_kafka { &["serve", "--only-http"] } else { &["serve"] };
        let mut api = ground.spawn(api)?;
        let mut lines = BufReader::new(api.stdout.take().context("a child has an output")?).lines();
        let first = lines.next_line().await?.context("the service has ended")?;
        let address = first.strip_prefix("listening on http://").context("the service names no address")?.parse()?;
        // It must not wait for its output to be read.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        // One creates the tables, and the others find them.
        let mut connection = Connection::open(address).await?;
        while connection.get("/readyz").await?.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let beside = roles.iter().map(|role| ground.spawn(role)).collect::<Result<_>>()?;
        Ok(Self { api, beside, address })
    }

    /// The processor time that it has used.
    pub(super) fn seconds(&self) -> Option<f64> {
        [&self.api].into_iter().chain(&self.beside).map(|child| usage::seconds_of(child.id()?)).sum()
    }

    /// Ends it in good order.
    pub(super) async fn end(self) -> Result<()> {
        for mut child in [self.api].into_iter().chain(self.beside) {
            let process = child.id().context("the service has ended")?;
            let signalled = Command::new("kill").args(["-TERM", &process.to_string()]).status().await?;
            ensure!(signalled.success() && child.wait().await?.success(), "the service did not end in good order");
        }
        Ok(())
    }
}
