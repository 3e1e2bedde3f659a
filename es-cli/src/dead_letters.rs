//! `es dead-letters`.

use std::{
    fs,
    io::{self, Read},
    path::PathBuf,
};

use bytes::Bytes;
use clap::{Args, Subcommand};
use es_core::{Act, ActError, DeadLetter, LetterPage, Position, ServiceStore, backend::counted};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    act::{Consent, Intent},
    end::{CommandError, Outcome},
    event::Data,
    output::{Format, Output},
    readers, time,
};

/// How many letters are asked for at a time.
const PAGE: usize = 100;

/// What to do with dead letters: events that a reader could not handle, and those that wait behind them.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DeadLetters {
    /// Lists the dead letters of a reader, in the order in which they will be handled
    List {
        /// The reader
        reader: String,

        /// Only those under this key
        #[arg(long, value_name = "KEY")]
        key: Option<String>,

        /// The most letters to list
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,

        #[command(flatten)]
        format: Format,
    },
    /// Shows the dead letters under a key, with why they failed
    Show {
        #[command(flatten)]
        letters: Letters,

        /// Prints what the events hold, too. It may be personal
        #[arg(long)]
        data: bool,

        #[command(flatten)]
        format: Format,
    },
    /// Lets the reader handle the letters under a key again, in order
    Retry {
        /// The reader
        reader: String,

        /// The key
        key: String,

        #[command(flatten)]
        intent: Intent,
    },
    /// Deletes letters: the reader never handles their events
    Discard {
        #[command(flatten)]
        letters: Letters,

        #[command(flatten)]
        intent: Intent,

        #[command(flatten)]
        consent: Consent,
    },
    /// Replaces the payload in a letter; the event in the log stays as it was recorded
    Edit {
        /// The reader
        reader: String,

        /// The key
        key: String,

        /// The position of the event
        #[arg(long, value_name = "N")]
        position: u64,

        /// A file with the new payload; - is the standard input
        #[arg(long, value_name = "FILE")]
        file: PathBuf,

        #[command(flatten)]
        intent: Intent,

        #[command(flatten)]
        consent: Consent,
    },
}

/// Letters under a key.
#[derive(Debug, Clone, Args)]
pub(crate) struct Letters {
    /// The reader
    reader: String,

    /// The key
    key: String,

    /// Only the letter of the event at this position
    #[arg(long, value_name = "N")]
    position: Option<u64>,
}

/// A letter as a line of JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    key: &'a str,
    position: u64,
    stream: &'a str,
    version: u64,
    id: Uuid,
    #[serde(rename = "type")]
    name: &'a str,
    schema_version: u32,
    reader_id: i64,
    shard: String,
    attempts: u32,
    edited: bool,
    parked_at: String,
    /// `None`: it waits behind an earlier letter.
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_data: Option<Data<'a>>,
}

impl<'a> Line<'a> {
    fn of(letter: &'a DeadLetter, with_data: bool) -> Self {
        let event = &letter.event;
        Self {
            key: &letter.key,
            position: event.position.get(),
            stream: event.stream.as_str(),
            version: event.version.get(),
            id: event.id,
            name: &event.data.name,
            schema_version: event.data.schema_version,
            reader_id: letter.reader.id,
            shard: letter.shard.to_string(),
            attempts: letter.attempts,
            edited: letter.edited.is_some(),
            parked_at: time::text(letter.parked_at),
            cause: letter.cause.as_deref(),
            data: with_data.then(|| Data::of(&event.data.payload)),
            edited_data: letter.edited.as_deref().filter(|_| with_data).map(Data::of),
        }
    }
}

impl DeadLetters {
    fn reader(&self) -> &str {
        match self {
            Self::List { reader, .. } | Self::Retry { reader, .. } | Self::Edit { reader, .. } => reader,
            Self::Show { letters, .. } | Self::Discard { letters, .. } => &letters.reader,
        }
    }

    pub(crate) async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        readers::exists(store, self.reader()).await?;
        match self {
            Self::List { reader, key, limit, format } => {
                let letters = read(store, &reader, key.as_deref(), None, limit).await?;
                print(&letters, format, output)?;
            }
            Self::Show { letters: which, data, format } => {
                let letters = which.find(store).await?;
                for line in letters.iter().map(|letter| Line::of(letter, data)) {
                    if format.json { output.json(&line)? } else { show(&line, output)? }
                }
            }
            Self::Retry { reader, key, intent } => {
                if let Some(act) = intent.act()? {
                    store.request_retry(&reader, &key, &act).await?;
                    output
                        .line(format_args!("{reader} handles {key:?} again within about a second, if a worker runs"))?;
                } else {
                    let letters = Letters { reader, key, position: None }.find(store).await?;
                    print(&letters, Format::default(), output)?;
                }
            }
            Self::Discard { letters: which, intent, consent } => {
                let act = intent.act()?;
                let letters = which.find(store).await?;
                preview(&letters, output)?;
                if let Some(act) = act {
                    let Letters { reader, key, .. } = which;
                    let count = letters.len();
                    if !consent.to(&format!("{reader} will never handle {} of {key:?}", counted(count, "event")))? {
                        return Ok(Outcome::No);
                    }
                    let count = discard(store, &reader, &key, &letters, &act).await?;
                    let were = if count == 1 { "was" } else { "were" };
                    output.line(format_args!("{} {were} discarded", counted(count, "letter")))?;
                }
            }
            Self::Edit { reader, key, position, file, intent, consent } => {
                let act = intent.act()?;
                let payload = payload(&file)?;
                let letters = Letters { reader: reader.clone(), key: key.clone(), position: Some(position) };
                preview(&letters.find(store).await?, output)?;
                es_core::read::read_model::check_payload(&payload)?;
                if let Some(act) = act {
                    if !consent.to(&format!(
                        "the next retry handles {} in this letter",
                        counted(payload.len(), "other byte")
                    ))? {
                        return Ok(Outcome::No);
                    }
                    store.edit_letter(&reader, &key, Position::new(position), payload, &act).await?;
                    output.line("the letter was edited: retry it now")?;
                }
            }
        }
        output.flush()?;
        Ok(Outcome::Well)
    }
}

