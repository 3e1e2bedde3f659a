//! The commands of [`es`](https://docs.rs/es-cli), and those that need the types of a service, for the program of an application.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use clap::{CommandFactory, Parser, Subcommand};
//! use evenfold::{ServiceBuilder, cli::{self, Output, ServiceCommand, TextCommand}, prelude::*};
//!
//! /// Sells seats
//! #[derive(Parser)]
//! struct Program {
//!     #[command(subcommand)]
//!     command: Command,
//! }
//!
//! #[derive(Subcommand)]
//! enum Command {
//!     /// Serves HTTP
//!     Serve,
//!     #[command(flatten)]
//!     Service(ServiceCommand), // run, rebuild, verify, as-of, streams, readers, doctor, …
//!     #[command(flatten)]
//!     Text(TextCommand), // completions, man
//! }
//!
//! fn service(store: SqliteStore) -> ServiceBuilder {
//!     Service::builder("seats", store) // .aggregate::<Seat>().projection(…)
//! }
//!
//! #[tokio::main]
//! async fn main() -> ExitCode {
//!     match Program::parse().command {
//!         Command::Serve => ExitCode::SUCCESS, // see `evenfold::http`
//!         Command::Service(command) => {
//!             // Only `run` may create the file: for the other commands a mistyped path is an error.
//!             match SqliteStore::options("seats.db").migrate(command.may_migrate()).open().await {
//!                 Ok(store) => cli::run(command, service(store)).await,
//!                 Err(error) => cli::end::exit_code(Err(error.into())), // 3 or 4, with what to do
//!             }
//!         }
//!         Command::Text(text) => cli::end::exit_code(text.run(Program::command(), &mut Output::stdout())),
//!     }
//! }
//! ```
//!
//! It needs `clap` 4 with `derive`. Without a comment above `Program`, `--help` begins with that of [`ServiceCommand`]. With
//! `PostgresStore` it is the same.

use std::process::ExitCode;

pub use es_cli::*;

use crate::{CancellationToken, ServiceBuilder, stop::stop_signal};

/// Starts the service of `builder`, carries out `command` until it is done or the process gets SIGTERM or SIGINT (Ctrl-C), ends the
/// service, and returns the [exit code](EXIT_CODES). It prints to the standard output, and errors to the standard error output.
///
/// # Panics
/// Outside of a tokio runtime with I/O and time enabled.
pub async fn run(command: ServiceCommand, builder: ServiceBuilder) -> ExitCode {
    let signal = match stop_signal() {
        Ok(signal) => signal,
        Err(error) => return end::exit_code(Err(CommandError::Output(error))),
    };
    let shutdown = CancellationToken::new();
    let cancelled = shutdown.clone();
    tokio::spawn(async move {
        signal.await;
        cancelled.cancel();
    });
    end::exit_code(command.run(builder, shutdown, &mut Output::stdout()).await)
}
