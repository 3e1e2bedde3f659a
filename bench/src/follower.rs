//! What follows a log that another task or process writes: a projector, and a reader that waits for one write after the other.

use std::{
    collections::BTreeMap,
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use es_core::{LogSource, Position, Projector, QueryError, ReadModel, ReadToken, ServiceStore};
use es_postgres::PostgresStore;
use es_sqlite::SqliteStore;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{embedded, ours::Balances};

/// When which position was visible, in nanoseconds since 1970: processes compare them.
pub(crate) type Seen = BTreeMap<u64, u64>;

/// Only a failing measurement waits this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Now, as in [`Seen`].
pub(crate) fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A store of its own, which shares nothing in memory with others.
pub(crate) async fn open(url: &str) -> Result<Arc<dyn ServiceStore>> {
    Ok(if embedded::is_file(url) {
        Arc::new(SqliteStore::open(embedded::path(url)).await?)
    } else {
        Arc::new(PostgresStore::options(url).schema("public").connect().await?)
    })
}

/// Closes it.
pub(crate) async fn close(store: &dyn ServiceStore) -> Result<()> {
    store.close().await.map_err(|cause| anyhow::anyhow!(cause))
}

/// What a follower does.
#[derive(Debug, Clone, Copy, Default, Args)]
pub(crate) struct Role {
    /// Keeps the read model.
    #[arg(long)]
    pub(crate) projects: bool,
    /// Waits for each write.
    #[arg(long)]
    pub(crate) waits: bool,
}

/// A follower in this process.
pub(crate) struct Follower {
    stop: CancellationToken,
    projecting: Option<JoinHandle<Result<()>>>,
    waiting: Option<(JoinHandle<Result<Seen>>, watch::Receiver<u64>)>,
}

impl Follower {
    /// Begins to follow `store` from its end, and returns when the read model serves.
    pub(crate) async fn start(store: &Arc<dyn ServiceStore>, role: Role) -> Result<Self> {
        let stop = CancellationToken::new();
        let head = store.head().await?;
        let projecting = role.projects.then(|| {
            let projector = Projector::new(Balances::<0>, LogSource::new(store.clone()), store.clone());
            let stop = stop.clone();
            tokio::spawn(async move { Ok(projector.run(stop).await?) })
        });
        if role.projects {
            serves(store, head).await?;
        }
        let waiting = role.waits.then(|| {
            let (sender, last) = watch::channel(head.get());
            (tokio::spawn(wait(store.clone(), head, sender, stop.clone())), last)
        });
        Ok(Self { stop, projecting, waiting })
    }

    /// Ends it when it has seen `last`.
    pub(crate) async fn end(self, last: u64) -> Result<Seen> {
        let mut seen = Seen::new();
        if let Some((waiting, mut seen_last)) = self.waiting {
            tokio::time::timeout(PATIENCE, seen_last.wait_for(|seen| *seen >= last))
                .await
                .context("it is not visible")??;
            self.stop.cancel();
            seen = waiting.await??;
        }
        self.stop.cancel();
        if let Some(projecting) = self.projecting {
            projecting.await??;
        }
        Ok(seen)
    }
}

async fn serves(store: &Arc<dyn ServiceStore>, head: Position) -> Result<()> {
    let model = ReadModel::<Balances>::new(store.clone());
    while let Err(QueryError::Building { .. }) = model.wait_for(ReadToken(head), PATIENCE).await {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn wait(
    store: Arc<dyn ServiceStore>,
    mut after: Position,
    last: watch::Sender<u64>,
    stop: CancellationToken,
) -> Result<Seen> {
    let model = ReadModel::<Balances>::new(store);
    let mut seen = Seen::new();
    loop {
        after = after.next();
        match stop.run_until_cancelled(model.wait_for(ReadToken(after), Duration::MAX)).await {
            None => return Ok(seen),
            Some(visible) => visible?,
        }
        seen.insert(after.get(), now());
        last.send_replace(after.get());
    }
}

/// A follower in a process of its own.
pub(crate) struct Elsewhere {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Elsewhere {
    /// Starts this program again; returns when it follows.
    pub(crate) async fn start(url: &str, role: Role) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env("DATABASE_URL", url).arg("follow");
        command.args(role.projects.then_some("--projects")).args(role.waits.then_some("--waits"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let input = child.stdin.take().context("a child has an input")?;
        let mut output = BufReader::new(child.stdout.take().context("a child has an output")?).lines();
        ensure!(output.next_line().await?.as_deref() == Some("ready"), "a child has failed");
        Ok(Self { child, input, output })
    }

    /// Its process.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Ends it when it has seen `last`.
    pub(crate) async fn end(mut self, last: u64) -> Result<Seen> {
        self.input.write_all(format!("{last}\n").as_bytes()).await?;
        let report: Report = serde_json::from_str(&self.output.next_line().await?.context("a child has failed")?)?;
        ensure!(self.child.wait().await?.success(), "a child has failed");
        Ok(report.seen.into_iter().collect())
    }
}

/// What a child reports.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    seen: Vec<(u64, u64)>,
}

impl Role {
    /// What a child does.
    pub(crate) async fn obey(self, url: &str) -> Result<()> {
        let store = open(url).await?;
        let follower = Follower::start(&store, self).await?;
        println!("ready");
        let last = BufReader::new(tokio::io::stdin()).lines().next_line().await?.context("the parent is gone")?;
        let seen = follower.end(last.parse()?).await?.into_iter().collect();
        close(&*store).await?;
        println!("{}", serde_json::to_string(&Report { seen })?);
        Ok(())
    }
}
