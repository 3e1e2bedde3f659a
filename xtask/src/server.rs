//! One server process: watched until it is ready, stopped when dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::children::{self, TICK};
use crate::interrupt::Interrupt;
use crate::{Failure, Result};

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    child: Child,
    log: PathBuf,
    ready: &'static str,
    stop: Signal,
}

impl Server {
    /// Manages a process that was just started.
    pub(crate) fn new(
        name: &'static str,
        child: Child,
        log: PathBuf,
        ready: &'static str,
        stop: Signal,
        pid_file: PathBuf,
    ) -> Result<Self> {
        let server = Self { name, child, log, ready, stop };
        // For the next run, if this one cannot stop it.
        fs::write(pid_file, server.child.id().to_string())
            .map_err(|error| Failure::cannot(format!("start {name}"), error))?;
        Ok(server)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Waits for the line of the log that says that it accepts connections. Returns false if its port was taken.
    pub(crate) fn wait_until_ready(&mut self, interrupt: &Interrupt) -> Result<bool> {
        let started = Instant::now();
        let what = format!("start {}", self.name);
        loop {
            let ended = self.child.try_wait().map_err(|error| Failure::cannot(&what, error))?;
            let log = String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned();
            if let Some(status) = ended {
                let taken = ["Address already in use", "could not bind", "BindException"];
                if taken.iter().any(|message| log.contains(message)) {
                    return Ok(false);
                }
                return Err(Failure::cannot(&what, format!("{status}: {}", self.kept_reason())));
            }
            if log.contains(self.ready) {
                return Ok(true);
            }
            if started.elapsed() > PATIENCE {
                let why = format!("not ready after {} s: {}", PATIENCE.as_secs(), self.kept_reason());
                return Err(Failure::cannot(&what, why));
            }
            interrupt.check()?;
            thread::sleep(TICK);
        }
    }

    /// Why it failed, according to its log. The log is moved out of the directory of the run, which is deleted.
    fn kept_reason(&self) -> String {
        let kept = self.log.parent().and_then(Path::parent).zip(self.log.file_name());
        let kept = kept.map(|(home, name)| home.join(format!("failed-{}", name.to_string_lossy())));
        match kept.filter(|kept| fs::copy(&self.log, kept).is_ok()) {
            Some(kept) => children::reason(&kept),
            None => children::reason(&self.log),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        children::end(&mut self.child, self.stop);
    }
}
