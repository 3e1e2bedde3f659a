//! The directory of the servers: programs and templates shared by all runs, and one private directory for each run.

use std::env;
use std::fs::{self, File, Permissions, TryLockError};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::account::Account;
use crate::children::{self, TICK};
use crate::interrupt::Interrupt;
use crate::tools;
use crate::{Failure, Result, say};

/// Where the programs and templates are.
#[derive(Debug)]
pub(crate) struct Home {
    /// The directory itself.
    pub(crate) path: PathBuf,
    /// Whose servers they are, when it is not the user of this process.
    pub(crate) account: Option<Account>,
}

/// The private directory of one run. Its lock tells other runs that this one lives: the kernel drops it with the process.
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
            // Anybody can create a directory of that name first; root must not run programs out of it.
            let found = fs::symlink_metadata(&elsewhere).map_err(|error| cannot_use(&elsewhere, &error))?;
            if !found.is_dir() || found.uid() != 0 {
                return Err(Failure::cannot(format!("use {}", elsewhere.display()), "it is not root's"));
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

    /// Waits until no other run prepares anything here; the lock holds until the file is dropped.
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

    /// Creates the directory of this run. The caller holds the lock, so that nobody takes it for a dead one meanwhile.
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
            end_left_over(&run, "postgres.pid", "QUIT");
            end_left_over(&run, "kafka.pid", "KILL");
            if let Err(error) = fs::remove_dir_all(&run) {
                say(format!("{} is left over and cannot be removed: {error}", run.display()));
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

/// Ends the server of a dead run, if the process of that number still is that server: its command line names the run.
fn end_left_over(run: &Path, pid_file: &str, signal: &str) {
    let Ok(pid) = fs::read_to_string(run.join(pid_file)) else {
        return;
    };
    let pid = pid.trim();
    let asked = Instant::now();
    let mut signal = signal;
    while !pid.is_empty() && tools::command_line(pid).contains(&*run.to_string_lossy()) {
        if asked.elapsed() > Duration::from_secs(5) {
            signal = "KILL";
        }
        if asked.elapsed() > Duration::from_secs(8) {
            say(format!("process {pid} of a dead run does not end"));
            return;
        }
        children::send(signal, pid);
        thread::sleep(TICK * 3);
    }
}

/// Creates a directory that every user may search, whatever the umask is.
pub(crate) fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .and_then(|()| fs::metadata(path))
        .and_then(|found| {
            // Only its owner may set the mode, and only then has to.
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

/// Whether the account may search the directory and all above it; only the kernel knows (modes, lists, mounts).
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