impl Letters {
    /// The letters; that there is none is an error.
    async fn find(&self, store: &dyn ServiceStore) -> Result<Vec<DeadLetter>, CommandError> {
        let letters = read(store, &self.reader, Some(&self.key), self.position, usize::MAX).await?;
        if letters.is_empty() {
            let Self { reader, key, position } = self;
            let place = position.map(|position| format!(" at position {position}")).unwrap_or_default();
            return Err(CommandError::Missing(format!("{reader} has no dead letter under {key:?}{place}")));
        }
        Ok(letters)
    }
}

async fn read(
    store: &dyn ServiceStore,
    reader: &str,
    key: Option<&str>,
    position: Option<u64>,
    limit: usize,
) -> Result<Vec<DeadLetter>, CommandError> {
    let mut letters = Vec::new();
    let mut page = LetterPage { key: key.map(str::to_owned), ..LetterPage::first(PAGE) };
    while letters.len() < limit {
        let found = store.dead_letters(reader, &page).await?;
        let Some(last) = found.last() else { break };
        page.after = Some(last.id());
        letters.extend(found.into_iter().filter(|letter| position.is_none_or(|at| letter.event.position.get() == at)));
    }
    letters.truncate(limit);
    Ok(letters)
}

/// Discards the letters that were shown, and no other: letters may have come since. Those that were handled meanwhile are not
/// counted.
async fn discard(
    store: &dyn ServiceStore,
    reader: &str,
    key: &str,
    letters: &[DeadLetter],
    act: &Act,
) -> Result<u64, CommandError> {
    let mut count = 0;
    for letter in letters {
        match store.discard_letters(reader, key, Some(letter.event.position), act).await {
            Ok(discarded) => count += discarded,
            Err(ActError::NoLetter { .. } | ActError::NotParked { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(count)
}

/// Shows the letters that an act concerns. That the reader of the output has gone is an error here, since the act is not done.
fn preview(letters: &[DeadLetter], output: &mut Output) -> Result<(), CommandError> {
    let shown = print(letters, Format::default(), output).and_then(|()| Ok(output.flush()?));
    shown.map_err(|error| match error {
        CommandError::Output(error) => CommandError::Output(io::Error::other(error)),
        error => error,
    })
}

fn print(letters: &[DeadLetter], format: Format, output: &mut Output) -> Result<(), CommandError> {
    let lines: Vec<_> = letters.iter().map(|letter| Line::of(letter, false)).collect();
    if format.json {
        lines.iter().try_for_each(|line| output.json(line))?;
        return Ok(());
    }
    let row = |line: &Line<'_>| {
        [
            line.key.to_owned(),
            line.position.to_string(),
            format!("{} {}", line.stream, line.version),
            line.name.to_owned(),
            line.attempts.to_string(),
            line.cause.unwrap_or("waits behind an earlier one").to_owned(),
        ]
    };
    let rows: Vec<_> = lines.iter().map(row).collect();
    output.table(["KEY", "POSITION", "EVENT", "TYPE", "ATTEMPTS", "CAUSE"], &rows)?;
    Ok(())
}

fn show(line: &Line<'_>, output: &mut Output) -> std::io::Result<()> {
    let Line { key, position, stream, version, id, name, schema_version, attempts, parked_at, .. } = line;
    output.line(format_args!("{key:?} at position {position}: {stream} {version}  {name} v{schema_version}  {id}"))?;
    match line.cause {
        Some(cause) => {
            output.line(format_args!("  parked at {parked_at} after {}: {cause}", counted(*attempts, "attempt")))?;
        }
        None => output.line(format_args!("  parked at {parked_at}: it waits behind an earlier letter of its key"))?,
    }
    if let Some(data) = &line.data {
        output.line(format_args!("  recorded: {}", data.text()))?;
    }
    match (&line.edited_data, line.edited) {
        (Some(data), _) => output.line(format_args!("  edited:   {}", data.text())),
        (None, true) => output.line("  its payload was edited"),
        (None, false) => Ok(()),
    }
}

fn payload(file: &PathBuf) -> Result<Bytes, CommandError> {
    let mut payload = Vec::new();
    let read = if file.as_os_str() == "-" {
        std::io::stdin().read_to_end(&mut payload).map(drop)
    } else {
        fs::read(file).map(|bytes| payload = bytes)
    };
    read.map_err(|error| {
        CommandError::usage(format!("{} cannot be read: {error}", file.display()), "name another file")
    })?;
    Ok(payload.trim_ascii().to_vec().into())
}
