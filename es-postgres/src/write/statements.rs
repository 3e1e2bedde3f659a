//! The statements that write. None of them is more than one round trip, and each is its own transaction (or part of the
//! caller's): no client can hold the append lock across a round trip.
//!
//! All use `fetch_all` or `execute`, and nothing shorter: the commit comes after the last row and even after the completion
//! tag, and only these wait until the server is ready again (R5).

use std::{iter, slice};

use chrono::{DateTime, Utc};
use es_core::{
    Append, Expected, NewEvent, Position, StreamId, Tag, Version,
    backend::{Ending, QueryItem, Remembered},
};
use sqlx::{
    AssertSqlSafe, PgConnection, Postgres, Row, SqlSafeStr,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use crate::{
    guard::Guarded,
    write::{
        append::{Failed, Fate, Prepared},
        batch::{Batch, Entry},
    },
};

/// What a lone event becomes that is sure to fit: if it does not, the statement fails on a unique index.
pub(crate) const APPEND_NEXT: &str = include_str!("../sql/append_next.sql");

/// What it becomes if it may not fit. (The server looks into both indexes first, and writes a note when it is done: 12 of
/// 190 us, and 47 of 658 bytes of log.)
pub(crate) const APPEND_NEXT_IF_FREE: &str = concat!(include_str!("../sql/append_next.sql"), " ON CONFLICT DO NOTHING");

/// A stream, and the end that it must have.
#[derive(Clone, Copy)]
pub(crate) struct Expectation<'a> {
    pub(crate) stream: &'a StreamId,
    pub(crate) version: Version,
    pub(crate) last: Option<Ending>,
}

/// Writes the only event of an append behind the position `last` of the log and the version `version` of its stream;
/// `false` if it was not. The session must know that both have been reached. `sql` is one of the two above.
pub(crate) async fn append_next(
    sql: &'static str,
    prepared: &Prepared,
    last: Position,
    version: Version,
    connection: &mut Guarded,
) -> Result<bool, sqlx::Error> {
    let event = &prepared.append.events[0];
    let statement = sqlx::query(sql)
        .bind(last.next().to_i64())
        .bind(version.next().to_i64())
        .bind(event.id)
        .bind(schema_version(event))
        .bind(prepared.append.stream.as_str())
        .bind(&*event.data.name)
        .bind(&event.data.payload[..])
        .bind(prepared.metadata[0].as_deref());
    Ok(connection.execute(statement).await? == 1)
}

