//! `es pause | resume | skip | cancel-rebuild | actions`.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use es_core::{ActError, Position, ServiceStore, StoppedAt, backend::Shard};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    act::{Consent, Who},
    end::{CommandError, Outcome},
    output::{Format, Output},
    readers, time,
};

/// How many records are asked for at a time.
const PAGE: usize = 100;

/// A reader to pause or to resume.
#[derive(Debug, Clone, Args)]
pub(crate) struct Switch {
    /// The reader
    reader: String,

    #[command(flatten)]
    who: Who,
}

impl Switch {
    pub(crate) async fn pause(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        let act = self.who.act()?;
        readers::exists(store, &self.reader).await?;
        store.pause(&self.reader, &act).await?;
        output.line(format_args!("{} is paused: its workers finish their batch and wait", self.reader))?;
        output.flush()?;
        Ok(Outcome::Well)
    }

    pub(crate) async fn resume(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        let resumed = store.resume(&self.reader, &self.who.act()?).await;
        if let Err(ActError::NotPaused(_)) = resumed {
            // Not before: the pause of a read model whose first build was cancelled is there without it.
            readers::exists(store, &self.reader).await?;
        }
        resumed?;
        output.line(format_args!("{} continues", self.reader))?;
        output.flush()?;
        Ok(Outcome::Well)
    }
}

/// An event to skip.
#[derive(Debug, Clone, Args)]
pub(crate) struct Skip {
    /// The reader, which has stopped at the event
    reader: String,

    /// The position of the event
    #[arg(long, value_name = "N")]
    position: u64,

    /// The id of the event
    #[arg(long, value_name = "ID")]
    event: Uuid,

    /// The shard of the reader [default: each in which it has stopped at the event]
    #[arg(long, value_name = "SHARD")]
    shard: Option<String>,

    #[command(flatten)]
    who: Who,

    #[command(flatten)]
    consent: Consent,
}

impl Skip {
    pub(crate) async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        let Self { reader, position, event, shard, who, consent } = self;
        let act = who.act()?;
        readers::exists(store, &reader).await?;
        let position = Position::new(position);
        let stops = store.stops(&reader).await?;
        let is_it = |stop: &&StoppedAt| {
            (stop.position, stop.event_id) == (position, event)
                && shard.as_ref().is_none_or(|shard| stop.shard.to_string() == *shard)
        };
        let mut shards: Vec<_> = stops.iter().filter(is_it).map(|stop| stop.shard.clone()).collect();
        // A read model that is rebuilt may have stopped at it twice; both are moved past it.
        shards.sort_unstable();
        shards.dedup();
        if shards.is_empty() {
            return Err(CommandError::Missing(not_stopped(&reader, position, event, shard.as_deref(), &stops)));
        }
        let named = named(&shards);
        let what = format!("{reader} will never handle the event {event} at position {position} in {named}");
        if !consent.to(&what)? {
            return Ok(Outcome::No);
        }
        // An event that cannot be read stops each shard of a reader in per-key order: it is not known whose it is.
        for shard in &shards {
            store.skip(&reader, shard, position, event, &act).await?;
        }
        output.line(format_args!(
            "{reader} is past position {position} in {named}, and continues within some seconds where a service runs it"
        ))?;
        let behind = if shard.is_none() { behind(store, &reader, position).await? } else { Vec::new() };
        if !behind.is_empty() {
            let named = self::named(&behind);
            let (are, one) = if behind.len() == 1 { ("is", "it") } else { ("are", "one of them") };
            output.line(format_args!(
                "{named} {are} yet to come to it: if {one} stops there too, run the same command again"
            ))?;
        }
        output.flush()?;
        Ok(Outcome::Well)
    }
}

/// The command line that moves `reader` past an event: it can be run as it is, or with a better reason.
pub(crate) fn skip_command(reader: &str, shard: Option<&Shard>, position: u64, event: Uuid) -> String {
    let shard = shard.map(|shard| format!(" --shard {shard}")).unwrap_or_default();
    let program = program();
    format!("{program} skip {reader}{shard} --position {position} --event {event} --reason \"it cannot be handled\"")
}

/// The command line that lets `reader` go on, likewise.
pub(crate) fn resume_command(reader: &str) -> String {
    format!("{} resume {reader} --reason \"it may go on\"", program())
}

