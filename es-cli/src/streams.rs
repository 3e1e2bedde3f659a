//! `es streams`.

use std::collections::BTreeMap;

use clap::Args;
use es_core::{ServiceStore, backend::check_category};
use serde::Serialize;

use crate::{
    end::{CommandError, Outcome},
    output::{Format, Output},
    time,
};

/// How many streams are asked for at a time.
const PAGE: usize = 1_000;

/// Which streams to list.
#[derive(Debug, Clone, Args)]
pub(crate) struct Streams {
    /// Only streams whose names start with this
    #[arg(long, value_name = "TEXT", conflicts_with = "category")]
    prefix: Option<String>,

    /// Only streams of this category
    #[arg(long, value_name = "NAME", value_parser = category)]
    category: Option<String>,

    /// Only streams whose names come after this one: the last name of the page before
    #[arg(long, value_name = "STREAM")]
    after: Option<String>,

    /// The most streams to list
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,

    /// Lists all of them, without a limit
    #[arg(long, conflicts_with = "limit")]
    all: bool,

    /// Counts the streams and events of each category in place of listing them; it reads the names of all of them
    #[arg(long, conflicts_with_all = ["limit", "all"])]
    count: bool,

    #[command(flatten)]
    format: Format,
}

fn category(name: &str) -> Result<String, String> {
    check_category(name).map_err(|error| error.to_string())?;
    Ok(name.to_owned())
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Line<'a> {
    stream: &'a str,
    category: &'a str,
    events: u64,
    position: u64,
    recorded_at: String,
}

#[derive(Serialize)]
struct Count<'a> {
    category: &'a str,
    streams: u64,
    events: u64,
}

impl Streams {
    pub(crate) async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        let prefix = match (&self.prefix, &self.category) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(category)) => format!("{category}-"),
            (None, None) => String::new(),
        };
        if self.count { self.count(store, &prefix, output).await } else { self.list(store, &prefix, output).await }
    }

    async fn list(&self, store: &dyn ServiceStore, prefix: &str, output: &mut Output) -> Result<Outcome, CommandError> {
        let mut left = if self.all { usize::MAX } else { self.limit };
        let mut after = self.after.clone();
        while left > 0 {
            // One more shows whether there are more.
            let asked = left.saturating_add(1).min(PAGE);
            let page = store.list_streams(prefix, after.as_deref(), asked).await?;
            let (shown, is_last) = (page.len().min(left), page.len() < asked);
            let lines = page[..shown].iter().map(|found| Line {
                stream: found.stream.as_str(),
                category: found.stream.category(),
                events: found.version.get(),
                position: found.position.get(),
                recorded_at: time::text(found.recorded_at),
            });
            if self.format.json {
                lines.into_iter().try_for_each(|line| output.json(&line))?;
            } else {
                let row = |line: Line<'_>| {
                    [line.stream.to_owned(), line.events.to_string(), line.position.to_string(), line.recorded_at]
                };
                let rows: Vec<_> = lines.map(row).collect();
                output.table(["STREAM", "EVENTS", "POSITION", "LAST EVENT"], &rows)?;
            }
            output.flush()?;
            let Some(last) = page[..shown].last() else { break };
            if shown < page.len() {
                eprintln!("there are more: --after {:?}", last.stream.as_str());
                break;
            }
            if is_last {
                break;
            }
            after = Some(last.stream.to_string());
            left -= shown;
        }
        Ok(Outcome::Well)
    }

    async fn count(
        &self,
        store: &dyn ServiceStore,
        prefix: &str,
        output: &mut Output,
    ) -> Result<Outcome, CommandError> {
        let (mut counts, mut after) = (BTreeMap::<String, (u64, u64)>::new(), self.after.clone());
        loop {
            let page = store.list_streams(prefix, after.as_deref(), PAGE).await?;
            for found in &page {
                let (streams, events) = counts.entry(found.stream.category().to_owned()).or_default();
                *streams += 1;
                *events += found.version.get();
            }
            let Some(last) = page.last() else { break };
            after = Some(last.stream.to_string());
        }
        if self.format.json {
            for (category, (streams, events)) in &counts {
                output.json(&Count { category, streams: *streams, events: *events })?;
            }
        } else {
            let row = |(category, (streams, events)): (&String, &(u64, u64))| {
                [category.clone(), streams.to_string(), events.to_string()]
            };
            output.table(["CATEGORY", "STREAMS", "EVENTS"], &counts.iter().map(row).collect::<Vec<_>>())?;
        }
        output.flush()?;
        Ok(Outcome::Well)
    }
}
