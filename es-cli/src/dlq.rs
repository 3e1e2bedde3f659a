//! `es dlq`.

mod of_service;

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand, ValueEnum};
use es_core::{
    Act, ServiceStore,
    backend::{Finding, counted},
    error::with_causes,
};
use es_kafka::{DeadLetterError, DeadLetterTopic, DeadRecord, DeadRecordFilter, ReplayTo};
use serde::Serialize;

pub(crate) use self::of_service::{OfService, findings};
use crate::{
    act::{Consent, Intent},
    end::{CommandError, Outcome},
    event::Data,
    operate::program,
    output::{Format, Output},
    time,
};

/// A command on the dead-letter topic of a topic that another system fills.
#[derive(Debug, Clone, Subcommand)]
#[expect(private_interfaces, reason = "the command line makes them, and `run` carries them out")]
pub enum DlqCommand {
    /// Lists the records that wait, how many they are and how old the oldest is
    ///
    /// With --most or --max-age the exit code is 1 when there are more, or when one has failed longer ago: for a monitor.
    List(Listing),
    /// Shows one record with its story and its headers
    Show(Showing),
    /// Produces records again: for the handler that could not handle them, or for all consumers of the topic
    Replay(Replaying),
    /// Marks records as done: they are not listed any more, and no handler gets them
    Discard(Discarding),
}

/// Which records are listed, and how many of them may wait.
#[derive(Debug, Clone, Args)]
pub(crate) struct Listing {
    #[command(flatten)]
    filter: Filter,

    /// The most records to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,

    /// How many records may wait
    #[arg(long, value_name = "N")]
    most: Option<usize>,

    /// How long ago a record may have failed, for example 90s, 15min, 2h or 1d
    #[arg(long, value_name = "TIME", value_parser = parsed_age)]
    max_age: Option<TimeDelta>,

    #[command(flatten)]
    format: Format,
}

/// Which record is shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct Showing {
    /// Its offset in the dead-letter topic
    #[arg(long, value_name = "N")]
    at: i64,

    /// Its partition there
    #[arg(long, value_name = "N", default_value_t = 0)]
    partition: i32,

    /// Prints what the record holds, too. It may be personal
    #[arg(long)]
    data: bool,

    #[command(flatten)]
    format: Format,
}

/// What is replayed, and to where.
#[derive(Debug, Clone, Args)]
pub(crate) struct Replaying {
    /// To the handler alone, through the first retry topic; or to the original topic
    #[arg(long, value_enum, value_name = "WHERE")]
    to: To,

    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    intent: Intent,

    #[command(flatten)]
    consent: Consent,
}

/// What is discarded.
#[derive(Debug, Clone, Args)]
pub(crate) struct Discarding {
    #[command(flatten)]
    which: Which,

    #[command(flatten)]
    intent: Intent,

    #[command(flatten)]
    consent: Consent,
}

/// Where records are replayed to.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum To {
    Handler,
    Topic,
}

/// Which records are meant: those for which all of these hold.
#[derive(Debug, Clone, Args)]
pub(crate) struct Filter {
    /// Those of this consumer
    #[arg(long, value_name = "NAME")]
    handler: Option<String>,

    /// Those that failed in this way, for example refused or unreadable
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,

    /// Those of this partition of the original topic
    #[arg(long, value_name = "N")]
    original_partition: Option<i32>,

    /// Those that had this offset there
    #[arg(long, value_name = "N")]
    original_offset: Option<i64>,

    /// Those that failed at this time or later
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    since: Option<DateTime<Utc>>,
}

impl From<Filter> for DeadRecordFilter {
    fn from(filter: Filter) -> Self {
        let Filter { handler, class, original_partition, original_offset, since } = filter;
        Self { handler, class, original_partition, original_offset, since, offset: None, partition: None }
    }
}

impl Filter {
    fn is_empty(&self) -> bool {
        DeadRecordFilter::from(self.clone()) == DeadRecordFilter::default()
    }
}

/// Which records an act concerns.
#[derive(Debug, Clone, Args)]
pub(crate) struct Which {
    /// The one at this offset of the dead-letter topic
    #[arg(long, value_name = "N", conflicts_with = "all")]
    at: Option<i64>,

    /// In this partition of the dead-letter topic, where it has several
    #[arg(long, value_name = "N", requires = "at")]
    partition: Option<i32>,

    /// All of them
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    filter: Filter,
}

impl Which {
    async fn find(self, topic: &DeadLetterTopic) -> Result<Vec<DeadRecord>, CommandError> {
        let Self { at, partition, all, filter } = self;
        if at.is_none() && !all && filter.is_empty() {
            return Err(CommandError::usage("no records are named", "pass --at N, a filter, or --all"));
        }
        let filter = DeadRecordFilter { offset: at, partition, ..filter.into() };
        let found = topic.list(&filter).await?;
        if found.is_empty() {
            return Err(CommandError::Missing(format!("no such record waits in {}", topic.name())));
        }
        if at.is_some() && found.len() > 1 {
            let partitions: Vec<_> = found.iter().map(|record| record.partition.to_string()).collect();
            let what = format!("records wait at this offset in partitions {}", partitions.join(", "));
            return Err(CommandError::usage(what, "name one with --partition"));
        }
        Ok(found)
    }
}

