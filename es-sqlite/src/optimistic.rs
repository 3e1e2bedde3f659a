//! Writes a batch without a look at the log first.
//!
//! Most appends expect a version, and most of these expectations hold. Then the whole batch is one message to the thread of
//! the connection, which checks what was expected while it writes. If anything is not as expected, SQLite refuses the batch,
//! and `batch.rs` looks up what decides each append.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use es_core::{
    Append, Position,
    backend::{Ending, Witness},
};
use sqlx::SqliteConnection;

use crate::{
    batch::{decide, now},
    error::is_refusal,
    insert::{Transaction, accepted, insert},
    queue::{Outcome, Prepared},
    verdict::{Known, Written},
};

/// Writes `batch` in a transaction of its own, if the log ends at `head`, each stream is as its first append expects, and no
/// idempotency key was used before. Returns the outcome of each entry, in order; `None` if nothing was written.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    batch: &[Prepared],
    head: Position,
    own: &mut Written,
) -> Result<Option<Vec<Outcome>>, sqlx::Error> {
    let members = batch.iter().flat_map(|prepared| &prepared.appends);
    let Some(expected) = members.map(as_expected).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let now = now();
    let mut outcomes = decide(batch, head, &expected, now);
    // An append that does not fit to an earlier one of its batch may be a repeated one, which only the log can show.
    if !outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|appended| appended.iter().all(|one| !one.repeated))) {
        return Ok(None);
    }
    own.recognise(&mut outcomes);
    match insert_expected(connection, batch, &outcomes, now).await {
        Ok(()) => Ok(Some(outcomes)),
        Err(error) if is_refusal(&error) => {
            // Nothing was written, so what is found in the log later is not from this try.
            *own = Written::new(batch.len());
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// What the log holds if `append` finds what it expects; `None` where that does not follow from the expectation, or is not
/// checked by the statement that writes.
fn as_expected(append: &Append) -> Option<Known> {
    let version = append.expected.version()?;
    if append.condition_parts().next().is_some() {
        return None;
    }
    // If the time is not known, it is not compared.
    let last = |last: Ending| Witness { event_id: last.event_id, recorded_at: last.recorded_at.unwrap_or_default() };
    Some(Known { version, last: append.expected.last().map(last), ..Known::default() })
}

async fn insert_expected(
    connection: &mut SqliteConnection,
    batch: &[Prepared],
    outcomes: &[Outcome],
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let mut streams = HashSet::new();
    let mut all: Vec<_> = accepted(batch, outcomes).collect();
    for accepted in &mut all {
        // The end of a stream that this batch has written to is in the batch and was compared there.
        if streams.insert(&accepted.append.stream) {
            accepted.ending = accepted.append.expected.last();
        }
    }
    insert(connection, &all, now, Transaction::Own).await
}
