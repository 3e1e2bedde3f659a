//! From the command line to the end of the process.

use std::{io, io::IsTerminal, process::ExitCode, time::Duration};

use clap::Parser;
use es_core::EngineError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::{
    backend::{Backend, BackendError},
    cli::{Cli, Role},
    demo::{self, DemoError},
    read_models::ReadModelName,
    roles,
    workers::{Worker, with_causes},
};

/// How long closing the store may take. With what [`roles`] grants to requests and workers the whole
/// shutdown stays within ten seconds.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// The program.
pub fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let cli = Cli::parse();
    let ended = tokio::runtime::Runtime::new().map_err(RunError::from).and_then(|runtime| {
        let ended = runtime.block_on(run(cli));
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// Does what the command line says, until that is done or SIGINT or SIGTERM comes.
///
/// # Errors
/// [`RunError`].
pub async fn run(cli: Cli) -> Result<(), RunError> {
    let shutdown = on_signal()?;
    let Cli { mut parts, http, role } = cli;
    let role = role.unwrap_or(Role::Serve);
    // The demo leaves nothing behind, unless it is told where.
    let scratch = tempfile::tempdir()?;
    if matches!(role, Role::Demo) && parts.data.is_none() {
        parts.data = Some(scratch.path().join("orders.db"));
    }
    let backend = Backend::open(&parts).await?;
    let ended = match role {
        Role::Serve => roles::serve(&backend, http, shutdown).await,
        Role::Demo => {
            let told = shutdown.run_until_cancelled(demo::run(&backend, &mut io::stdout())).await;
            told.unwrap_or(Ok(())).map_err(RunError::from)
        }
        Role::Rebuild { projection, from } => roles::rebuild(&backend, projection, from, shutdown).await,
        Role::Relay => roles::work(&backend, [Worker::Relay], shutdown).await,
        Role::Policy => roles::work(&backend, [Worker::Policy], shutdown).await,
        Role::Project { projections } => {
            let wanted = if projections.is_empty() { ReadModelName::ALL.to_vec() } else { projections };
            roles::work(&backend, wanted.into_iter().map(Worker::Projector), shutdown).await
        }
    };
    if timeout(CLOSE_WITHIN, backend.close()).await.is_err() {
        tracing::warn!("the store did not close in time");
    }
    ended
}

/// Is cancelled by Ctrl-C, and by the SIGTERM of service managers.
fn on_signal() -> io::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let cancelled = shutdown.clone();
    #[cfg(unix)]
    let terminated = {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        }
    };
    #[cfg(not(unix))]
    let terminated = async { drop(tokio::signal::ctrl_c().await) };
    tokio::spawn(async move {
        terminated.await;
        cancelled.cancel();
    });
    Ok(shutdown)
}

/// Why the program could not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The store.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The address, the terminal, the temporary directory.
    #[error("the operating system refuses")]
    Io(#[from] io::Error),
    /// There is no Kafka to read from.
    #[error("there is no Kafka to read from: name it with --kafka")]
    NoKafka,
    /// The rebuild; the old read model keeps serving.
    #[error("the read model cannot be rebuilt")]
    Rebuild(#[from] EngineError),
    /// Workers have stopped for good.
    #[error("{}", .0.join("\n"))]
    Stopped(Vec<String>),
    /// The demo.
    #[error("the demo failed")]
    Demo(#[from] DemoError),
}
