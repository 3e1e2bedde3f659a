//! The processes of the proof, from outside.

use std::{
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use es_core::backend::BoxError;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use super::role::{Rebuild, Role, Told};

/// A process in its role. It is killed when this is dropped.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Its end tells the child that this process has ended.
    _alive: Option<ChildStdin>,
}

impl Process {
    fn start(program: &Path, role: &Role) -> Result<Self, BoxError> {
        let mut child = Command::new(program)
            .args(["--role", &serde_json::to_string(role)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        Ok(Self { _alive: child.stdin.take(), child, lines })
    }
}

/// The writers.
pub(super) struct Writers {
    reading: tokio::task::JoinHandle<()>,
    latencies: Arc<Mutex<Vec<Duration>>>,
}

impl Writers {
    /// Starts them in a process of their own.
    pub(super) fn start(program: &Path, url: &str, rate: u32, accounts: u64) -> Result<Self, BoxError> {
        let process = Process::start(program, &Role::Writer { url: url.to_owned(), rate, accounts })?;
        let latencies = Arc::<Mutex<Vec<_>>>::default();
        let noted = latencies.clone();
        let reading = tokio::spawn(async move {
            // All of it, and not its lines alone: dropping the rest kills it.
            let mut process = process;
            while let Ok(Some(line)) = process.lines.next_line().await {
                let took = Duration::from_micros(line.parse().unwrap_or(u64::MAX));
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(took);
            }
        });
        Ok(Self { reading, latencies })
    }

    /// How long the appends took that were answered since the last call.
    ///
    /// # Errors
    /// That the writers have ended.
    pub(super) fn take(&self) -> Result<Vec<Duration>, BoxError> {
        if self.reading.is_finished() {
            return Err("the writers have ended".into());
        }
        Ok(std::mem::take(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        // With it the process is dropped, and killed.
        self.reading.abort();
    }
}

/// A rebuild in a process of its own.
pub(super) struct Rebuilding(Process);

impl Rebuilding {
    pub(super) fn start(program: &Path, rebuild: Rebuild) -> Result<Self, BoxError> {
        Ok(Self(Process::start(program, &Role::Rebuild(rebuild))?))
    }

    /// What it tells next.
    pub(super) async fn next(&mut self) -> Result<Told, BoxError> {
        let line = self.0.lines.next_line().await?.ok_or("a rebuild has failed")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Waits until it is done; what it told at last.
    pub(super) async fn done(mut self) -> Result<Told, BoxError> {
        loop {
            let told = self.next().await?;
            if told.took.is_some() {
                self.0.child.wait().await?;
                return Ok(told);
            }
        }
    }

    /// Kills it with `kill -9`.
    pub(super) async fn kill(mut self) -> Result<(), BoxError> {
        Ok(self.0.child.kill().await?)
    }
}
