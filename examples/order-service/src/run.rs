//! From the command line to the end of the process.

use std::{io, io::IsTerminal, net::SocketAddr, process::ExitCode, time::Duration};

use clap::{CommandFactory, Parser};
use evenfold::{
    CancellationToken,
    cli::{CommandError, Outcome, Output, ServiceCommand, end::exit_code},
    error::with_causes,
    http::stop_signal,
    prometheus::{InstallError, Metrics},
};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

#[cfg(feature = "otel")]
use crate::otlp;
use crate::{
    app::App,
    cli::{Cli, Role},
    demo::{self, DemoError},
    provider::{self, ProviderError},
    roles,
    rules::{Rules, RulesError},
    service::{self, ServiceError},
};

/// How long parts and store may take to end. Requests may take six seconds before that, so the whole shutdown stays within
/// ten seconds.
const END_WITHIN: Duration = Duration::from_secs(3);

/// The program.
pub fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let subscriber = tracing_subscriber::registry().with(log.with_filter(filter));
    let cli = Cli::parse();
    #[cfg(feature = "otel")]
    let _exporting = match otlp::layer() {
        Ok(exported) => {
            let (layer, exporting) = exported.unzip();
            subscriber.with(layer).init();
            exporting
        }
        Err(error) => {
            eprintln!("error: spans cannot be exported: {}", with_causes(&error));
            return ExitCode::FAILURE;
        }
    };
    #[cfg(not(feature = "otel"))]
    subscriber.init();
    let ended = tokio::runtime::Runtime::new().map_err(RunError::from).and_then(|runtime| {
        let ended = runtime.block_on(run(cli));
        runtime.shutdown_timeout(Duration::from_secs(1));
        ended
    });
    match ended {
        Ok(outcome) => exit_code(Ok(outcome)),
        Err(RunError::Command(error)) => exit_code(Err(error)),
        Err(error) => {
            eprintln!("error: {}", with_causes(&error));
            ExitCode::FAILURE
        }
    }
}

/// Does what the command line says, until it is done or the process gets SIGINT or SIGTERM.
///
/// # Errors
/// [`RunError`].
pub async fn run(cli: Cli) -> Result<Outcome, RunError> {
    let Cli { mut parts, http, role } = cli;
    let role = role.unwrap_or(Role::Serve);
    if let Role::Text(text) = role {
        return Ok(text.run(Cli::command(), &mut Output::stdout())?);
    }
    if let Role::Provider { orders } = role {
        return Ok(provider::play(&parts, &orders).await.map(well)?);
    }
    let shutdown = on_signal()?;
    if matches!(role, Role::Consume) && parts.payments_topic.is_none() {
        return Err(ProviderError::NoTopic.into());
    }
    let metrics = Metrics::install()?;
    // Without `--db` the demo uses a temporary file.
    let scratch = tempfile::tempdir()?;
    if matches!(role, Role::Demo) && parts.db.is_none() {
        parts.db = Some(scratch.path().join("orders.db"));
    }
    let needs_kafka = matches!(role, Role::Publish | Role::Consume)
        || parts.payments_topic.is_some()
        || parts.kafka_settings.is_some();
    if needs_kafka && !service::has_kafka(&parts)? {
        return Err(RunError::NoKafka);
    }
    let rules = match (&role, &parts.rules) {
        (Role::Demo, None) => demo::rules(),
        (_, file) => Rules::load(file.as_deref())?,
    };
    let builder = match service::builder(&parts, &rules).await {
        Ok(builder) => builder.parts(role.parts(http)),
        // With the exit codes that all commands of services have.
        Err(ServiceError::Postgres(error)) if matches!(role, Role::Service(_)) => {
            return Err(CommandError::from(error).into());
        }
        Err(ServiceError::Sqlite(error)) if matches!(role, Role::Service(_)) => {
            return Err(CommandError::from(error).into());
        }
        Err(error) => return Err(error.into()),
    };
    let service = builder.start().await.map_err(ServiceError::from)?;
    let app = App::new(&service, &rules);
    let app = if parts.first_release { app.first_release() } else { app };
    let ended = match role {
        Role::Serve => roles::serve(app, http, metrics, shutdown).await.map(well),
        Role::Demo => {
            let done = shutdown.run_until_cancelled(demo::run(&app, &mut io::stdout())).await;
            done.unwrap_or(Ok(())).map(well).map_err(RunError::from)
        }
        Role::Publish | Role::Saga | Role::Consume | Role::Project { .. } | Role::Service(ServiceCommand::Run(_)) => {
            roles::work(&service, http, metrics, shutdown).await.map(well)
        }
        Role::Service(command) => Ok(command.run_on(&service, shutdown, &mut Output::stdout()).await?),
        // It was done before a store was opened.
        Role::Text(_) | Role::Provider { .. } => Ok(Outcome::Well),
    };
    if let Err(error) = service.shutdown(END_WITHIN).await {
        tracing::warn!(reason = with_causes(&error), "the service did not end in good order");
    }
    ended
}

fn well((): ()) -> Outcome {
    Outcome::Well
}

/// Is cancelled by Ctrl-C, and by the SIGTERM of service managers.
fn on_signal() -> io::Result<CancellationToken> {
    let (shutdown, signal) = (CancellationToken::new(), stop_signal()?);
    let cancelled = shutdown.clone();
    tokio::spawn(async move {
        signal.await;
        cancelled.cancel();
    });
    Ok(shutdown)
}

/// Why the program failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The service.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The address is in use, or is none of this machine.
    #[error("cannot listen on {address}: name another address with --listen or --metrics")]
    Address {
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },
    /// The terminal, the temporary directory.
    #[error("the operating system returned an error")]
    Io(#[from] io::Error),
    /// Metrics are not collected.
    #[error(transparent)]
    Metrics(#[from] InstallError),
    /// The rules of the shop.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// Kafka was not named.
    #[error(
        "there is no Kafka to carry events to, or to read messages from: name it with --kafka or in --kafka-settings"
    )]
    NoKafka,
    /// The payment provider, whom this process plays.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// A command that every service has.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Parts of the service have stopped for good.
    #[error("{}", .0.join("\n"))]
    Stopped(Vec<String>),
    /// The demo.
    #[error("the demo failed")]
    Demo(#[from] DemoError),
}
