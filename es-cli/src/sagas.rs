//! `es sagas`.

mod timeline;

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use es_core::{
    Ask, ServiceStore, StreamId,
    backend::counted,
    react::saga::{NamedSaga, NamedSagaError, Overview, Status},
};
use serde::Serialize;

use self::timeline::Timeline;
use crate::{
    act::{Consent, Intent},
    end::{CommandError, Outcome},
    output::{Format, Output},
    time,
};

/// What to do with the instances of sagas.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Sagas {
    /// Lists instances: how each is, when something is to be done for it next, and why it has failed
    List {
        /// Only those of this saga
        saga: Option<String>,

        #[command(flatten)]
        state: State,

        /// Counts them by their states in place of listing them
        #[arg(long, conflicts_with = "limit")]
        count: bool,

        /// The most instances to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,

        #[command(flatten)]
        format: Format,
    },
    /// Shows what has happened to an instance and why
    Show(Timeline),
    /// Lets instances that have failed go on where they have failed
    Retry {
        #[command(flatten)]
        which: Which,

        #[command(flatten)]
        intent: Intent,
    },
    /// Has instances take back what was done
    Compensate(Asking),
    /// Has instances go on without a step or, where it is being taken back, without that
    SkipStep {
        /// The name of the step
        #[arg(long, value_name = "STEP")]
        step: String,

        #[command(flatten)]
        asking: Asking,
    },
    /// Has instances do a step and those after it again; what was done before stays
    RestartFrom {
        /// The name of the step
        #[arg(long, value_name = "STEP")]
        step: String,

        #[command(flatten)]
        asking: Asking,
    },
    /// Ends instances at once; nothing is taken back
    Cancel(Asking),
}

/// Of which instances something is asked, by whom, and whether that is meant.
#[derive(Debug, Clone, Args)]
pub(crate) struct Asking {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    intent: Intent,

    #[command(flatten)]
    consent: Consent,
}

/// A state of instances.
#[derive(Debug, Clone, Args)]
pub(crate) struct State {
    /// Only those in this state
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(Status::ALL.map(Status::as_str)))]
    state: Option<String>,
}

impl State {
    fn status(&self) -> Option<Status> {
        let named = self.state.as_deref()?;
        Status::ALL.into_iter().find(|status| status.as_str() == named)
    }
}

/// Instances of a saga.
#[derive(Debug, Clone, Args)]
#[group(id = "selection", required = true, multiple = true, args = ["instances", "state", "cause"])]
pub(crate) struct Which {
    /// The saga
    saga: String,

    /// The ids of the instances
    #[arg(value_name = "INSTANCE")]
    instances: Vec<String>,

    #[command(flatten)]
    state: State,

    /// Only those whose cause of failure holds this text
    #[arg(long, value_name = "TEXT")]
    cause: Option<String>,
}

/// An instance as a line of JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    saga: &'a str,
    instance: &'a str,
    state: &'static str,
    version: u32,
    began_at: String,
    changed_at: String,
    /// When something is to be done next.
    due: Option<String>,
    cause: Option<&'a str>,
}

#[derive(Serialize)]
struct Count<'a> {
    saga: &'a str,
    state: &'static str,
    instances: u64,
}

impl<'a> Line<'a> {
    fn of(saga: &'a str, instance: &'a str, overview: &'a Overview) -> Self {
        Self {
            saga,
            instance,
            state: overview.status.as_str(),
            version: overview.version,
            began_at: time::text(overview.began_at),
            changed_at: time::text(overview.changed_at),
            due: overview.due().map(time::text),
            cause: overview.cause.as_deref(),
        }
    }
}

type Instances = Vec<(String, Overview)>;

impl Asking {
    fn parts(self, ask: Ask) -> (Which, Ask, Intent, Option<Consent>) {
        (self.which, ask, self.intent, Some(self.consent))
    }
}

impl Sagas {
    pub(crate) async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        let (which, ask, intent, consent) = match self {
            Self::List { saga, state, count, limit, format } => {
                let sagas = match &saga {
                    Some(name) => vec![named(store, name).await?],
                    None => NamedSaga::all(store).await?,
                };
                if count {
                    counts(&sagas, &state, format, output).await?;
                } else {
                    list(&sagas, &state, limit, format, output).await?;
                }
                output.flush()?;
                return Ok(Outcome::Well);
            }
            Self::Show(timeline) => return timeline.run(store, output).await,
            Self::Retry { which, intent } => (which, Ask::Retry, intent, None),
            Self::Compensate(asking) => asking.parts(Ask::Compensate),
            Self::SkipStep { step, asking } => asking.parts(Ask::Skip { step }),
            Self::RestartFrom { step, asking } => asking.parts(Ask::RestartFrom { step }),
            Self::Cancel(asking) => asking.parts(Ask::Cancel),
        };
        let act = intent.act()?;
        let saga = named(store, &which.saga).await?;
        let instances = which.find(&saga).await?;
        print(saga.name(), &instances, Format::default(), output)?;
        output.flush()?;
        let Some(act) = act else { return Ok(Outcome::Well) };
        if instances.is_empty() {
            return Err(CommandError::Missing(format!("the saga {} has no such instance", saga.name())));
        }
        let count = counted(instances.len(), "instance");
        if let Some(consent) = consent
            && !consent.to(&format!("{ask}: that is asked of {count}"))?
        {
            return Ok(Outcome::No);
        }
        for (id, _) in &instances {
            saga.ask(id, ask.clone(), &act).await?;
        }
        output.line(format_args!(
            "{ask}: that is asked of {count}, and done within about a second where a service runs the saga; \
             `es sagas show` tells what has followed"
        ))?;
        output.flush()?;
        Ok(Outcome::Well)
    }
}

