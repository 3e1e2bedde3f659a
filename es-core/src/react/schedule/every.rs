//! Again and again.

use std::str::FromStr;

use chrono::{DateTime, TimeDelta, Utc};
use croner::Cron;
use serde::{Deserialize, Serialize};

/// When something is run again and again: at the times of a cron pattern, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Every {
    pattern: String,
    missed: Missed,
}

/// How long after its time a run counts as missed.
const MISSED_AFTER: TimeDelta = TimeDelta::minutes(1);

/// What becomes of runs whose times have passed while no process ran, or while the run before was under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// One run stands for all of them.
    #[default]
    Once,
    /// Each of them is made up for, one after the other (at most [`Every::MOST_MISSED`]).
    All,
    /// None of them, where that is more than a minute ago.
    None,
}

/// The pattern is none that cron understands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is no cron pattern: {cause}")]
pub struct InvalidPattern {
    /// The pattern.
    pub pattern: String,
    /// Why.
    pub cause: String,
}

impl Every {
    /// The most missed runs that are made up for.
    pub const MOST_MISSED: u32 = 1_000;

    /// At the times of `pattern`: minute, hour, day of the month, month, day of the week, in UTC, for example `0 8 * * MON-FRI`.
    ///
    /// # Errors
    /// [`InvalidPattern`], also if there is no such time.
    pub fn cron(pattern: &str) -> Result<Self, InvalidPattern> {
        let every = Self { pattern: pattern.to_owned(), missed: Missed::default() };
        every.after(DateTime::UNIX_EPOCH)?;
        Ok(every)
    }

    /// What becomes of missed runs ([`Missed::Once`] by default).
    #[must_use]
    pub fn missed(self, missed: Missed) -> Self {
        Self { missed, ..self }
    }

    /// The pattern.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Whether one run stands for all that were missed.
    pub(super) fn is_once(&self) -> bool {
        self.missed == Missed::Once
    }

    /// The first time after `time`.
    pub(super) fn after(&self, time: DateTime<Utc>) -> Result<DateTime<Utc>, InvalidPattern> {
        let invalid = |error: croner::errors::CronError| InvalidPattern {
            pattern: self.pattern.clone(),
            cause: error.to_string(),
        };
        let cron = Cron::from_str(&self.pattern).map_err(invalid)?;
        cron.find_next_occurrence(&time, false).map_err(invalid)
    }

    /// How many runs begin at `now`, of which the first was due at `due`, and when the next one is due.
    pub(super) fn due(&self, due: DateTime<Utc>, now: DateTime<Utc>) -> Result<(u32, DateTime<Utc>), InvalidPattern> {
        let runs = match self.missed {
            Missed::Once => 1,
            Missed::None => {
                let recent = due.max(now - MISSED_AFTER) - TimeDelta::milliseconds(1);
                u32::from(self.after(recent)? <= now)
            }
            Missed::All => {
                let (mut time, mut runs) = (due, 0);
                while time <= now && runs < Self::MOST_MISSED {
                    (time, runs) = (self.after(time)?, runs + 1);
                }
                runs
            }
        };
        Ok((runs, self.after(now)?))
    }
}