/// After which version of its stream an entry is written.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a> {
    /// The session knows that the stream has come so far, or it expects nothing in it.
    Known(Version),
    /// The statement checks it.
    Checked(Expectation<'a>),
    /// After the last one, which the statement looks up.
    LookedUp(&'a StreamId),
}

/// What is told of a batch of which everything was written.
pub(crate) struct Written {
    /// The last position before it.
    pub(crate) before: Position,
    /// The time of its events, if it is told.
    pub(crate) recorded_at: Option<DateTime<Utc>>,
    /// After which version of its stream each entry was written.
    pub(crate) versions: Vec<Version>,
}

/// Writes all of a batch, or none of it. `starts`: of each entry.
pub(crate) async fn append_all(
    batch: &Batch,
    starts: &[Start<'_>],
    connection: &mut Guarded,
) -> Result<Option<Written>, sqlx::Error> {
    let (mut to_check, mut to_look_up, mut afters) = (Vec::new(), Vec::new(), Vec::new());
    let mut rows = Vec::new();
    for (entry, start) in batch.entries().iter().zip(starts) {
        let (mut before, mut after) = (Version::ZERO, 0);
        match *start {
            Start::Known(version) => before = version,
            Start::Checked(expected) => {
                before = expected.version;
                to_check.push(expected);
            }
            Start::LookedUp(stream) => {
                to_look_up.push(stream.as_str());
                after = small(to_look_up.len());
            }
        }
        afters.extend(iter::repeat_n(after, entry.events));
        rows.extend(self::rows(entry, batch, before));
    }
    if to_look_up.is_empty() {
        afters.clear();
    }
    let commands: Vec<_> = (1..).zip(&rows).filter_map(|(number, row)| Some((number, row, row.remembered?))).collect();
    let tags =
        (1..).zip(&rows).flat_map(|(number, row)| row.event.tags.iter().map(move |tag| (number, row.event, tag)));
    let tags: Vec<_> = tags.collect();
    let members = batch.entries().iter().flat_map(|entry| batch.members(entry));
    let items: Vec<_> = members.flat_map(|member| items(&member.append)).collect();
    let statement = sqlx::query(include_str!("../sql/append_all.sql"))
        .bind(to_check.iter().map(|expected| expected.stream.as_str()).collect::<Vec<_>>())
        .bind(to_check.iter().map(|expected| expected.version.to_i64()).collect::<Vec<_>>())
        .bind(to_check.iter().map(|expected| expected.last.map(|last| last.event_id)).collect::<Vec<_>>())
        .bind(to_check.iter().map(|expected| expected.last?.recorded_at).collect::<Vec<_>>())
        .bind(to_look_up)
        .bind(afters)
        .bind(rows.iter().map(|row| row.stream).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.version).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.event.id).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| &*row.event.data.name).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| schema_version(row.event)).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| &row.event.data.payload[..]).collect::<Vec<_>>())
        .bind(rows.iter().map(|row| row.metadata).collect::<Vec<_>>())
        .bind(commands.iter().map(|(number, ..)| *number).collect::<Vec<i32>>())
        .bind(commands.iter().map(|(_, row, _)| row.stream).collect::<Vec<_>>())
        .bind(commands.iter().map(|(.., remembered)| remembered.id).collect::<Vec<_>>())
        .bind(commands.iter().map(|(.., remembered)| &remembered.fingerprint.as_bytes()[..]).collect::<Vec<_>>())
        .bind(tags.iter().map(|(number, ..)| *number).collect::<Vec<i32>>())
        .bind(tags.iter().map(|(_, event, _)| &*event.data.name).collect::<Vec<_>>())
        .bind(tags.iter().map(|(.., tag)| tag.as_str()).collect::<Vec<_>>())
        .bind(items.iter().map(|(after, _)| after.to_i64()).collect::<Vec<_>>())
        .bind(items.iter().map(|(_, item)| first_tag(item)).collect::<Vec<_>>())
        .bind(items.iter().map(|(_, item)| rest(item)).collect::<Vec<_>>());
    let rows = connection.rows(statement).await?;
    let written: Option<Vec<i64>> = rows.first().map_or(Ok(None), |row| row.try_get(0))?;
    let Some([before, micros, ends @ ..]) = written.as_deref() else { return Ok(None) };
    let mut ends = ends.iter().copied().map(Version::from_i64);
    let version = |start: &Start<'_>| match *start {
        Start::Known(version) | Start::Checked(Expectation { version, .. }) => version,
        Start::LookedUp(_) => ends.next().unwrap_or_default(),
    };
    let versions = starts.iter().map(version).collect();
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

fn append_batch_query(sql: impl SqlSafeStr, batch: &Batch) -> Query<'_, Postgres, PgArguments> {
    let mut arrays = Arrays::default();
    for entry in batch.entries() {
        arrays.push(entry, batch);
    }
    if !batch.has_groups() {
        arrays.groups.clear();
    }
    sqlx::query(sql)
        .bind(batch.waves())
        .bind(arrays.streams)
        .bind(arrays.expected)
        .bind(arrays.lasts)
        .bind(arrays.times)
        .bind(arrays.counts)
        .bind(arrays.waves)
        .bind(arrays.first_ids)
        .bind(arrays.groups)
        .bind(arrays.event_entries)
        .bind(arrays.event_numbers)
        .bind(arrays.event_streams)
        .bind(arrays.event_ids)
        .bind(arrays.event_names)
        .bind(arrays.event_schemas)
        .bind(arrays.payloads)
        .bind(arrays.metadata)
        .bind(arrays.command_entries)
        .bind(arrays.command_numbers)
        .bind(arrays.command_events)
        .bind(arrays.command_streams)
        .bind(arrays.command_ids)
        .bind(arrays.fingerprints)
        .bind(arrays.tag_entries)
        .bind(arrays.tag_numbers)
        .bind(arrays.tag_events)
        .bind(arrays.tag_names)
        .bind(arrays.tags)
        .bind(arrays.condition_entries)
        .bind(arrays.afters)
        .bind(arrays.first_tags)
        .bind(arrays.items)
}

