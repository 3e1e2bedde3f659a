//! The statements that write. None of them is more than one round trip, and each is its own transaction: no client can hold the append
//! lock across a round trip. Only where read models are folded with a batch (`inline.rs`), and in [`append_batch_in`], it is part of a
//! longer one.
//!
//! All use `fetch_all` or `execute`, and nothing shorter: the commit comes after the last row and even after the completion
//! tag, and only these wait until the server is ready again (R5).

use std::iter;

use chrono::{DateTime, Utc};
use es_core::{Expected, Position, Version};
use sqlx::{AssertSqlSafe, PgConnection, Row, SqlSafeStr, postgres::PgRow};
use uuid::Uuid;

use crate::{
    error::UnexpectedAnswer,
    guard::Guarded,
    write::{
        batch::Batch,
        columns::{Columns, Statement, schema_version, small},
        entry::Entry,
        fate::{Failed, Fate},
        known::{Start, Written},
    },
};

/// What a lone event becomes that is sure to fit: if it does not, the statement fails on a unique index.
const APPEND_NEXT: &str = include_str!("../sql/append_next.sql");

/// What it becomes if it may not fit. (The server looks into both indexes first, and writes a note when it is done: 12 of
/// 190 us, and 47 of 658 bytes of log.)
const APPEND_NEXT_IF_FREE: &str = concat!(include_str!("../sql/append_next.sql"), " ON CONFLICT DO NOTHING");

/// Writes a lone event after the position `after` of the log and the version `version` of its stream;
/// `false` if it was not, or an error if it `is_plain`. The session must know that both have been reached.
pub(crate) async fn append_next(
    batch: &Batch,
    after: Position,
    version: Version,
    is_plain: bool,
    connection: &mut Guarded,
) -> Result<bool, sqlx::Error> {
    let Some(prepared) = batch.lone_event() else { return Ok(false) };
    let event = &prepared.append.events[0];
    let statement = sqlx::query(if is_plain { APPEND_NEXT } else { APPEND_NEXT_IF_FREE })
        .bind(after.next().to_i64())
        .bind(version.next().to_i64())
        .bind(event.id)
        .bind(schema_version(event.data.schema_version))
        .bind(prepared.append.stream.as_str())
        .bind(&*event.data.name)
        .bind(&event.data.payload[..])
        .bind(prepared.metadata[0].as_deref());
    Ok(connection.execute(statement).await? == 1)
}

/// Writes all of a batch, each entry after its start, or none of it.
pub(crate) async fn append_all(
    batch: &Batch,
    starts: &[Start],
    connection: &mut Guarded,
) -> Result<Option<Written>, sqlx::Error> {
    let statement = Starts::of(batch, starts).bind(sqlx::query(include_str!("../sql/append_all.sql")));
    let rows = connection.rows(Columns::of(batch).bind(statement)).await?;
    let answer: Option<Vec<i64>> = rows.first().map_or(Ok(None), |row| row.try_get(0))?;
    let Some([before, micros, ends @ ..]) = answer.as_deref() else { return Ok(None) };
    let mut ends = ends.iter().copied().map(Version::from_i64);
    let version = |start: &Start| match *start {
        Start::Known(version) | Start::Checked(version, _) => Some(version),
        Start::LookedUp => ends.next(),
    };
    let versions: Option<_> = starts.iter().map(version).collect();
    let versions = versions.ok_or(UnexpectedAnswer::Missing)?;
    let (before, recorded_at) = (Position::from_i64(*before), DateTime::from_timestamp_micros(*micros));
    Ok(Some(Written { before, recorded_at, versions }))
}

/// Writes what is possible of a batch, and tells the fate of each of its entries, in their order.
pub(crate) async fn append_batch(batch: &Batch, connection: &mut Guarded) -> Result<Vec<Fate>, sqlx::Error> {
    let statement = append_batch_query(include_str!("../sql/append_batch.sql"), batch);
    fates(&connection.rows(statement).await?, batch)
}

/// The same for the only request of a batch, whose events are large: the append lock is taken when they are written out.
pub(crate) async fn append_large(batch: &Batch, connection: &mut Guarded) -> Result<Vec<Fate>, sqlx::Error> {
    let statement = append_batch_query(include_str!("../sql/append_large.sql"), batch);
    fates(&connection.rows(statement).await?, batch)
}

/// As [`append_batch`], as part of the caller's transaction, by a statement `sql` with the same parameters and results.
pub(crate) async fn append_batch_in(
    sql: String,
    batch: &Batch,
    transaction: &mut PgConnection,
) -> Result<Vec<Fate>, sqlx::Error> {
    let statement = append_batch_query(AssertSqlSafe(sql), batch);
    fates(&statement.fetch_all(transaction).await?, batch)
}

fn append_batch_query(sql: impl SqlSafeStr, batch: &Batch) -> Statement<'_> {
    let statement = Entries::of(batch).bind(sqlx::query(sql).bind(batch.waves()));
    Columns::of(batch).bind(statement)
}

