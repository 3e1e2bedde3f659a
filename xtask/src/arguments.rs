//! The command line.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Development tasks. If the environment has the address of a server (`DATABASE_URL`, `KAFKA_BROKERS`), that server is used.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Starts Postgres and Kafka, runs `cargo test` on the whole workspace, stops them.
    #[command(override_usage = "cargo xtask test [ARGUMENTS OF cargo test]")]
    Test {
        /// Passed on to `cargo test`; with `-p` or `--manifest-path` only that package is tested.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Starts Postgres and Kafka, prints their addresses and runs a command; stops them when it has ended.
    ///
    /// Without a command it waits for Ctrl-C or another signal, or for the end of the input if that is a terminal or a pipe.
    Servers {
        /// The command and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Builds `bench/` and runs it on a Postgres with the settings of a deployment; `bench --help` shows its arguments.
    #[command(disable_help_flag = true)]
    Bench {
        /// Passed on to the benchmarks.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Starts Postgres and runs the checker on a store, one seed after the other; `check --help` shows its arguments.
    #[command(disable_help_flag = true)]
    Check {
        /// Passed on to the checker.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Starts Postgres and runs a service on it and on brokers that are killed, stopped, cut off and more; `chaos --help` shows its
    /// arguments.
    #[command(disable_help_flag = true)]
    Chaos {
        /// Passed on to the chaos suite.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Starts Postgres with the settings of a deployment and proves a rebuild of ten million events; `prove-rebuild --help` shows its
    /// arguments.
    #[command(disable_help_flag = true)]
    ProveRebuild {
        /// Passed on to the proof.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Starts Postgres and Kafka, and the order service as separate processes, until Ctrl-C or another signal.
    ///
    /// A process that ends is started again, unless it has ended three times in a row within ten seconds: then the shop ends. What the servers hold is gone at the end: to keep it, name servers of your own.
    Shop(Shop),
    /// Checks the dependencies with cargo-deny: bans, licences and sources, or what is named.
    Deny {
        /// Checks of `cargo deny check`, for example `advisories`.
        checks: Vec<String>,
    },
    /// Checks what users compile with the oldest compiler that the manifest promises (`rust-version`).
    Msrv,
    /// Changes es-core in one place after the other and lists the changes that its tests in memory do not notice.
    ///
    /// Compares them with `es-core/mutants-accepted.txt`. CONTRIBUTING.md says how long it takes.
    Mutants {
        /// Leaves out what an earlier run has found to be noticed, or not to compile: goes on where one was interrupted, or tries
        /// the survivors again with new tests. es-core must not have changed otherwise.
        #[arg(long)]
        resume: bool,
        /// Only in these files, for example `es-core/src/tag.rs`.
        files: Vec<String>,
    },
}

/// How many processes, and where.
#[derive(Debug, Args)]
pub(crate) struct Shop {
    /// How many processes keep the read model of the analysts, from 1 on.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    pub(crate) analytics: u8,
    /// Where the API listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    pub(crate) listen: SocketAddr,
    /// The order service, built with Kafka [default: it is built].
    #[arg(long, value_name = "PATH")]
    pub(crate) program: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Task {
        Arguments::try_parse_from(line.split_whitespace()).expect("valid arguments").task
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_a_task_is_passed_on_as_it_is() {
        let Task::Test { arguments } = parsed("xtask test -p es-core r4_ -- --nocapture") else { panic!("no test") };
        assert_eq!(arguments, words("-p es-core r4_ -- --nocapture"));
        let Task::Servers { command } = parsed("xtask servers -- sh -c true") else { panic!("no servers") };
        assert_eq!(command, words("sh -c true"));
        let Task::Bench { arguments } = parsed("xtask bench --help") else { panic!("no benchmarks") };
        assert_eq!(arguments, words("--help"));
        let Task::Check { arguments } = parsed("xtask check --minutes 10") else { panic!("no checker") };
        assert_eq!(arguments, words("--minutes 10"));
        let Task::Chaos { arguments } = parsed("xtask chaos --faults 10") else { panic!("no chaos") };
        assert_eq!(arguments, words("--faults 10"));
    }
}
