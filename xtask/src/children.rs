//! Child processes, which never outlive this process.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::low_level::signal_name;

use crate::interrupt::Interrupt;
use crate::{Failure, Result};

/// How often a waiting loop polls.
pub(crate) const TICK: Duration = Duration::from_millis(20);

/// How long a command may take to end after a signal before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process group of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// A group of its own: everything that the command starts ends with it.
    Own,
    /// The group that owns the terminal: the command can read from it and gets Ctrl-C from it directly.
    Terminal,
}

/// A command whose process the kernel ends with `signal` when this process is killed and cannot do it (`kill -9`).
///
/// `setpriv` asks the kernel for it in the new process, which this process could do only with unsafe code, and under the
/// account of the command: a change of the account would cancel the request. The kernel ties the process to the thread that starts it, so it must be started from the main thread. On systems
/// without `setpriv` the next run ends the processes that were left over.
pub(crate) fn mortal(program: &Path, signal: Signal) -> Command {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    let supported = *SETPRIV.get_or_init(|| {
        let mut probe = Command::new("setpriv");
        probe.args(["--pdeathsig", "KILL", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    });
    if !supported {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal_name(signal.as_raw()).unwrap_or("KILL"), "--"]).arg(program);
    command
}

/// Runs a command that prepares something. Its output goes to `log` and is shown only if the command fails.
pub(crate) fn run_quietly(mut command: Command, what: &str, log: &Path, interrupt: &Interrupt) -> Result<()> {
    let failed = |error| Failure::cannot(what, error);
    let output = File::create(log).map_err(failed)?;
    command.stdin(Stdio::null()).stdout(output.try_clone().map_err(failed)?).stderr(output);
    let mut child = command.spawn().map_err(failed)?;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            if status.success() {
                return Ok(());
            }
            return Err(Failure::cannot(what, format!("{status}: {}", reason(log))));
        }
        if let Err(stopped) = interrupt.check() {
            // It may have ended already: the terminal sends Ctrl-C to it as well.
            let _ = child.kill();
            let _ = child.wait();
            return Err(stopped);
        }
        thread::sleep(TICK);
    }
}

/// Runs a command of the user to its end and returns its exit code. Signals that arrive meanwhile are forwarded.
pub(crate) fn run_to_end(mut command: Command, group: Group, interrupt: &Interrupt) -> Result<i32> {
    let name = format!("run {}", Path::new(command.get_program()).display());
    if group == Group::Own {
        command.process_group(0);
    }
    let mut child = command.spawn().map_err(|error| Failure::cannot(&name, error))?;
    let pid = Pid::from_child(&child);
    let send = |signal| match group {
        Group::Own => send_to_group(signal, pid),
        Group::Terminal => send(signal, pid),
    };
    let mut seen = 0;
    let mut since = None;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| Failure::cannot(&name, error))? {
            break status;
        }
        // The terminal has already sent its own signals to the whole foreground group.
        let from_terminal = |signal| group == Group::Terminal && matches!(signal, Signal::INT | Signal::QUIT);
        if let Some(signal) = interrupt.signal().filter(|signal| !from_terminal(*signal)) {
            let asked: Instant = *since.get_or_insert_with(Instant::now);
            if interrupt.count() > seen {
                seen = interrupt.count();
                let again = asked.elapsed() > TICK * 10;
                send(if again { Signal::KILL } else { signal });
            } else if asked.elapsed() > PATIENCE {
                send(Signal::KILL);
            }
        }
        thread::sleep(TICK);
    };
    if group == Group::Own {
        // A test that failed may have left a process running.
        send(Signal::KILL);
        interrupt.check()?;
    }
    Ok(exit_code(status))
}

/// Sends a signal to a process. It is no error if the process has ended.
pub(crate) fn send(signal: Signal, pid: Pid) {
    let _ = kill_process(pid, signal);
}

/// Sends a signal to every process of a group. It is no error if all have ended.
fn send_to_group(signal: Signal, leader: Pid) {
    let _ = kill_process_group(leader, signal);
}

/// Sends the signal to a server of this run and waits for its end; kills it when it takes too long.
pub(crate) fn end(child: &mut Child, signal: Signal) {
    send(signal, Pid::from_child(child));
    let asked = Instant::now();
    while asked.elapsed() < PATIENCE {
        // An error means that the child no longer exists.
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(TICK);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// The most likely reason in a log: the first line about an error and the line after it, where Java and Maven name the
/// cause; else the last line.
pub(crate) fn reason(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let telling = |line: &&str| ["ERROR", "FATAL", "error:", "E: "].iter().any(|word| line.contains(word));
    let first = lines.iter().position(telling).unwrap_or(lines.len().saturating_sub(1));
    let told: String =
        lines[first..].iter().take(2).copied().collect::<Vec<_>>().join(" / ").chars().take(400).collect();
    let told = if told.is_empty() { "no output" } else { &told };
    format!("{told} (log: {})", log.display())
}

/// The exit code as a shell would report it.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1)
}
