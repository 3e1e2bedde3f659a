//! The commands that need the types of an application, from its service.

mod audit;
mod progress;
mod what_if;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand, ValueEnum};
use es_core::{
    EngineError, Service, ServiceBuilder, Throttle,
    backend::EventSource,
    error::with_causes,
    service::{Parts, RebuildError, StartError},
};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    audit::{AsOf, Verify},
    what_if::WhatIfCommand,
};
use crate::{
    act::MaybeWho,
    command::StoreCommand,
    end::{CommandError, Outcome},
    output::{Format, Output},
    readers, time,
    version::{self, Versioned},
};
#[cfg(feature = "kafka")]
use crate::{
    dlq::{self, OfService},
    relay::RelayCommand,
};

/// How long the parts and the store may take to end.
const END_WITHIN: Duration = Duration::from_secs(10);

/// A command on a service: those of [`StoreCommand`] on its store, and those that need its types.
///
/// An application adds these commands to its own with `#[command(flatten)]`, and hands one to [`run`](Self::run).
/// A program that gives no version prints for `--version` that it has none, and the version of Evenfold.
#[derive(Debug, Clone, Subcommand)]
#[command(version_or = version::UNKNOWN)]
#[expect(private_interfaces, reason = "the command line makes them, and `run` carries them out")]
pub enum ServiceCommand {
    /// Runs readers and the relay, until the process is told to stop
    Run(Run),
    /// Folds a read model again from the first event, while the old one serves, and then replaces it
    ///
    /// If it is interrupted, or killed, the same command continues from there. While the reader is paused it waits. `cancel-rebuild` ends it
    /// from elsewhere. Keys that are parked in the new one are told, and the exit code is 0.
    Rebuild(Rebuild),
    /// Compares a read model with a fold of the log, and names each document that differs
    ///
    /// Its projector may go on meanwhile. The exit code is 1 if a document differs and was not mended. A table projection has no documents
    /// to compare.
    Verify(Verify),
    /// Folds a document of a read model up to a moment, by default the end of the log, and prints it as JSON
    AsOf(AsOf),
    /// Folds a read model with events left out, replaced or added, and names each document that would be another one
    ///
    /// Nothing is written. A payload must be a whole one, as the program stores it: `log tail --from N --limit 1 --data` shows that of an
    /// event. If it does not fit, the exit code is 4. An event that could not be folded after the change is named with the document: the
    /// exit code is 1, and the document is compared as it is before the event.
    WhatIf(WhatIfCommand),
    /// Shows how far the relay to Kafka is, and compares Kafka with the log
    #[cfg(feature = "kafka")]
    #[command(subcommand)]
    Relay(RelayCommand),
    /// Shows the dead letters of a topic that a consumer of the service reads, and replays or discards them
    #[cfg(feature = "kafka")]
    Dlq(OfService),
    /// A command on its store
    #[command(flatten)]
    Store(StoreCommand),
}

/// Which parts to run.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// The parts: read models, policies, relay [default: all]
    parts: Vec<String>,
}

/// Which read model to rebuild.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rebuild {
    /// The read model
    projection: String,

    /// Where the events come from
    #[arg(long, value_enum, default_value_t = Origin::Source)]
    from: Origin,

    /// Works only as much as leaves the 99th percentile of appends within this time, for example 5ms
    #[arg(long, value_name = "TIME", value_parser = time::parse_limit)]
    keep_append_p99: Option<Duration>,

    /// Only says what there is to do
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    who: MaybeWho,

    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Planned<'a> {
    projection: &'a str,
    events: u64,
    bytes: u64,
    seconds: f64,
}

/// Where a rebuild reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Origin {
    /// Where the readers of the service read
    #[value(alias = "kafka")]
    Source,
    /// The log
    Log,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rebuilt<'a> {
    projection: &'a str,
    version: u32,
    generation: i64,
    seconds: f64,
    /// `None`: the store did not answer.
    parked_keys: Option<usize>,
}

impl ServiceCommand {
    /// The parts of the service that the process runs for it: only `run` runs any.
    pub fn parts(&self) -> Parts {
        match self {
            Self::Run(Run { parts }) if parts.is_empty() => Parts::All,
            Self::Run(Run { parts }) => Parts::named(parts),
            _ => Parts::None,
        }
    }

    /// Whether the program may create its store for it, or bring the schema up to date: only for `run`. Open the store with it as the
    /// option `migrate`, and a mistyped path makes no new file.
    pub fn may_migrate(&self) -> bool {
        matches!(self, Self::Run(_))
    }

