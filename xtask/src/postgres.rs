//! A private Postgres.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::home::Home;
use crate::interrupt::Interrupt;
use crate::server::Server;
use crate::{Failure, Result, children};

const READY: &str = "database system is ready to accept connections";

/// Immediate shutdown: Postgres ends at once, but frees its shared memory, which `kill -9` does not.
const STOP: Signal = Signal::QUIT;

/// Settings that make tests quick.
pub(crate) const FOR_TESTS: &[&str] = &[
    // Every test has a connection pool of its own.
    "max_connections=400",
    // The data need not survive a crash of the machine. synchronous_commit stays on: it changes what the suites observe,
    // fsync does not.
    "fsync=off",
];

/// Settings of a small deployment that keeps what it has acknowledged, so that measurements show what a user would get.
pub(crate) const AS_DEPLOYED: &[&str] =
    &["fsync=on", "synchronous_commit=on", "shared_buffers=512MB", "max_wal_size=8GB", "max_connections=400"];

/// Creates the data directory that is copied for every run: faster than `initdb` for each run.
pub(crate) fn create_template(home: &Home, interrupt: &Interrupt) -> Result<()> {
    let data = home.path.join("postgres-template");
    let failed = |error| Failure::cannot(format!("create {}", data.display()), error);
    fs::create_dir_all(&data).map_err(failed)?;
    if let Some(account) = &home.account {
        chown(&data, Some(account.user), Some(account.group)).map_err(failed)?;
    }
    let mut initdb = command(home, "initdb", Signal::KILL);
    initdb.arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust"]);
    initdb.args(["-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]);
    children::run_quietly(initdb, "create a Postgres cluster", &home.path.join("initdb.log"), interrupt)
}

/// Copies the template into the directory of the run and returns the path of the copy.
pub(crate) fn copy_template(home: &Home, run: &Path, interrupt: &Interrupt) -> Result<PathBuf> {
    let data = run.join("postgres");
    // cp keeps the owner and the modes, which Postgres checks.
    let mut copy = children::mortal(Path::new("cp"), Signal::KILL);
    copy.arg("-Rp").arg(home.path.join("postgres-template")).arg(&data);
    children::run_quietly(copy, "copy the Postgres template", &run.join("cp.log"), interrupt)?;
    Ok(data)
}

/// Starts Postgres on the port, with the copy of the template and the settings.
pub(crate) fn spawn(home: &Home, run: &Path, data: &Path, port: u16, settings: &[&str]) -> Result<Server> {
    let log = run.join("postgres.log");
    let failed = |error| Failure::cannot("start Postgres", error);
    let output = File::create(&log).map_err(failed)?;
    // The server itself and not pg_ctl: the kernel ends only direct children together with this process.
    let mut postgres = command(home, "postgres", STOP);
    postgres.arg("-D").arg(data).arg("-p").arg(port.to_string());
    for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories="].iter().chain(settings) {
        postgres.args(["-c", setting]);
    }
    postgres.stdin(Stdio::null()).stdout(output.try_clone().map_err(failed)?).stderr(output);
    // In a process group of its own: Ctrl-C must not stop the server before the tests that use it.
    let child = postgres.process_group(0).spawn().map_err(failed)?;
    Server::new("Postgres", child, log, READY, STOP, run.join("postgres.pid"))
}

/// Whether this server answers on its port, and not another one that has taken the port.
pub(crate) fn answers(port: u16) -> bool {
    TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(2)).is_ok()
}

/// A program of Postgres, run under the account of the servers.
fn command(home: &Home, program: &str, signal: Signal) -> Command {
    let mut command = children::mortal(&home.path.join("postgres/bin").join(program), signal);
    // English messages, since the log is searched for one of them; and a working directory that every account may use.
    command.env("LC_ALL", "C").current_dir("/");
    if let Some(account) = &home.account {
        command.uid(account.user).gid(account.group);
    }
    command
}