/// The fate of each entry of `batch`, in their order, by the rows of `append_batch()`.
fn fates(rows: &[PgRow], batch: &Batch) -> Result<Vec<Fate>, sqlx::Error> {
    let entries = batch.entries();
    let missing = Failed { status: Failed::MISSING, version: Version::ZERO, position: Position::ZERO };
    let mut fates = vec![Fate::Failed(missing); entries.len()];
    for row in rows {
        let wave: i32 = row.try_get(0)?;
        let mut next: i64 = row.try_get(1)?;
        let versions: Vec<i64> = row.try_get(2)?;
        let places: Option<Vec<i64>> = row.try_get(3)?;
        for (index, (entry, fate)) in entries.iter().zip(&mut fates).enumerate() {
            let place = places.as_ref().map_or(next, |places| places.get(index).copied().unwrap_or(-1));
            if entry.wave == wave && place >= 0 {
                let version = Version::from_i64(versions.get(index).copied().unwrap_or_default());
                *fate = Fate::Written { version, position: Position::from_i64(place) };
                next += i64::from(small(entry.events));
            }
        }
        let Some(failed) = row.try_get::<Option<Vec<i32>>, _>(4)? else { continue };
        let (statuses, versions): (Vec<i32>, Vec<i64>) = (row.try_get(5)?, row.try_get(6)?);
        let positions: Vec<Option<i64>> = row.try_get(7)?;
        for (((entry, status), version), position) in failed.into_iter().zip(statuses).zip(versions).zip(positions) {
            let fate = usize::try_from(entry).ok().and_then(|entry| fates.get_mut(entry.checked_sub(1)?));
            if let Some(fate) = fate {
                let (version, position) =
                    (Version::from_i64(version), Position::from_i64(position.unwrap_or_default()));
                *fate = Fate::Failed(Failed { status, version, position });
            }
        }
    }
    Ok(fates)
}

/// An event and its place in its stream.
struct EventRow<'a> {
    stream: &'a str,
    version: i64,
    event: &'a NewEvent,
    metadata: Option<&'a [u8]>,
    /// The command whose last event it is.
    remembered: Option<&'a Remembered>,
}

/// The events of an entry that goes after version `before` of its stream.
fn rows<'a>(entry: &Entry, batch: &'a Batch, before: Version) -> impl Iterator<Item = EventRow<'a>> {
    let events = batch.members(entry).flat_map(|Prepared { append, remembered, metadata, .. }| {
        let last = append.events.len() - 1;
        append.events.iter().zip(metadata).enumerate().map(move |(index, (event, metadata))| {
            let remembered = remembered.as_ref().filter(|_| index == last);
            (append.stream.as_str(), event, metadata.as_deref(), remembered)
        })
    });
    (before.to_i64() + 1..).zip(events).map(|(version, (stream, event, metadata, remembered))| EventRow {
        stream,
        version,
        event,
        metadata,
        remembered,
    })
}

fn schema_version(event: &NewEvent) -> i32 {
    i32::try_from(event.data.schema_version).unwrap_or(i32::MAX)
}