    /// Starts the service of `builder` with the [parts](Self::parts) that it needs, carries it out until it is done or `shutdown`
    /// comes, prints to `output`, and ends the service.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn run(
        self,
        builder: ServiceBuilder,
        shutdown: CancellationToken,
        output: &mut Output,
    ) -> Result<Outcome, CommandError> {
        let service = builder.parts(self.parts()).start().await?;
        let ended = self.run_on(&service, shutdown, output).await;
        if let Err(error) = service.shutdown(END_WITHIN).await {
            eprintln!("the service did not end in good order: {}", with_causes(&error));
        }
        ended
    }

    /// As [`run`](Self::run), on a service that was started with the [parts](Self::parts) that it needs, and that the caller ends.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn run_on(
        self,
        service: &Service,
        shutdown: CancellationToken,
        output: &mut Output,
    ) -> Result<Outcome, CommandError> {
        let stopped = shutdown.clone();
        let ended = async {
            match self {
                Self::Run(_) => run(service, &shutdown).await,
                Self::Rebuild(rebuild) => rebuild.run(service, shutdown.clone(), output).await,
                Self::Verify(verify) => verify.run(service, output).await,
                Self::AsOf(as_of) => as_of.run(service, output).await,
                Self::WhatIf(what_if) => what_if.run(service, output).await,
                #[cfg(feature = "kafka")]
                Self::Relay(relay) => relay.run_on(service, output).await,
                #[cfg(feature = "kafka")]
                Self::Dlq(dlq) => dlq.run_on(service, output).await,
                Self::Store(StoreCommand::Doctor(doctor)) => {
                    #[cfg(feature = "kafka")]
                    let more = dlq::findings(service).await;
                    #[cfg(not(feature = "kafka"))]
                    let more = Vec::new();
                    doctor.run(&service.store(), &service.read_model_names(), more, output).await
                }
                Self::Store(command) => command.run(&service.store(), output).await,
            }
        };
        tokio::pin!(ended);
        tokio::select! {
            ended = &mut ended => return ended,
            () = stopped.cancelled() => {}
        }
        // What ends in good order does so at once; what only reads is dropped.
        tokio::time::timeout(END_WITHIN, ended).await.unwrap_or(Ok(Outcome::No))
    }
}

/// Runs the parts until `shutdown`, or until all of them have stopped.
async fn run(service: &Service, shutdown: &CancellationToken) -> Result<Outcome, CommandError> {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = service.ended() => {}
    }
    let stopped = service.status().await.stopped();
    if stopped.is_empty() { Ok(Outcome::Well) } else { Err(CommandError::Stopped(stopped)) }
}

impl Rebuild {
    async fn run(
        self,
        service: &Service,
        shutdown: CancellationToken,
        output: &mut Output,
    ) -> Result<Outcome, CommandError> {
        let Self { projection, from, keep_append_p99, dry_run, who, format } = self;
        let plan = service.plan_rebuild(&projection).await?;
        if dry_run && format.json {
            let (events, bytes, seconds) = (plan.events, plan.bytes, plan.time.as_secs_f64());
            output.json(&Planned { projection: &projection, events, bytes, seconds })?;
        } else if dry_run {
            output.line(format_args!("{projection}: {}", progress::plan(plan)))?;
        } else {
            eprintln!("{projection}: {}", progress::plan(plan));
        }
        if dry_run {
            output.flush()?;
            return Ok(Outcome::Well);
        }
        let act = who.act()?;
        let began = Instant::now();
        let source: Arc<dyn EventSource> = match from {
            Origin::Source => service.source(),
            Origin::Log => Arc::new(service.log()),
        };
        let throttle = keep_append_p99.map(|limit| Throttle::keeping(limit, service.store()));
        let source = throttle.as_ref().map_or_else(|| source.clone(), |throttle| throttle.on(source.clone()));
        let rebuilt = tokio::select! {
            rebuilt = service.rebuild_by(&projection, source, &act, shutdown) => rebuilt?,
            never = progress::show(service, &projection, throttle.as_ref()) => match never {},
        };
        let Some(generation) = rebuilt else {
            eprintln!("interrupted: the same command continues from here");
            return Ok(Outcome::No);
        };
        let (version, id, seconds) = (generation.version, generation.reader.id, began.elapsed().as_secs_f64());
        // That this cannot be read does not undo the rebuild.
        let parked = service.store().parked_keys(&projection).await.ok();
        let parked_keys = parked.map(|parked| parked.iter().filter(|key| key.reader == id).count());
        if format.json {
            output.json(&Rebuilt { projection: &projection, version, generation: id, seconds, parked_keys })?;
        } else {
            output.line(format_args!(
                "{projection} is rebuilt in version {version} and serves; it took {seconds:.1} s"
            ))?;
            match parked_keys.map(readers::parked) {
                Some(None) => {}
                Some(Some(parked)) => {
                    output.line(format_args!("{parked} in it: `dead-letters list {projection}` shows the events"))?;
                }
                None => output.line("whether it has parked keys is not known: `readers` shows it")?,
            }
        }
        output.flush()?;
        Ok(Outcome::Well)
    }
}

impl From<StartError> for CommandError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Store(error) => error.into(),
            StartError::Unknown { name, known } => unknown("part", &name, &known),
            error => {
                Self::Unfit { cause: error.into(), advice: "correct how the program registers its parts".to_owned() }
            }
        }
    }
}

impl From<RebuildError> for CommandError {
    fn from(error: RebuildError) -> Self {
        match error {
            RebuildError::Unknown { name, known } => unknown("read model", &name, &known),
            RebuildError::Live { name } => live(name, &error),
            RebuildError::Engine(EngineError::Store(error)) => error.into(),
            error => {
                let advice = "the old read model keeps serving; correct what is named, and rebuild again".to_owned();
                Self::Unfit { cause: error.into(), advice }
            }
        }
    }
}

/// `error` says that the read model `name` is live.
fn live(name: &str, error: &dyn std::error::Error) -> CommandError {
    let advice = format!("there is nothing to compare or to rebuild; `as-of {name} <key>` folds one of its documents");
    CommandError::usage(error.to_string(), advice)
}

fn unknown(what: &str, name: &str, known: &[String]) -> CommandError {
    CommandError::usage(format!("the service has no {what} {name:?}"), format!("name one of {}", known.join(", ")))
}
