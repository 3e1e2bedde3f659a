//! Development tasks: starts the real servers, runs the tests or the benchmarks against them, stops them.

mod account;
mod arguments;
mod bench;
mod cargo_tools;
mod children;
mod fetch;
mod home;
mod interrupt;
mod kafka;
mod mutants;
mod postgres;
mod prometheus;
mod server;
mod servers;
mod shop;
mod tools;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use rustix::process::Signal;

use crate::arguments::{Arguments, Task};
use crate::children::Group;
use crate::interrupt::Interrupt;
use crate::servers::{Needs, Servers};

/// Why a task ended early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A step failed: the step, and why.
    Cannot(String),
    /// A signal arrived.
    Interrupted(Signal),
}

impl Failure {
    /// The failure `cannot {what}: {why}`.
    pub(crate) fn cannot(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Self::Cannot(format!("cannot {what}: {why}"))
    }
}

/// The result of a step of a task.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Prints a message to the user. Only on stderr: stdout belongs to cargo and to the `export` lines.
pub(crate) fn say(message: impl fmt::Display) {
    eprintln!("xtask: {message}");
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Test { arguments } => test(arguments),
        Task::Servers { command } => servers(&command),
        Task::Bench { arguments } => bench::run(&arguments),
        Task::Check { arguments } => run_of_tests(&["--bin", "check"], Needs::CHECKER, arguments),
        Task::Chaos { arguments } => run_of_tests(&["--bin", "chaos"], Needs::CHAOS, arguments),
        Task::ProveRebuild { arguments } => {
            run_of_tests(&["--release", "--bin", "prove-rebuild"], Needs::BENCHMARKS, arguments)
        }
        Task::Shop(shop) => shop::run(shop),
        Task::Deny { checks } => cargo_tools::deny(&checks),
        Task::Msrv => cargo_tools::msrv(),
        Task::Mutants { resume, files } => mutants::run(resume, &files),
    };
    let code = match outcome {
        Ok(code) => code,
        Err(Failure::Cannot(why)) => {
            say(why);
            2
        }
        Err(Failure::Interrupted(signal)) => 128 + signal.as_raw(),
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Runs the tests of the workspace, or of the packages named in the arguments, against real servers.
fn test(arguments: Vec<OsString>) -> Result<i32> {
    let interrupt = Interrupt::listen()?;
    tools::for_native_builds(&interrupt)?;
    tools::for_tests(&interrupt)?;
    let servers = Servers::start(Needs::TESTS, &interrupt)?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = children::mortal(Path::new(&cargo), Signal::TERM);
    cargo.arg("test").envs(servers.variables());
    if !names_packages(&arguments) {
        cargo.arg("--workspace");
    }
    cargo.args(arguments);
    tools::forget_this_package(&mut cargo);
    // The tests start processes of their own. In one group all of them can be ended together.
    children::run_to_end(cargo, Group::Own, &interrupt)
}

/// Runs a program of the package `tests` against real servers: `program` says which, and how cargo builds it.
fn run_of_tests(program: &[&str], needs: Needs, arguments: Vec<OsString>) -> Result<i32> {
    let interrupt = Interrupt::listen()?;
    tools::for_native_builds(&interrupt)?;
    let servers = Servers::start(needs, &interrupt)?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = children::mortal(Path::new(&cargo), Signal::TERM);
    cargo.args(["run", "--quiet", "--package", "tests"]).args(program).arg("--").args(arguments);
    cargo.envs(servers.variables());
    tools::forget_this_package(&mut cargo);
    children::run_to_end(cargo, Group::Own, &interrupt)
}

/// Whether the arguments select packages. With `--workspace` cargo would ignore that selection.
fn names_packages(arguments: &[OsString]) -> bool {
    arguments.iter().map(|argument| argument.to_string_lossy()).take_while(|argument| argument != "--").any(
        |argument| {
            (argument.starts_with("-p") && !argument.starts_with("--"))
                || argument == "--package"
                || argument.starts_with("--package=")
                || argument.starts_with("--manifest-path")
        },
    )
}

/// Runs a command with the servers, or keeps them running until a signal or the end of the input.
fn servers(command: &[OsString]) -> Result<i32> {
    let interrupt = Interrupt::listen()?;
    let servers = Servers::start(Needs::TESTS, &interrupt)?;
    let exports: Vec<String> = servers.variables().map(|(name, value)| format!("export {name}='{value}'")).collect();
    if let Some((program, arguments)) = command.split_first() {
        say(exports.join("; "));
        let mut command = children::mortal(Path::new(program), Signal::TERM);
        command.args(arguments).envs(servers.variables());
        // A shell or a pager needs the terminal, which only the foreground group has.
        let group = if io::stdin().is_terminal() { Group::Terminal } else { Group::Own };
        return children::run_to_end(command, group, &interrupt);
    }
    println!("{}", exports.join("\n"));
    let input = if says_when_it_is_over(io::stdin().as_fd()) {
        say("the servers run until Ctrl-C or another signal, or until the end of the input");
        Some(thread::spawn(|| io::copy(&mut io::stdin(), &mut io::sink())))
    } else {
        say("the servers run until Ctrl-C or another signal (the input is neither a terminal nor a pipe)");
        None
    };
    while interrupt.signal().is_none() && !input.as_ref().is_some_and(thread::JoinHandle::is_finished) {
        thread::sleep(Duration::from_millis(50));
    }
    Ok(0)
}

/// Whether the end of `input` means that the process that started this command has ended. `/dev/null`, the input under a
/// service manager or `nohup`, and a file are at their end from the start.
fn says_when_it_is_over(input: BorrowedFd<'_>) -> bool {
    let kind = input.try_clone_to_owned().map(File::from).and_then(|file| file.metadata());
    input.is_terminal() || kind.is_ok_and(|kind| kind.file_type().is_fifo() || kind.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pipe_or_a_terminal_ends_the_servers_by_its_end() {
        let (reader, _writer) = io::pipe().expect("a pipe");
        assert!(says_when_it_is_over(reader.as_fd()));
        for nothing in ["/dev/null", "Cargo.toml"] {
            let file = File::open(nothing).expect("it is there");
            assert!(!says_when_it_is_over(file.as_fd()), "{nothing}");
        }
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn packages_are_looked_for_before_the_arguments_of_the_test_binary() {
        assert!(names_packages(&words("-p es-core name")));
        assert!(names_packages(&words("-pes-core")));
        assert!(names_packages(&words("--package=es-core")));
        assert!(!names_packages(&words("--profile fast name")));
        assert!(!names_packages(&words("name -- -p x")));
    }
}