/// One element an entry, then one an event, a command, a tag and an item of a condition, of entries that are to be judged.
#[derive(Default)]
struct Arrays<'a> {
    streams: Vec<&'a str>,
    expected: Vec<i64>,
    lasts: Vec<Option<Uuid>>,
    times: Vec<Option<DateTime<Utc>>>,
    counts: Vec<i32>,
    waves: Vec<i32>,
    first_ids: Vec<Uuid>,
    groups: Vec<i32>,
    event_entries: Vec<i32>,
    event_numbers: Vec<i32>,
    event_streams: Vec<&'a str>,
    event_ids: Vec<Uuid>,
    event_names: Vec<&'a str>,
    event_schemas: Vec<i32>,
    payloads: Vec<&'a [u8]>,
    metadata: Vec<Option<&'a [u8]>>,
    command_entries: Vec<i32>,
    command_numbers: Vec<i32>,
    command_events: Vec<i32>,
    command_streams: Vec<&'a str>,
    command_ids: Vec<Uuid>,
    fingerprints: Vec<&'a [u8]>,
    tag_entries: Vec<i32>,
    tag_numbers: Vec<i32>,
    tag_events: Vec<i32>,
    tag_names: Vec<&'a str>,
    tags: Vec<&'a str>,
    condition_entries: Vec<i32>,
    afters: Vec<i64>,
    first_tags: Vec<Option<&'a str>>,
    items: Vec<Option<String>>,
}

impl<'a> Arrays<'a> {
    fn push(&mut self, entry: &Entry, batch: &'a Batch) {
        let expected = batch.expected(entry);
        self.streams.push(batch.stream(entry).as_str());
        self.expected.push(number(expected));
        self.lasts.push(expected.last().map(|last| last.event_id));
        self.times.push(expected.last().and_then(|last| last.recorded_at));
        self.counts.push(small(entry.events));
        self.waves.push(entry.wave);
        self.first_ids.push(batch.first_event(entry));
        self.groups.push(entry.group);
        let ordinal = small(self.streams.len());
        let mut number = 0;
        for member in batch.members(entry) {
            self.push_member(member, ordinal, &mut number);
        }
    }

    /// The member's part of the entry `ordinal`, which has `number` events before it.
    fn push_member(&mut self, prepared: &'a Prepared, ordinal: i32, number: &mut i32) {
        let Prepared { append, remembered, metadata, .. } = prepared;
        let stream = append.stream.as_str();
        for (event, metadata) in append.events.iter().zip(metadata) {
            *number += 1;
            self.event_entries.push(ordinal);
            self.event_numbers.push(*number);
            self.event_streams.push(stream);
            self.event_ids.push(event.id);
            self.event_names.push(&event.data.name);
            self.event_schemas.push(schema_version(event));
            self.payloads.push(&event.data.payload);
            self.metadata.push(metadata.as_deref());
            for tag in &event.tags {
                self.tag_entries.push(ordinal);
                self.tag_numbers.push(*number);
                self.tag_events.push(small(self.event_ids.len()));
                self.tag_names.push(&event.data.name);
                self.tags.push(tag.as_str());
            }
        }
        if let Some(remembered) = remembered {
            self.command_entries.push(ordinal);
            self.command_numbers.push(*number);
            self.command_events.push(small(self.event_ids.len()));
            self.command_streams.push(stream);
            self.command_ids.push(remembered.id);
            self.fingerprints.push(remembered.fingerprint.as_bytes());
        }
        for (after, item) in items(append) {
            self.condition_entries.push(ordinal);
            self.afters.push(after.to_i64());
            self.first_tags.push(first_tag(item));
            self.items.push(rest(item));
        }
    }
}

/// What the condition of an append is about: no event after the position matches the item.
fn items(append: &Append) -> impl Iterator<Item = (Position, &QueryItem)> {
    append.condition_parts().flat_map(|part| part.query.items().iter().map(|item| (part.after, item)))
}

/// The tag by which an item is looked up, if it has one.
fn first_tag(item: &QueryItem) -> Option<&str> {
    item.tags.first().map(Tag::as_str)
}

/// The item as `matching()` takes it, unless it asks for nothing but one tag.
fn rest(item: &QueryItem) -> Option<String> {
    let is_one_tag = item.tags.len() == 1 && item.names.is_empty();
    (!is_one_tag).then(|| json(slice::from_ref(item)))
}

/// A query as `matching()` takes it.
pub(crate) fn json(items: &[QueryItem]) -> String {
    serde_json::to_string(items).expect("a query holds nothing but text")
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

/// Counts within a batch are bounded far below 2^31 by the limits of appends and batches.
fn small(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
