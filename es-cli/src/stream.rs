//! `es stream show | at | diff`.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use es_core::{
    RecordedEvent, ServiceStore, StreamId, Version,
    backend::{counted, is_last_page},
};

use crate::{
    end::{CommandError, Outcome},
    event::Shown,
    output::Output,
    time,
};

/// How many events are asked for at a time.
const PAGE: usize = 1_000;

/// What to show of a stream.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Stream {
    /// The events of a stream
    Show {
        /// The stream: <category>-<id>
        stream: StreamId,

        /// The version with which to start
        #[arg(long, value_name = "VERSION", default_value_t = 1)]
        from: u64,

        /// The most events to show
        #[arg(long, value_name = "N")]
        limit: Option<usize>,

        #[command(flatten)]
        shown: Shown,
    },
    /// The events of a stream up to a version, a position or a time
    ///
    /// A store knows no types, so it cannot fold them: it shows the events of which the state at that moment is made. The program
    /// of the application folds them into a document: `as-of`.
    At {
        /// The stream: <category>-<id>
        stream: StreamId,

        #[command(flatten)]
        moment: Moment,

        #[command(flatten)]
        shown: Shown,
    },
    /// The events that lie between two versions of a stream
    Diff {
        /// The stream: <category>-<id>
        stream: StreamId,

        /// The earlier version; 0 is before the first event
        from: u64,

        /// The later version
        to: u64,

        #[command(flatten)]
        shown: Shown,
    },
}

/// A moment in the life of a stream.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Moment {
    /// Up to this version
    #[arg(long, value_name = "N")]
    version: Option<u64>,

    /// Up to this position of the log
    #[arg(long, value_name = "N")]
    position: Option<u64>,

    /// Up to this time, by the clock of the store, for example 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    time: Option<DateTime<Utc>>,
}

impl Moment {
    fn holds(&self, event: &RecordedEvent) -> bool {
        self.version.is_none_or(|version| event.version.get() <= version)
            && self.position.is_none_or(|position| event.position.get() <= position)
            && self.time.is_none_or(|time| event.recorded_at <= time)
    }
}

impl Stream {
    pub(crate) async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        match self {
            Self::Show { stream, from, limit, shown } => {
                let limit = limit.unwrap_or(usize::MAX);
                let mut left = limit;
                let last = read(store, &stream, from.saturating_sub(1), |events| {
                    let events = &events[..events.len().min(left)];
                    left -= events.len();
                    shown.print(events, output)?;
                    Ok(left > 0)
                });
                let last = last.await?;
                if last.is_none() && limit > 0 {
                    exists(store, &stream, from).await?;
                }
            }
            Self::At { stream, moment, shown } => {
                let mut count = 0;
                let last = read(store, &stream, 0, |events| {
                    let ends = events.iter().position(|event| !moment.holds(event));
                    let events = &events[..ends.unwrap_or(events.len())];
                    count += events.len() as u64;
                    shown.print(events, output)?;
                    Ok(ends.is_none())
                });
                if last.await?.is_none() {
                    exists(store, &stream, 1).await?;
                }
                if let Some(version) = moment.version.filter(|version| count < *version) {
                    return Err(missing(&stream, version, count));
                }
                if !shown.is_json() {
                    output.line(format_args!("{stream} had version {count} then"))?;
                }
            }
            Self::Diff { stream, from, to, shown } => {
                if from > to {
                    let what = format!("version {from} is later than version {to}");
                    return Err(CommandError::usage(what, "name the earlier version first"));
                }
                let mut count = from;
                let last = read(store, &stream, from, |events| {
                    let ends = events.iter().position(|event| event.version.get() > to);
                    let events = &events[..ends.unwrap_or(events.len())];
                    count += events.len() as u64;
                    shown.print(events, output)?;
                    Ok(count < to)
                });
                last.await?;
                if count < to {
                    exists(store, &stream, from).await?;
                    return Err(missing(&stream, to, count));
                }
            }
        }
        output.flush()?;
        Ok(Outcome::Well)
    }
}

/// Hands the events after version `after` to `page`, a page at a time, until it wants no more. The last event that was read.
async fn read(
    store: &dyn ServiceStore,
    stream: &StreamId,
    after: u64,
    mut page: impl FnMut(&[RecordedEvent]) -> std::io::Result<bool>,
) -> Result<Option<Version>, CommandError> {
    let (mut at, mut last) = (Version::new(after), None);
    loop {
        let events = store.read_stream(stream, at, PAGE).await?;
        let goes_on = page(&events)?;
        let Some(event) = events.last() else { return Ok(last) };
        (at, last) = (event.version, Some(event.version));
        if !goes_on || is_last_page(&events, PAGE) {
            return Ok(last);
        }
    }
}

/// That `stream` is not there, or has fewer events than were named.
async fn exists(store: &dyn ServiceStore, stream: &StreamId, from: u64) -> Result<(), CommandError> {
    let summary = store.list_streams(stream.as_str(), None, 1).await?;
    match summary.first().filter(|summary| summary.stream == *stream) {
        None => Err(CommandError::Missing(format!("there is no stream {stream}"))),
        Some(summary) if summary.version.get() < from => Err(missing(stream, from, summary.version.get())),
        Some(_) => Ok(()),
    }
}

fn missing(stream: &StreamId, version: u64, count: u64) -> CommandError {
    CommandError::Missing(format!("stream {stream} has no version {version}: it has {}", counted(count, "event")))
}