/// The name of the program that runs: `es`, or that of an application.
pub(crate) fn program() -> String {
    let called = std::env::args_os().next().map(PathBuf::from);
    let name = called.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| "es".to_owned())
}

/// The shards in a sentence.
fn named(shards: &[Shard]) -> String {
    let names: Vec<_> = shards.iter().map(Shard::to_string).collect();
    match &*names {
        [shard] => format!("shard {shard}"),
        _ => format!("the shards {}", names.join(", ")),
    }
}

/// The shards of `reader` that have not reached `position`, where it has more than one.
async fn behind(store: &dyn ServiceStore, reader: &str, position: Position) -> Result<Vec<Shard>, CommandError> {
    let readers = store.list_readers().await?;
    let shards = readers.into_iter().filter(|found| found.reader.name == reader && found.shards.len() > 1);
    let mut behind: Vec<_> = shards
        .flat_map(|found| found.shards)
        .filter(|found| found.position < position)
        .map(|found| found.shard)
        .collect();
    behind.sort_unstable();
    behind.dedup();
    Ok(behind)
}

/// That `reader` has not stopped at an event, and at which events it has.
fn not_stopped(reader: &str, position: Position, event: Uuid, shard: Option<&str>, stops: &[StoppedAt]) -> String {
    let place = shard.map(|shard| format!(" of shard {shard}")).unwrap_or_default();
    let mut text = format!("{reader} has not stopped at the event {event} at position {position}{place}");
    for StoppedAt { shard, position, event_id, .. } in stops {
        let command = skip_command(reader, Some(shard), position.get(), *event_id);
        let _ = write!(text, "\n  it has stopped at another event: `{command}`");
    }
    text
}

/// A rebuild to cancel.
#[derive(Debug, Clone, Args)]
pub(crate) struct CancelRebuild {
    /// The read model
    reader: String,

    #[command(flatten)]
    who: Who,

    #[command(flatten)]
    consent: Consent,
}

impl CancelRebuild {
    pub(crate) async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        let Self { reader, who, consent } = self;
        let act = who.act()?;
        readers::exists(store, &reader).await?;
        let building = store.generations(&reader).await?.building;
        let building = building.ok_or_else(|| ActError::NotBuilding(reader.clone()))?;
        let reached = building.reached;
        if !consent.to(&format!("what is built of {reader}, up to position {reached}, will be deleted"))? {
            return Ok(Outcome::No);
        }
        store.cancel_rebuild(&reader, &act).await?;
        output.line(format_args!("the rebuild of {reader} is cancelled"))?;
        output.flush()?;
        Ok(Outcome::Well)
    }
}

/// Which acts to list.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Actions {
    /// Only acts with a lower number: the last number of the page before
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,

    /// The most acts to list
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,

    #[command(flatten)]
    format: Format,
}

#[derive(Serialize)]
struct Line {
    number: i64,
    at: String,
    actor: String,
    what: String,
    reader: String,
    target: Option<String>,
    position: Option<u64>,
    reason: String,
}

impl Actions {
    pub(crate) async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        let (mut before, mut lines) = (self.before, Vec::new());
        while lines.len() < self.limit {
            let page = store.acts(before, PAGE.min(self.limit - lines.len())).await?;
            let Some(last) = page.last() else { break };
            before = Some(last.id);
            lines.extend(page.into_iter().map(|act| Line {
                number: act.id,
                at: time::text(act.at),
                actor: act.actor,
                what: act.what,
                reader: act.reader,
                target: act.target,
                position: act.position.map(Position::get),
                reason: act.reason,
            }));
        }
        if self.format.json {
            lines.iter().try_for_each(|line| output.json(line))?;
        } else {
            let row = |line: Line| {
                let position = line.position.map(|position| position.to_string()).unwrap_or_default();
                let target = line.target.unwrap_or_default();
                [line.number.to_string(), line.at, line.actor, line.what, line.reader, target, position, line.reason]
            };
            let rows: Vec<_> = lines.into_iter().map(row).collect();
            output.table(["NUMBER", "AT", "ACTOR", "ACT", "READER", "CONCERNS", "POSITION", "REASON"], &rows)?;
        }
        output.flush()?;
        Ok(Outcome::Well)
    }
}
