//! Appends as the arrays of one statement, and what comes back.

use es_core::{
    Append, AppendError, Appended, Condition, EventQuery, Expected, InvalidAppend, Position, Remembered, Verdict,
    Version,
};
use sqlx::{
    AssertSqlSafe, PgConnection, Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use crate::{
    batch::{Batch, Entry},
    error::{self, Verdictless},
    store::PostgresStore,
};

/// The statement that a batch becomes.
const APPEND: &str = include_str!("sql/append.sql");

/// The statement for an append that is alone.
const APPEND_ONE: &str = include_str!("sql/append_one.sql");

/// What an event weighs in queues and batches beside its bytes.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// An append that has passed its checks, with all that is computed of it once.
pub(crate) struct Prepared {
    pub(crate) append: Append,
    pub(crate) remembered: Option<Remembered>,
    metadata: Vec<Option<Vec<u8>>>,
    /// What it weighs.
    pub(crate) bytes: usize,
}

impl Prepared {
    pub(crate) fn new(append: Append) -> Result<Self, InvalidAppend> {
        append.validate()?;
        Ok(Self::checked(append))
    }

    /// For an append that was checked together with others.
    pub(crate) fn checked(mut append: Append) -> Self {
        for event in &mut append.events {
            // The same tag twice is one tag.
            event.tags.sort_unstable();
            event.tags.dedup();
        }
        let remembered = append.remembered();
        let metadata: Vec<_> = append.events.iter().map(|event| event.metadata.encode()).collect();
        let payloads: usize = append.events.iter().map(|event| event.bytes() + EVENT_OVERHEAD_BYTES).sum();
        let bytes = payloads + metadata.iter().flatten().map(Vec::len).sum::<usize>();
        Self { append, remembered, metadata, bytes }
    }

    /// The verdict on this append where it is an entry of its own.
    pub(crate) fn verdict(&self, failure: Failed) -> Verdict {
        let Failed { status, version, position } = failure;
        match status {
            Failed::CONFLICT => Verdict::Refused(self.append.conflict(version).into()),
            Failed::REPEATED => Verdict::Repeated(Appended { version, position, repeated: true }),
            Failed::KEY_REUSED => Verdict::Refused(AppendError::KeyReused),
            Failed::CONDITION => Verdict::Refused(AppendError::ConditionFailed { position }),
            Failed::NOT_ALONE => Verdict::Possible,
            other => Verdict::Refused(AppendError::Store(Verdictless(other).into())),
        }
    }
}

/// What became of an entry of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// It was written behind this version of its stream and this position of the log.
    Written { version: Version, position: Position },
    /// It was not.
    Failed(Failed),
}

/// Why an entry was not written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Failed {
    pub(crate) status: i32,
    version: Version,
    position: Position,
}

impl Failed {
    pub(crate) const CONFLICT: i32 = 1;
    const REPEATED: i32 = 2;
    const KEY_REUSED: i32 = 3;
    const CONDITION: i32 = 4;
    /// It could have been, but not together with its group.
    const NOT_ALONE: i32 = 5;
    /// There was no row for it; the database never says so.
    const MISSING: i32 = -1;
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

/// Writes `batch` and tells the fate of each of its entries, in their order.
pub(crate) async fn write(batch: &Batch, connection: &mut PgConnection) -> Result<Vec<Fate>, sqlx::Error> {
    // fetch_all, and nothing shorter: the commit comes after the last row and even after the completion
    // tag, and only fetch_all waits until the server is ready again (R5).
    if let Some((prepared, before)) = batch.lone_event() {
        let rows = one(prepared, before).fetch_all(&mut *connection).await?;
        let place: Option<i64> = rows.first().map_or(Ok(None), |row| row.try_get(0))?;
        if let Some(place) = place {
            return Ok(vec![Fate::Written { version: before, position: Position::from_i64(place - 1) }]);
        }
    }
    let rows = statement(APPEND, batch).fetch_all(connection).await?;
    fates(&rows, batch)
}

fn one(prepared: &Prepared, before: Version) -> Query<'_, Postgres, PgArguments> {
    let event = &prepared.append.events[0];
    sqlx::query(APPEND_ONE)
        .bind(prepared.append.stream.as_str())
        .bind(before.to_i64())
        .bind(prepared.append.expected.last())
        .bind(event.id)
        .bind(&*event.data.name)
        .bind(i32::try_from(event.data.schema_version).unwrap_or(i32::MAX))
        .bind(&event.data.payload[..])
        .bind(prepared.metadata[0].as_deref())
}

