//! Clients in processes of their own: this program starts itself, and all its children begin together.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use crate::{
    contender::{Task, Work},
    entrant::{Bare, Entrant},
    measure::{self, Finished, Loop, Timing},
};

/// What a child is told.
#[derive(Debug, Args)]
pub(crate) struct Order {
    /// Whether to do the bare work.
    #[arg(long)]
    bare: bool,
    #[arg(long)]
    clients: usize,
    #[arg(long)]
    warm_up_ms: u64,
    #[arg(long)]
    window_ms: u64,
}

/// What a child reports.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    /// Latencies in nanoseconds, and how often each occurred.
    latencies: Vec<(u64, u64)>,
    done: u64,
    client_seconds: Option<f64>,
}

/// A child that has connected its clients and waits for the word.
pub(crate) struct Ready {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

/// Starts a child; returns when it is ready.
pub(crate) async fn start(entrant: Entrant, task: &Task, timing: Timing) -> Result<Ready> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env("DATABASE_URL", &task.url).arg("child");
    if matches!(entrant, Entrant::Bare(_)) {
        command.arg("--bare");
    }
    command.args(["--clients", &task.clients.to_string()]);
    command.args(["--warm-up-ms", &timing.warm_up.as_millis().to_string()]);
    command.args(["--window-ms", &timing.window.as_millis().to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let output = child.stdout.take().context("a child has an output")?;
    let mut output = BufReader::new(output).lines();
    ensure!(output.next_line().await?.as_deref() == Some("ready"), "a child has failed");
    Ok(Ready { child, output })
}

/// Gives the word to all children, and collects what they did.
pub(crate) async fn drive(children: Vec<Ready>) -> Result<Finished> {
    let mut running = Vec::new();
    for mut ready in children {
        // Closing its input is the word.
        ready.child.stdin.take().context("a child has an input")?.shutdown().await?;
        running.push(ready);
    }
    let mut all = Finished { latencies: measure::histogram(), done: 0, client_seconds: Some(0.0) };
    for mut ready in running {
        let line = ready.output.next_line().await?.context("a child has failed")?;
        let report: Report = serde_json::from_str(&line)?;
        for (latency, times) in report.latencies {
            all.latencies.record_n(latency, times)?;
        }
        all.done += report.done;
        all.client_seconds = all.client_seconds.zip(report.client_seconds).map(|(sum, one)| sum + one);
        ensure!(ready.child.wait().await?.success(), "a child has failed");
    }
    Ok(all)
}

impl Order {
    /// What a child does.
    pub(crate) async fn obey(&self, url: &str) -> Result<()> {
        let entrant = if self.bare { Entrant::Bare(Bare::LockedBatch) } else { Entrant::Ours };
        let task = Task { url: url.to_owned(), work: Work::Execute, clients: self.clients };
        let contender = entrant.connect(&task).await?;
        let clients = measure::clients(&*contender, self.clients).await?;
        println!("ready");
        tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
        let begin = Instant::now() + Duration::from_millis(self.warm_up_ms);
        let window = begin..begin + Duration::from_millis(self.window_ms);
        let finished = measure::drive(clients, Loop::OwnAccounts, window).await?;
        let latencies = finished.latencies.iter_recorded();
        let latencies = latencies.map(|value| (value.value_iterated_to(), value.count_at_value())).collect();
        let report = Report { latencies, done: finished.done, client_seconds: finished.client_seconds };
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }
}
