//! The processes of a run: relays, projectors, policies and consumers.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Stdio},
    time::{Duration, Instant},
};

use es_core::{
    Consumer, Policy,
    service::{PartKind, Parts, RELAY, ShutdownError},
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use super::{
    domain::{Bank, Copying},
    ground::Ground,
    shim::Control,
};
use crate::cluster::{command, spawn};

/// How long a process may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(20);

/// What a process of a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Role {
    Relay,
    Projector,
    Policy,
    Consumer,
}

impl Role {
    fn parts(self) -> Parts {
        match self {
            Self::Relay => Parts::named([RELAY]),
            Self::Projector => Parts::Kind(PartKind::Projection),
            Self::Policy => Parts::named([Copying::NAME]),
            Self::Consumer => Parts::named([Bank::NAME]),
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Projector => "projector",
            Self::Policy => "policy",
            Self::Consumer => "consumer",
        }
    }
}

/// The part of a run that a process takes, as its argument.
#[expect(
    clippy::unsafe_derive_deserialize,
    reason = "the macro `select!` has it inside, and touches none of the fields"
)]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    pub(crate) role: Role,
    pub(crate) ground: Ground,
}

impl Part {
    /// Takes the part, in the process that was started for it, until its standard input ends.
    ///
    /// # Errors
    /// When an engine has stopped by itself, or does not end in time.
    pub async fn take(self) -> Result<(), Box<dyn std::error::Error>> {
        let filter = tracing_subscriber::EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(io::stderr).init();
        let service = self.ground.start(self.role.parts()).await;
        let (over, asked) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            let _ = over.send(());
        });
        let stopped = async {
            loop {
                let stopped = service.status().await.stopped();
                if !stopped.is_empty() {
                    return stopped;
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            _ = asked => {}
            stopped = stopped => return Err(stopped.join("; ").into()),
        }
        match service.shutdown(GRACE / 2).await {
            // It waits for brokers that do not answer: after its time it is dropped, as is promised (R16).
            Err(late @ ShutdownError::Late { .. }) => tracing::warn!("{late}"),
            ended => ended?,
        }
        Ok(())
    }
}

/// Starts processes of a run.
#[derive(Debug, Clone)]
pub(crate) struct Starter {
    program: PathBuf,
    ground: Ground,
    directory: PathBuf,
}

impl Starter {
    /// `program` takes [parts](Part); the processes log into `directory`.
    pub(crate) fn new(program: &Path, ground: &Ground, directory: &Path) -> Self {
        Self { program: program.to_owned(), ground: ground.clone(), directory: directory.to_owned() }
    }

    /// Where the processes log.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts a process; `name` is that of its log.
    pub(crate) fn start(&self, role: Role, name: &str, control: Option<&Control>) -> io::Result<Process> {
        let part = Part { role, ground: self.ground.clone() };
        let log = self.directory.join(format!("{name}.log"));
        // A process that was killed leaves its lines to the next one of its name.
        let output = File::options().create(true).append(true).open(&log)?;
        let mut command = command(&self.program);
        command
            .args(["--part", &serde_json::to_string(&part)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(output);
        if let Some(control) = control {
            command.envs(control.environment(&self.directory));
        }
        let mut child = spawn(command)?;
        Ok(Process { alive: child.stdin.take(), child, log })
    }
}

/// A process of a run, which is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Its end asks the process to end.
    alive: Option<ChildStdin>,
    log: PathBuf,
}

impl Process {
    /// Its number in the system.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it in the middle of its work.
    pub(crate) fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it continue.
    pub(crate) fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        // It is no error that it has ended.
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Why it has ended, if it has; none of these ends by itself.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it has logged nothing");
        Some(format!("{status}: {last} (log: {})", self.log.display()))
    }

    /// Asks it to end, and waits for that; an error when it does not end in good order.
    pub(crate) async fn end(&mut self) -> Result<(), String> {
        drop(self.alive.take());
        let asked = Instant::now();
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(_)) => return Err(self.ended().unwrap_or_default()),
                Ok(None) if asked.elapsed() < GRACE => tokio::time::sleep(Duration::from_millis(20)).await,
                Ok(None) => return Err(format!("it does not end within {GRACE:?} (log: {})", self.log.display())),
                Err(error) => return Err(error.to_string()),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