/// The statement for `batch`.
fn statement<'q>(sql: impl sqlx::SqlSafeStr, batch: &Batch) -> Query<'q, Postgres, PgArguments> {
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
        .bind(arrays.queries)
}

/// One element an entry, then one an event, a command, a tag and a condition.
#[derive(Default)]
struct Arrays<'a> {
    streams: Vec<&'a str>,
    expected: Vec<i64>,
    lasts: Vec<Option<Uuid>>,
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
    queries: Vec<String>,
}

impl<'a> Arrays<'a> {
    fn push(&mut self, entry: &Entry, batch: &'a Batch) {
        let first = batch.members(entry).next().expect("an entry has a member");
        self.streams.push(first.append.stream.as_str());
        self.expected.push(number(first.append.expected));
        self.lasts.push(first.append.expected.last());
        self.counts.push(small(entry.events));
        self.waves.push(entry.wave);
        self.first_ids.push(first.append.events[0].id);
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
            self.event_schemas.push(i32::try_from(event.data.schema_version).unwrap_or(i32::MAX));
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
        if let Some(Condition { query, after }) = &append.condition {
            self.condition_entries.push(ordinal);
            self.afters.push(after.to_i64());
            self.queries.push(json(query));
        }
    }
}

/// A query as `matching()` takes it.
pub(crate) fn json(query: &EventQuery) -> String {
    serde_json::to_string(query).expect("a query holds nothing but text")
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

impl PostgresStore {
    /// Writes `append` as part of the caller's own transaction on the store's database.
    ///
    /// Make it the **last statement** before the commit: it takes the lane, and until the
    /// transaction ends nobody else can append to this schema. The events exist once the caller has
    /// committed; whether they are durable then is up to the caller's `synchronous_commit`.
    ///
    /// A conflict leaves the transaction usable; after any other error Postgres has aborted it.
    ///
    /// # Errors
    /// As [`EventStore::append`](es_core::EventStore::append). Under `REPEATABLE READ` or
    /// `SERIALIZABLE` a transaction whose snapshot is older than the log gets
    /// [`AppendError::Store`] with [`StaleSnapshot`](crate::StaleSnapshot) as its source: begin it again.
    ///
    /// # Cancel safety
    /// What is written belongs to the transaction: roll it back.
    pub async fn append_in(&self, transaction: &mut PgConnection, append: Append) -> Result<Appended, AppendError> {
        self.append_together_in(transaction, vec![append]).await.map(|appended| appended[0])
    }

    /// Writes all of `appends`, or none, as part of the caller's own transaction; see
    /// [`append_in`](Self::append_in).
    ///
    /// # Errors
    /// As [`append_in`](Self::append_in).
    ///
    /// # Cancel safety
    /// What is written belongs to the transaction: roll it back.
    pub async fn append_together_in(
        &self,
        transaction: &mut PgConnection,
        appends: Vec<Append>,
    ) -> Result<Vec<Appended>, AppendError> {
        es_core::validate_together(&appends)?;
        let batch = Batch::of_one(appends.into_iter().map(Prepared::checked).collect());
        // The caller's connection has another search_path. The schema's name has been checked.
        let sql = APPEND.replace("append_batch(", &format!("{}.append_in_transaction(", self.inner.schema));
        let rows = statement(AssertSqlSafe(sql), &batch).fetch_all(transaction).await.map_err(error::append_in)?;
        let fates = fates(&rows, &batch).map_err(error::append_in)?;
        batch.outcome_of_one(&fates)
    }
}
