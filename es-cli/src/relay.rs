//! `es relay`.

mod state;
mod status;

use std::{
    any::Any,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use es_core::{Service, ServiceStore, backend::counted};
use es_kafka::{
    ComparedObjects, KafkaRelay, Reconcile, ReconcileError, Reconciled, RelayConfig, RelayStatus, Violation,
};
use serde::Serialize;

use self::state::State;
use crate::{
    end::{CommandError, Outcome},
    output::{Format, Output},
};

/// How often a comparison tells how far it is, and keeps that.
const TELL: Duration = Duration::from_secs(10);

/// A command on a relay to Kafka and its topics. It changes nothing there.
#[derive(Debug, Clone, Subcommand)]
#[expect(private_interfaces, reason = "the command line makes them, and `run` carries them out")]
pub enum RelayCommand {
    /// Shows how far the relay is, and whether its topics keep what it publishes
    ///
    /// Settings that lose events are named with their remedy. The exit code tells the worst finding, as that of doctor does.
    Status(Status),
    /// Compares Kafka with the log, up to where the relay has published
    ///
    /// Every event must be in Kafka once, in its topic, under its key, in the partition of its key, in order and with equal content, and
    /// its topics must hold nothing else. The first difference is printed, and the exit code is 1. It may run beside relay and readers.
    /// Where payloads are in object storage, only the program of the application looks at the objects; the exit code is 5 otherwise.
    Reconcile(Reconciling),
}

/// How to print the status.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    format: Format,
}

/// Where a comparison continues.
#[derive(Debug, Clone, Args)]
pub(crate) struct Reconciling {
    /// Keeps in this file how far it has come, and continues from there the next time
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,

    /// Begins with the first event, whatever the file says
    #[arg(long)]
    from_start: bool,

    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Compared<'a> {
    relay: &'a str,
    /// After which position it has begun.
    from: u64,
    /// Up to where everything is equal.
    position: u64,
    published: u64,
    head: u64,
    events: u64,
    seconds: f64,
    violation: Option<Violated<'a>>,
    objects: ComparedObjects,
}

#[derive(Serialize)]
struct Violated<'a> {
    #[serde(flatten)]
    violation: &'a Violation,
    sentence: String,
}

impl RelayCommand {
    /// Carries it out on the relay of this `config`, which publishes the log of `store`, and prints to `output`.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn run(
        self,
        store: Arc<dyn ServiceStore>,
        config: RelayConfig,
        output: &mut Output,
    ) -> Result<Outcome, CommandError> {
        match self {
            Self::Status(Status { format }) => status::print(&RelayStatus::of(&store, &config).await?, format, output),
            Self::Reconcile(reconciling) => reconciling.run(store, config, output).await,
        }
    }

    /// As [`run`](Self::run), on the relay that `service` has registered.
    ///
    /// # Errors
    /// [`CommandError`]: also when it has none.
    pub async fn run_on(self, service: &Service, output: &mut Output) -> Result<Outcome, CommandError> {
        let none = || {
            CommandError::usage(
                "the service has no relay to Kafka",
                "register one with `.relay(…)`, or name its brokers",
            )
        };
        let relay = service.relay().ok_or_else(none)?;
        let relay = (&*relay as &dyn Any).downcast_ref::<KafkaRelay>().ok_or_else(none)?;
        self.run(service.store(), relay.config(service.name()), output).await
    }
}

impl Reconciling {
    async fn run(
        self,
        store: Arc<dyn ServiceStore>,
        config: RelayConfig,
        output: &mut Output,
    ) -> Result<Outcome, CommandError> {
        let state = self.state.map(State::new);
        let known = match &state {
            Some(state) if !self.from_start => state.read()?,
            _ => None,
        };
        let (began, relay) = (Instant::now(), config.name.clone());
        let (mut told_at, mut told, mut failed) = (began, known.as_ref().map_or(0, |known| known.position.get()), None);
        let outcome = Reconcile::new(store, config)
            .run(known, |cursor| {
                let elapsed = told_at.elapsed();
                if elapsed < TELL {
                    return;
                }
                let position = cursor.position.get();
                let rate = position.saturating_sub(told) / elapsed.as_secs().max(1);
                eprintln!("compared up to position {position}, {rate} events/s");
                (told_at, told) = (Instant::now(), position);
                if let Some(state) = &state
                    && let Err(error) = state.write(cursor)
                {
                    failed.get_or_insert(error);
                }
            })
            .await?;
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some(state) = &state {
            state.write(&outcome.cursor)?;
        }
        print(&outcome, &relay, began.elapsed(), self.format, output)
    }
}

fn are(count: u64, what: &str) -> String {
    format!("{} {}", counted(count, what), if count == 1 { "is" } else { "are" })
}

fn print(
    found: &Reconciled,
    relay: &str,
    took: Duration,
    format: Format,
    output: &mut Output,
) -> Result<Outcome, CommandError> {
    let (from, position) = (found.from.get(), found.cursor.position.get());
    let (published, head) = (found.published.get(), found.head.get());
    let violation = found.violation.as_ref();
    let violation = violation.map(|violation| Violated { violation, sentence: violation.to_string() });
    let unknown = found.objects.unknown;
    let outcome = match (&violation, unknown) {
        (Some(_), _) => Outcome::No,
        (None, 1..) => Outcome::Warnings,
        (None, 0) => Outcome::Well,
    };
    let events = position.saturating_sub(from);
    if format.json {
        let seconds = took.as_secs_f64();
        let objects = found.objects;
        output.json(&Compared { relay, from, position, published, head, events, seconds, violation, objects })?;
    } else {
        if let Some(Violated { sentence, .. }) = violation {
            output.line(format_args!("Kafka differs from the log: {sentence}"))?;
            output.line(format_args!("everything up to position {position} is equal"))?;
        } else {
            let count = counted(events, "event");
            output.line(format_args!(
                "Kafka holds the log up to position {position}: {count} compared after position {from}, in {:.1} s",
                took.as_secs_f64()
            ))?;
        }
        if unknown > 0 {
            output.line(format_args!(
                "{} in object storage, which this program does not know: the records are right, and the objects were not looked at; \
                 the program of the application does that",
                are(unknown, "payload")
            ))?;
        }
        if head > published {
            output.line(format_args!("the relay has {} to publish", counted(head - published, "more event")))?;
        }
    }
    output.flush()?;
    Ok(outcome)
}

impl From<ReconcileError> for CommandError {
    fn from(error: ReconcileError) -> Self {
        let advice = match &error {
            ReconcileError::Read(_) => "`es doctor` examines the store",
            ReconcileError::Refused { .. } => "correct what is named",
            ReconcileError::Unavailable(_) => {
                "see whether the brokers run, and whether their addresses are right; then try again"
            }
            ReconcileError::Progress { .. } => "see who writes to this topic",
            ReconcileError::ObjectStorage(_) => {
                "see whether the object storage runs, and gives this program its objects"
            }
            _ => "try again",
        };
        let (advice, is_transient) = (advice.to_owned(), error.is_transient());
        Self::Kafka { cause: error.into(), advice, is_transient }
    }
}
