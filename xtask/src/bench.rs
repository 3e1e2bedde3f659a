//! The benchmarks: built in release, run on a Postgres with the settings of a deployment.

use std::env;
use std::ffi::OsString;
use std::path::Path;

use rustix::process::Signal;

use crate::children::{self, Group};
use crate::interrupt::Interrupt;
use crate::servers::{Needs, Servers};
use crate::{Result, tools};

/// Builds `bench/`, a workspace of its own, and runs it with the arguments.
pub(crate) fn run(arguments: &[OsString]) -> Result<i32> {
    let interrupt = Interrupt::listen()?;
    let has_peers = !arguments.iter().any(|argument| argument == "--without-peers");
    if has_peers {
        tools::for_peers(&interrupt)?;
    }
    let workspace = tools::workspace();
    let target = workspace.join("target/bench");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = children::mortal(Path::new(&cargo), Signal::TERM);
    build
        .args(["build", "--release", "--locked", "--ignore-rust-version", "--manifest-path"])
        .arg(workspace.join("bench/Cargo.toml"));
    build.arg("--target-dir").arg(&target);
    if !has_peers {
        build.arg("--no-default-features");
    }
    tools::forget_this_package(&mut build);
    let code = children::run_to_end(build, Group::Own, &interrupt)?;
    if code != 0 {
        return Ok(code);
    }
    let mut bench = children::mortal(&target.join("release/es-bench"), Signal::TERM);
    bench.args(arguments).current_dir(workspace.join("bench"));
    if !measures(arguments) {
        return children::run_to_end(bench, Group::Own, &interrupt);
    }
    let needs = Needs { kafka: needs_kafka(arguments), ..Needs::BENCHMARKS };
    let servers = Servers::start(needs, &interrupt)?;
    bench.envs(servers.variables());
    children::run_to_end(bench, Group::Own, &interrupt)
}

/// Whether the arguments run benchmarks. To draw a chart or to show the help needs no server.
fn measures(arguments: &[OsString]) -> bool {
    !arguments.iter().any(|argument| ["chart", "help", "--help", "-h", "--list"].iter().any(|word| argument == word))
}

/// Whether a workload that is asked for goes through Kafka: a prefix stands for all that begin with it, and none for all.
fn needs_kafka(arguments: &[OsString]) -> bool {
    let words = arguments.iter().filter_map(|argument| argument.to_str());
    let mut asked = words.filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase())).peekable();
    let goes = |word: &str| ["relay", "kafka"].iter().any(|name| name.starts_with(word) || word.starts_with(name));
    asked.peek().is_none() || asked.any(goes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_measuring_needs_a_server() {
        let words = |line: &str| -> Vec<OsString> { line.split_whitespace().map(OsString::from).collect() };
        assert!(measures(&words("")));
        assert!(measures(&words("--quick execute-1")));
        assert!(!measures(&words("chart")));
        assert!(!measures(&words("--help")));
    }

    #[test]
    fn only_what_goes_through_kafka_needs_it() {
        let needs = |line: &str| needs_kafka(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        assert!(needs("--rounds 3 --without-peers") && needs("execute-1 kafka-merged") && needs("re"));
        assert!(!needs("--rounds 3 execute-1 sqlite"));
    }
}
