//! `es log tail`.

use std::time::Duration;

use clap::{Args, Subcommand};
use es_core::{Position, ServiceStore, backend::is_last_page, error::with_causes};

use crate::{
    end::{CommandError, Outcome},
    event::Shown,
    output::Output,
};

/// How many events are asked for at a time.
const PAGE: usize = 1_000;

/// How long it waits after the store has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What to show of the log.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Log {
    /// The last events of the log, or those from a position on
    Tail(Tail),
}

/// Which events to show.
#[derive(Debug, Clone, Args)]
pub(crate) struct Tail {
    /// Waits for more events and shows them, until it is stopped
    #[arg(long, short)]
    follow: bool,

    /// The position with which to start [default: that of the last events]
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,

    /// How many of the last events to show
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, conflicts_with = "from")]
    lines: u64,

    /// The most events to show
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// Only events of this category
    #[arg(long, value_name = "NAME")]
    category: Option<String>,

    #[command(flatten)]
    shown: Shown,
}

impl Tail {
    /// With how many of the last events it begins. Fewer are the very last ones, unless more are waited for or left out.
    fn last(&self) -> u64 {
        let most = self.limit.filter(|_| !self.follow && self.category.is_none());
        most.map_or(self.lines, |most| self.lines.min(most as u64))
    }
}

impl Log {
    pub(crate) async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        let Self::Tail(tail) = self;
        let mut at = match tail.from {
            Some(from) => Position::new(from.saturating_sub(1)),
            None => Position::new(store.head().await?.get().saturating_sub(tail.last())),
        };
        let mut left = tail.limit.unwrap_or(usize::MAX);
        while left > 0 {
            let mut events = match store.read_log(at, PAGE).await {
                Ok(events) => events,
                Err(error) if tail.follow && error.is_transient() => {
                    eprintln!("the store failed and is asked again: {}", with_causes(&error));
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let is_last = is_last_page(&events, PAGE);
            at = events.last().map_or(at, |event| event.position);
            if let Some(category) = &tail.category {
                events.retain(|event| event.stream.category() == category);
            }
            events.truncate(left);
            left -= events.len();
            tail.shown.print(&events, output)?;
            if is_last && tail.follow {
                // A failure shows in the next read.
                let _ = store.wait_past(at).await;
            } else if is_last {
                break;
            }
        }
        Ok(Outcome::Well)
    }
}