impl Which {
    /// The instances, those of the ids first checked to exist.
    async fn find(&self, saga: &NamedSaga<'_>) -> Result<Instances, CommandError> {
        let mut found = Vec::new();
        if self.instances.is_empty() {
            found = saga.list(self.state.status(), usize::MAX).await?;
        }
        for id in &self.instances {
            found.push((id.clone(), instance(saga, id).await?));
        }
        let status = self.state.status();
        found.retain(|(_, overview)| {
            let has_cause = |text: &String| overview.cause.as_ref().is_some_and(|cause| cause.contains(text));
            status.is_none_or(|status| overview.status == status) && self.cause.as_ref().is_none_or(has_cause)
        });
        Ok(found)
    }
}

async fn named<'a>(store: &'a dyn ServiceStore, name: &str) -> Result<NamedSaga<'a>, CommandError> {
    let all = NamedSaga::all(store).await?;
    let known: Vec<_> = all.iter().map(|saga| saga.name().to_owned()).collect();
    all.into_iter()
        .find(|saga| saga.name() == name)
        .ok_or_else(|| CommandError::Missing(format!("no saga {name:?} has run on this store; there are {known:?}")))
}

/// What is known of an instance; that there is none is an error.
async fn instance(saga: &NamedSaga<'_>, id: &str) -> Result<Overview, CommandError> {
    let missing = || CommandError::Missing(format!("the saga {} has no instance {id:?}", saga.name()));
    saga.get(id).await?.ok_or_else(missing)
}

async fn list(
    sagas: &[NamedSaga<'_>],
    state: &State,
    limit: usize,
    format: Format,
    output: &mut Output,
) -> Result<(), CommandError> {
    let (mut rows, mut left) = (Vec::new(), limit);
    for saga in sagas {
        // One more shows whether there are more.
        let found = saga.list(state.status(), left.saturating_add(1)).await?;
        let shown = found.len().min(left);
        rows.push((saga.name(), found));
        if shown < rows.last().map_or(0, |(_, found)| found.len()) {
            eprintln!("there are more than {limit}: --limit says how many are listed");
            rows.last_mut().into_iter().for_each(|(_, found)| found.truncate(shown));
            break;
        }
        left -= shown;
    }
    let lines = rows.iter().flat_map(|(saga, found)| found.iter().map(|(id, overview)| Line::of(saga, id, overview)));
    write(lines, format, output)
}

fn print(saga: &str, instances: &Instances, format: Format, output: &mut Output) -> Result<(), CommandError> {
    write(instances.iter().map(|(id, overview)| Line::of(saga, id, overview)), format, output)
}

fn write<'a>(lines: impl Iterator<Item = Line<'a>>, format: Format, output: &mut Output) -> Result<(), CommandError> {
    if format.json {
        for line in lines {
            output.json(&line)?;
        }
        return Ok(());
    }
    let row = |line: Line<'_>| {
        let (due, cause) = (line.due.unwrap_or_default(), line.cause.unwrap_or_default());
        [line.saga, line.instance, line.state, &line.changed_at, &due, cause].map(str::to_owned)
    };
    output.table(["SAGA", "INSTANCE", "STATE", "CHANGED", "DUE", "CAUSE"], &lines.map(row).collect::<Vec<_>>())?;
    Ok(())
}

async fn counts(
    sagas: &[NamedSaga<'_>],
    state: &State,
    format: Format,
    output: &mut Output,
) -> Result<(), CommandError> {
    let mut counts = Vec::new();
    for saga in sagas {
        for status in Status::ALL.into_iter().filter(|status| state.status().is_none_or(|only| only == *status)) {
            let instances = saga.count(status).await?;
            counts.push(Count { saga: saga.name(), state: status.as_str(), instances });
        }
    }
    if format.json {
        return counts.iter().try_for_each(|count| Ok(output.json(count)?));
    }
    let row = |count: &Count<'_>| [count.saga.to_owned(), count.state.to_owned(), count.instances.to_string()];
    output.table(["SAGA", "STATE", "INSTANCES"], &counts.iter().map(row).collect::<Vec<_>>())?;
    Ok(())
}

/// The stream of an instance that exists.
async fn stream(saga: &NamedSaga<'_>, id: &str) -> Result<StreamId, CommandError> {
    instance(saga, id).await?;
    Ok(saga.stream(id).map_err(NamedSagaError::from)?)
}

impl From<NamedSagaError> for CommandError {
    fn from(error: NamedSagaError) -> Self {
        match error {
            NamedSagaError::ReadModel(error) => error.into(),
            error => Self::Missing(es_core::error::with_causes(&error)),
        }
    }
}