/// A record as a line of JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    partition: i32,
    offset: i64,
    handler: Option<&'a str>,
    class: &'a str,
    message: &'a str,
    attempts: u32,
    failed_at: Option<String>,
    original_topic: &'a str,
    original_partition: i32,
    original_offset: i64,
    original_at: Option<String>,
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Vec<(&'a str, Option<String>)>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

impl<'a> Line<'a> {
    fn of(record: &'a DeadRecord, with_headers: bool, with_data: bool) -> Self {
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let headers = record.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref().map(text)));
        Self {
            partition: record.partition,
            offset: record.offset,
            handler: record.handler.as_deref(),
            class: &record.class,
            message: &record.message,
            attempts: record.attempts,
            failed_at: record.failed_at.map(time::text),
            original_topic: &record.original_topic,
            original_partition: record.original_partition,
            original_offset: record.original_offset,
            original_at: record.original_at.map(time::text),
            key: record.key.as_ref().map(text),
            headers: with_headers.then(|| headers.collect()),
            data: record.value.as_deref().filter(|_| with_data).map(Data::of),
        }
    }
}

impl DlqCommand {
    /// Whether it changes something, and so is recorded.
    pub fn is_act(&self) -> bool {
        matches!(self, Self::Replay(_) | Self::Discard(_))
    }

    /// Carries it out on the dead letters of `topic`, and prints to `output`. Acts are recorded in `store` too, if one is given.
    ///
    /// # Errors
    /// [`CommandError`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves a part of the records replayed or discarded.
    pub async fn run(
        self,
        topic: &DeadLetterTopic,
        store: Option<Arc<dyn ServiceStore>>,
        output: &mut Output,
    ) -> Result<Outcome, CommandError> {
        match self {
            Self::List(Listing { filter, limit, most, max_age, format }) => {
                let found = topic.list(&filter.into()).await?;
                print(&found[..found.len().min(limit)], format, output)?;
                if !format.json {
                    output.line(count(&found, topic))?;
                }
                output.flush()?;
                let is_over = most.is_some_and(|most| found.len() > most)
                    || max_age.zip(age(&found)).is_some_and(|(most, age)| age > most);
                if is_over {
                    eprintln!("what to do: {}", what_to_do(topic));
                }
                Ok(if is_over { Outcome::No } else { Outcome::Well })
            }
            Self::Show(Showing { at, partition, data, format }) => {
                let record = topic.show(partition, at).await?;
                let line = Line::of(&record, true, data);
                if format.json {
                    output.json(&line)?;
                } else {
                    show(&line, output)?;
                }
                output.flush()?;
                Ok(Outcome::Well)
            }
            Self::Replay(Replaying { to, which, intent, consent }) => {
                let (to, place) = match to {
                    To::Handler => (ReplayTo::Handler, "their handlers".to_owned()),
                    To::Topic => (ReplayTo::Topic, format!("all consumers of {}", topic.original())),
                };
                let found = which.find(topic).await?;
                let Some(act) = agreed(&found, &intent, consent, &format!("go to {place}"), output)? else {
                    return Ok(if intent.dry_run { Outcome::Well } else { Outcome::No });
                };
                topic.replay(&found, to, &act).await?;
                record("replay", &found, store, &act).await?;
                said(&found, "replayed", output)
            }
            Self::Discard(Discarding { which, intent, consent }) => {
                let found = which.find(topic).await?;
                let Some(act) = agreed(&found, &intent, consent, "will never be handled", output)? else {
                    return Ok(if intent.dry_run { Outcome::Well } else { Outcome::No });
                };
                topic.discard(&found, &act).await?;
                record("discard", &found, store, &act).await?;
                said(&found, "discarded", output)
            }
        }
    }
}

/// What waits in `topic`, for `doctor`.
pub(crate) async fn waits(topic: &DeadLetterTopic) -> Finding {
    const CHECK: &str = "dead letters";
    match topic.list(&DeadRecordFilter::default()).await {
        Ok(found) if found.is_empty() => Finding::ok(CHECK, format!("no record waits in {}", topic.name())),
        Ok(found) => Finding::warning(CHECK, count(&found, topic), what_to_do(topic)),
        Err(error) => {
            let found = format!("{} cannot be read: {}", topic.name(), with_causes(&error));
            Finding::warning(CHECK, found, "look whether the brokers are there, and what they grant to this client")
        }
    }
}

/// How many records wait in `topic`, and for how long.
fn count(found: &[DeadRecord], topic: &DeadLetterTopic) -> String {
    let since = age(found).map(|age| format!(", the oldest for {}", time::duration(age))).unwrap_or_default();
    let (count, are) = (counted(found.len(), "record"), if found.len() == 1 { "waits" } else { "wait" });
    format!("{count} {are} in {}{since}", topic.name())
}

/// How long ago the first of them failed.
fn age(found: &[DeadRecord]) -> Option<TimeDelta> {
    let oldest = found.iter().filter_map(|record| record.failed_at).min();
    oldest.map(|oldest| Utc::now() - oldest)
}

