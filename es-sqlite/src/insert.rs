//! Writes accepted appends with one message to the connection's thread, however many they are.

use chrono::{DateTime, Utc};
use es_core::{Append, Appended, Tag, backend::Ending};
use futures_util::TryStreamExt;
use sqlx::{Executor, SqliteConnection};

use crate::{
    error::is_refusal,
    packed::{Packed, json},
    queue::{Encoded, Outcome, Prepared},
};

/// The transaction in which appends are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transaction {
    /// One that begins and ends here.
    Own,
    /// One that the caller has begun, and that is committed here.
    Commit,
    /// One that the caller has begun and ends.
    Callers,
}

impl Transaction {
    /// The statements that write. A single statement is a transaction by itself: each further one is one more message from the
    /// connection's thread.
    fn statements(self, only_events: bool) -> &'static str {
        macro_rules! events {
            () => {
                include_str!("sql/append_events.sql")
            };
        }
        macro_rules! all {
            () => {
                concat!(
                    events!(),
                    ";\n",
                    include_str!("sql/append_tags.sql"),
                    ";\n",
                    include_str!("sql/append_commands.sql")
                )
            };
        }
        match (self, only_events) {
            (Self::Own | Self::Callers, true) => events!(),
            (Self::Own, false) => concat!("BEGIN IMMEDIATE;\n", all!(), ";\nCOMMIT"),
            (Self::Commit, true) => concat!(events!(), ";\nCOMMIT"),
            (Self::Commit, false) => concat!(all!(), ";\nCOMMIT"),
            (Self::Callers, false) => all!(),
        }
    }
}

/// An accepted append.
#[derive(Debug)]
pub(crate) struct Accepted<'a> {
    pub(crate) append: &'a Append,
    encoded: &'a Encoded,
    /// The version and the position that it gets.
    appended: Appended,
    /// The event that the statement checks to be the last one of the stream.
    pub(crate) ending: Option<Ending>,
}

/// Those of `batch` that were accepted, in order. `outcomes` has one entry for each entry of the batch.
pub(crate) fn accepted<'a>(
    batch: &'a [Prepared],
    outcomes: &'a [Outcome],
) -> impl Iterator<Item = Accepted<'a>> + use<'a> {
    batch.iter().zip(outcomes).flat_map(|(prepared, outcome)| {
        let appended = outcome.iter().flatten().filter(|appended| !appended.repeated);
        let accepted = |((append, encoded), appended): (_, &Appended)| Accepted {
            append,
            encoded,
            appended: *appended,
            ending: None,
        };
        prepared.members().zip(appended).map(accepted)
    })
}

/// Writes what was `accepted`; its events get the time `now`. A transaction of its own that SQLite refuses is rolled back.
pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    accepted: &[Accepted<'_>],
    now: DateTime<Utc>,
    transaction: Transaction,
) -> Result<(), sqlx::Error> {
    let only_events = accepted.iter().all(|Accepted { append, encoded, .. }| {
        encoded.remembered.is_none() && append.events.iter().all(|new| new.tags.is_empty())
    });
    let (events, bytes) = events(accepted);
    let statements =
        sqlx::query(transaction.statements(only_events)).bind(events).bind(bytes).bind(now.timestamp_micros());
    let statements = if only_events {
        statements
    } else {
        let (commands, fingerprints) = commands(accepted);
        statements.bind(commands).bind(fingerprints)
    };
    if transaction == Transaction::Own && only_events {
        // The first answer of a single statement comes after its commit. To wait for the end of the answers is one more wake-up.
        connection.fetch_many(statements).try_next().await?;
        return Ok(());
    }
    let written = statements.execute(&mut *connection).await;
    if let Err(error) = &written
        && is_refusal(error)
        && transaction == Transaction::Own
    {
        sqlx::query("ROLLBACK").execute(connection).await?;
    }
    written.map(drop)
}

fn events(accepted: &[Accepted<'_>]) -> (String, Vec<u8>) {
    let mut packed = Packed::with_capacity(accepted.iter().map(|accepted| accepted.encoded.bytes).sum());
    let mut rows = Vec::new();
    for Accepted { append, encoded, appended, ending } in accepted {
        let events = append.events.len() as u64;
        let (position, version) = (appended.position.get() - events, appended.version.get() - events);
        let mut ending = *ending;
        for ((new, metadata), nth) in append.events.iter().zip(&encoded.metadata).zip(1..) {
            let payload = packed.push(&new.data.payload);
            let metadata = packed.push(metadata);
            // Only the first event comes after it.
            let ending = ending.take();
            rows.push((
                position + nth,
                append.stream.as_str(),
                version + nth,
                new.id.simple(),
                &*new.data.name,
                new.data.schema_version,
                payload.start,
                payload.length,
                metadata.start,
                metadata.length,
                new.tags.iter().map(Tag::as_str).collect::<Vec<_>>(),
                ending.map(|ending| ending.event_id.simple()),
                ending.and_then(|ending| ending.recorded_at).map(|time| time.timestamp_micros()),
            ));
        }
    }
    (json(&rows), packed.into_bytes())
}

fn commands(accepted: &[Accepted<'_>]) -> (String, Vec<u8>) {
    let (mut packed, mut rows) = (Packed::with_capacity(0), Vec::new());
    for Accepted { encoded, appended, .. } in accepted {
        if let Some(remembered) = encoded.remembered {
            let fingerprint = packed.push(remembered.fingerprint.as_bytes());
            let (version, position) = (appended.version.get(), appended.position.get());
            rows.push((remembered.id.simple(), fingerprint.start, fingerprint.length, version, position));
        }
    }
    (json(&rows), packed.into_bytes())
}