/// The fate of each entry of `batch`, in their order, by the rows of `append_batch()`.
fn fates(rows: &[PgRow], batch: &Batch) -> Result<Vec<Fate>, sqlx::Error> {
    let mut fates = vec![None; batch.entries().len()];
    for row in rows {
        let wave: i32 = row.try_get(0)?;
        let mut next: i64 = row.try_get(1)?;
        let versions: Vec<i64> = row.try_get(2)?;
        let places: Option<Vec<i64>> = row.try_get(3)?;
        for (index, (entry, fate)) in batch.entries().zip(&mut fates).enumerate() {
            let place = places.as_ref().map_or(next, |places| places.get(index).copied().unwrap_or(-1));
            if entry.slot.wave == wave && place >= 0 {
                let version = Version::from_i64(versions.get(index).copied().ok_or(UnexpectedAnswer::Missing)?);
                *fate = Some(Fate::Written { version, position: Position::from_i64(place) });
                next += i64::from(small(entry.events()));
            }
        }
        let Some(failed) = row.try_get::<Option<Vec<i32>>, _>(4)? else { continue };
        let (statuses, versions): (Vec<i32>, Vec<i64>) = (row.try_get(5)?, row.try_get(6)?);
        let positions: Vec<Option<i64>> = row.try_get(7)?;
        for (((entry, status), version), position) in failed.into_iter().zip(statuses).zip(versions).zip(positions) {
            let fate = usize::try_from(entry).ok().and_then(|entry| fates.get_mut(entry.checked_sub(1)?));
            let fate = fate.ok_or(UnexpectedAnswer::Missing)?;
            *fate = Some(Fate::Failed(Failed::of_status(status, version, position)?));
        }
    }
    fates.into_iter().collect::<Option<_>>().ok_or_else(|| UnexpectedAnswer::Missing.into())
}

/// Where `append_all()` writes the entries: the streams to check and to look up, and the version of each event.
#[derive(Default)]
struct Starts<'a> {
    streams: Vec<&'a str>,
    versions: Vec<i64>,
    lasts: Vec<Option<Uuid>>,
    times: Vec<Option<DateTime<Utc>>>,
    looked_up: Vec<&'a str>,
    event_afters: Vec<i32>,
    event_versions: Vec<i64>,
}

impl<'a> Starts<'a> {
    fn of(batch: &'a Batch, starts: &[Start]) -> Self {
        let mut columns = Self::default();
        for (entry, start) in batch.entries().zip(starts) {
            columns.push(entry, *start);
        }
        if columns.looked_up.is_empty() {
            columns.event_afters.clear();
        }
        columns
    }

    fn push(&mut self, entry: Entry<'a>, start: Start) {
        let stream = entry.stream().as_str();
        let (mut before, mut after) = (Version::ZERO, 0);
        match start {
            Start::Known(version) => before = version,
            Start::Checked(version, last) => {
                before = version;
                self.streams.push(stream);
                self.versions.push(version.to_i64());
                self.lasts.push(last.map(|last| last.event_id));
                self.times.push(last.and_then(|last| last.recorded_at));
            }
            Start::LookedUp => {
                self.looked_up.push(stream);
                after = small(self.looked_up.len());
            }
        }
        self.event_afters.extend(iter::repeat_n(after, entry.events()));
        self.event_versions.extend((before.to_i64() + 1..).take(entry.events()));
    }

    fn bind(self, statement: Statement<'_>) -> Statement<'_> {
        let statement = statement.bind(self.streams).bind(self.versions).bind(self.lasts).bind(self.times);
        statement.bind(self.looked_up).bind(self.event_afters).bind(self.event_versions)
    }
}

/// What `append_batch()` checks of each entry, and which entry each event and each item of a condition belongs to.
#[derive(Default)]
struct Entries<'a> {
    streams: Vec<&'a str>,
    expected: Vec<i64>,
    lasts: Vec<Option<Uuid>>,
    times: Vec<Option<DateTime<Utc>>>,
    counts: Vec<i32>,
    waves: Vec<i32>,
    first_ids: Vec<Uuid>,
    groups: Vec<i32>,
    event_owners: Vec<i32>,
    event_numbers: Vec<i32>,
    item_owners: Vec<i32>,
}

impl<'a> Entries<'a> {
    fn of(batch: &'a Batch) -> Self {
        let mut columns = Self::default();
        for entry in batch.entries() {
            columns.push(entry);
        }
        if !batch.has_groups() {
            columns.groups.clear();
        }
        columns
    }

    fn push(&mut self, entry: Entry<'a>) {
        let expected = entry.expected();
        self.streams.push(entry.stream().as_str());
        self.expected.push(number(expected));
        self.lasts.push(expected.last().map(|last| last.event_id));
        self.times.push(expected.last().and_then(|last| last.recorded_at));
        self.counts.push(small(entry.events()));
        self.waves.push(entry.slot.wave);
        self.first_ids.push(entry.first_event());
        self.groups.push(entry.slot.group);
        let ordinal = small(self.streams.len());
        self.event_owners.extend(iter::repeat_n(ordinal, entry.events()));
        self.event_numbers.extend(1..=small(entry.events()));
        let parts = entry.members().flat_map(|member| member.append.condition_parts());
        let items = parts.map(|part| part.query.items().len()).sum();
        self.item_owners.extend(iter::repeat_n(ordinal, items));
    }

    fn bind(self, statement: Statement<'_>) -> Statement<'_> {
        let statement = statement.bind(self.streams).bind(self.expected).bind(self.lasts).bind(self.times);
        let statement = statement.bind(self.counts).bind(self.waves).bind(self.first_ids).bind(self.groups);
        statement.bind(self.event_owners).bind(self.event_numbers).bind(self.item_owners)
    }
}

/// How `append_batch()` writes an expectation.
fn number(expected: Expected) -> i64 {
    match expected {
        Expected::Any => -1,
        Expected::StreamExists => -2,
        Expected::NoStream => 0,
        Expected::Exact(version) | Expected::Last { version, .. } => version.to_i64(),
    }
}