/// What an operator does about records that wait in `topic`.
fn what_to_do(topic: &DeadLetterTopic) -> String {
    let (program, topic) = (program(), topic.original());
    format!(
        "`{program} dlq show --topic {topic} --at N` tells why one has failed; mend the cause and `dlq replay` them, or `dlq discard` them"
    )
}

/// Shows the records that an act concerns, and asks whether it is meant; `None`: it is not.
fn agreed(
    found: &[DeadRecord],
    intent: &Intent,
    consent: Consent,
    what: &str,
    output: &mut Output,
) -> Result<Option<Act>, CommandError> {
    let act = intent.act()?;
    print(found, Format::default(), output)?;
    output.flush()?;
    let Some(act) = act else { return Ok(None) };
    let meant = consent.to(&format!("{} {what}", counted(found.len(), "record")))?;
    Ok(meant.then_some(act))
}

/// One act for each handler.
async fn record(
    what: &str,
    found: &[DeadRecord],
    store: Option<Arc<dyn ServiceStore>>,
    act: &Act,
) -> Result<(), CommandError> {
    let Some(store) = store else { return Ok(()) };
    let mut handlers: Vec<_> = found.iter().filter_map(|record| record.handler.as_deref()).collect();
    handlers.sort_unstable();
    handlers.dedup();
    for handler in handlers {
        store.record(what, handler, act).await?;
    }
    Ok(())
}

fn said(found: &[DeadRecord], done: &str, output: &mut Output) -> Result<Outcome, CommandError> {
    let were = if found.len() == 1 { "was" } else { "were" };
    output.line(format_args!("{} {were} {done}", counted(found.len(), "record")))?;
    output.flush()?;
    Ok(Outcome::Well)
}

fn print(found: &[DeadRecord], format: Format, output: &mut Output) -> Result<(), CommandError> {
    let lines = found.iter().map(|record| Line::of(record, false, false));
    if format.json {
        for line in lines {
            output.json(&line)?;
        }
        return Ok(());
    }
    let row = |line: Line<'_>| {
        [
            line.offset.to_string(),
            line.handler.unwrap_or("-").to_owned(),
            line.class.to_owned(),
            format!("{}/{} {}", line.original_topic, line.original_partition, line.original_offset),
            line.attempts.to_string(),
            line.failed_at.unwrap_or_default(),
            line.message.to_owned(),
        ]
    };
    let rows: Vec<_> = lines.map(row).collect();
    output.table(["AT", "HANDLER", "CLASS", "ORIGINAL", "ATTEMPTS", "FAILED", "MESSAGE"], &rows)?;
    Ok(())
}

fn show(line: &Line<'_>, output: &mut Output) -> Result<(), CommandError> {
    let Line {
        partition, offset, class, message, attempts, original_topic, original_partition, original_offset, ..
    } = line;
    let failed_at = line.failed_at.as_deref().unwrap_or("at an unknown time");
    output
        .line(format_args!("{partition}/{offset}: {original_topic}/{original_partition} offset {original_offset}"))?;
    output.line(format_args!("  handler   {}", line.handler.unwrap_or("none")))?;
    output.line(format_args!("  failed    {failed_at}, after {}: {class}", counted(*attempts, "attempt")))?;
    output.line(format_args!("  message   {message}"))?;
    output.line(format_args!("  key       {}", line.key.as_deref().unwrap_or("none")))?;
    for (name, value) in line.headers.iter().flatten() {
        output.line(format_args!("  header    {name}: {}", value.as_deref().unwrap_or("none")))?;
    }
    if let Some(data) = &line.data {
        output.line(format_args!("  value     {}", data.text()))?;
    }
    Ok(())
}

/// `90s`, `15min`, `2h`, `1d`.
fn parsed_age(text: &str) -> Result<TimeDelta, String> {
    let units = [("min", 60), ("s", 1), ("h", 3_600), ("d", 86_400)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number = text.strip_suffix(unit)?.trim().parse::<i64>().ok()?;
        TimeDelta::try_seconds(number.checked_mul(*seconds)?)
    });
    parsed.filter(|age| *age >= TimeDelta::zero()).ok_or_else(|| "write it like 90s, 15min, 2h or 1d".to_owned())
}

impl From<DeadLetterError> for CommandError {
    fn from(error: DeadLetterError) -> Self {
        let (advice, is_transient) = match &error {
            DeadLetterError::Gone { .. } => return Self::Missing(error.to_string()),
            DeadLetterError::NoTopic { topic } => {
                let advice = format!(
                    "replay to the topic, or declare `retry_after` for it and start its consumer, which creates {topic:?}"
                );
                return Self::usage(error.to_string(), advice);
            }
            DeadLetterError::NoHandler { .. } => ("replay it to the topic, or discard it", false),
            DeadLetterError::HeaderName { .. } => {
                ("replay it to its handler, which gets it without that header, or discard it", false)
            }
            error => ("look whether the brokers are there, and what they grant to this client", error.is_transient()),
        };
        Self::Kafka { advice: advice.to_owned(), is_transient, cause: error.into() }
    }
}
