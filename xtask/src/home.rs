//! The directory of the servers: programs and templates that all runs share, and one private directory for each run.

use std::env;
use std::fs::{self, File, Permissions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::account::Account;
use crate::children::{self, TICK};
use crate::interrupt::Interrupt;
use crate::tools;
use crate::{Failure, Result, say};

/// The directory of the programs and templates.
#[derive(Debug)]
pub(crate) struct Home {
    /// The directory itself.
    pub(crate) path: PathBuf,
    /// The account that runs the servers, if it is not the user of this process.
    pub(crate) account: Option<Account>,
}

/// The private directory of one run. Its lock shows other runs that this one is alive: the kernel drops the lock when the
/// process ends.
#[derive(Debug)]
pub(crate) struct RunDirectory {
    /// The directory itself.
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Home {
    /// The directory below the workspace's `target`, or one below the system's temporary directory when the account the
    /// servers run under cannot reach the workspace.
    pub(crate) fn find() -> Result<Self> {
        let workspace = tools::workspace();
        let account = Account::for_servers()?;
        let mut path = workspace.join("target/servers");
        create(&path)?;
        if let Some(account) = &account
            && !reaches(account, &path)
        {
            let mut hasher = DefaultHasher::new();
            workspace.hash(&mut hasher);
            let elsewhere = env::temp_dir().join(format!("xtask-servers-{:016x}", hasher.finish()));
            create(&elsewhere)?;
            // Another user can create a directory of that name first. Root must not run programs from it.
            let found = fs::symlink_metadata(&elsewhere).map_err(|error| cannot_use(&elsewhere, &error))?;
            if !found.is_dir() || found.uid() != 0 {
                return Err(Failure::cannot(format!("use {}", elsewhere.display()), "it is not owned by root"));
            }
            say(format!(
                "{} cannot be reached by the user {}, under which root runs Postgres: the servers are in {}",
                path.display(),
                account.name,
                elsewhere.display()
            ));
            path = elsewhere;
        }
        Ok(Self { path, account })
    }

    /// Waits until no other run prepares anything here. The lock holds until the file is dropped.
    pub(crate) fn lock(&self, interrupt: &Interrupt) -> Result<File> {
        let path = self.path.join("lock");
        let failed = |error| Failure::cannot(format!("lock {}", path.display()), error);
        let file = File::create(&path).map_err(failed)?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        say("waiting for another run that prepares the servers");
                        told = true;
                    }
                    interrupt.check()?;
                    thread::sleep(TICK);
                }
            }
        }
    }

    /// Creates the directory of this run. The caller holds the lock, so that no other run takes it for one that has ended.
    pub(crate) fn create_run(&self) -> Result<RunDirectory> {
        let path = self.path.join(format!("run-{}", process::id()));
        create(&path)?;
        let lock = File::create(path.join("lock")).map_err(|error| cannot_use(&path, &error))?;
        lock.lock().map_err(|error| cannot_use(&path, &error))?;
        Ok(RunDirectory { path, _lock: lock })
    }

    /// Ends the servers of runs that were killed, and removes their directories. The caller holds the lock.
    pub(crate) fn clear_dead_runs(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let run = entry.path();
            if !entry.file_name().to_string_lossy().starts_with("run-") {
                continue;
            }
            let lives =
                File::open(run.join("lock")).is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
            if lives {
                continue;
            }
            end_left_over(&run, "postgres.pid", Signal::QUIT);
            end_left_over(&run, "kafka.pid", Signal::KILL);
            if let Err(error) = fs::remove_dir_all(&run) {
                say(format!("cannot remove {} of a run that was killed: {error}", run.display()));
            }
        }
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            say(format!("cannot remove {}: {error}", self.path.display()));
        }
    }
}

/// Ends the server of a killed run, if the process with that number still is that server: its command line names the run.
fn end_left_over(run: &Path, pid_file: &str, signal: Signal) {
    let Ok(pid) = fs::read_to_string(run.join(pid_file)) else {
        return;
    };
    let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) else {
        return;
    };
    let asked = Instant::now();
    let mut signal = signal;
    while tools::command_line(pid).contains(&*run.to_string_lossy()) {
        if asked.elapsed() > Duration::from_secs(5) {
            signal = Signal::KILL;
        }
        if asked.elapsed() > Duration::from_secs(8) {
            say(format!("process {pid} of a killed run does not end"));
            return;
        }
        children::send(signal, pid);
        thread::sleep(TICK * 3);
    }
}

/// Creates a directory that every user may search, with any umask.
pub(crate) fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::metadata(path))
        .and_then(|found| {
            // Only the owner may set the mode, and only the creator needs to.
            if found.mode() & 0o755 == 0o755 {
                return Ok(());
            }
            fs::set_permissions(path, Permissions::from_mode(0o755))
        })
        .map_err(|error| cannot_use(path, &error))
}

fn cannot_use(path: &Path, error: &std::io::Error) -> Failure {
    Failure::cannot(format!("use {}", path.display()), error)
}

/// Whether the account may search the directory and all above it. Only the kernel knows (modes, access lists, mounts).
fn reaches(account: &Account, path: &Path) -> bool {
    Command::new("sh")
        .args(["-c", "cd -- \"$1\" && test -x .", "sh"])
        .arg(path)
        .current_dir("/")
        .uid(account.user)
        .gid(account.group)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
