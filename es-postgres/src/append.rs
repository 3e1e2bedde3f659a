//! Appends as the arrays of one statement, and its verdicts.

use std::collections::HashMap;

use es_core::{Append, AppendError, Appended, Conflict, Expected, InvalidAppend, Position, Remembered, Version};
use sqlx::{
    AssertSqlSafe, PgConnection, Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use uuid::Uuid;

use crate::{
    error::{self, Verdictless},
    store::PostgresStore,
};

/// The statement that a batch becomes.
pub(crate) const APPEND: &str = include_str!("sql/append.sql");

/// What an event weighs in queues and batches beside its bytes.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// An append that has passed its checks, with all that is computed of it once.
pub(crate) struct Prepared {
    pub(crate) append: Append,
    remembered: Option<Remembered>,
    metadata: Vec<Option<Vec<u8>>>,
    /// What it weighs.
    pub(crate) bytes: usize,
}

impl Prepared {
    pub(crate) fn new(append: Append) -> Result<Self, InvalidAppend> {
        append.validate()?;
        let remembered = append.remembered();
        let metadata: Vec<_> = append.events.iter().map(|event| event.metadata.encode()).collect();
        let payloads: usize = append.events.iter().map(|event| event.data.payload.len() + EVENT_OVERHEAD_BYTES).sum();
        let bytes = payloads + metadata.iter().flatten().map(Vec::len).sum::<usize>();
        Ok(Self { append, remembered, metadata, bytes })
    }

    /// What the row of this append says.
    pub(crate) fn outcome(&self, verdict: Verdict) -> Result<Appended, AppendError> {
        let Verdict { status, version, position } = verdict;
        let appended = Appended { version, position, repeated: false };
        match status {
            Verdict::APPENDED => Ok(appended),
            Verdict::CONFLICT => Err(Conflict { expected: self.append.expected, actual: version }.into()),
            Verdict::REPEATED => Ok(Appended { repeated: true, ..appended }),
            Verdict::KEY_REUSED => Err(AppendError::KeyReused),
            other => Err(AppendError::Store(Verdictless(other).into())),
        }
    }
}

/// A row of `append_batch()`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Verdict {
    pub(crate) status: i32,
    pub(crate) version: Version,
    pub(crate) position: Position,
}

impl Verdict {
    pub(crate) const APPENDED: i32 = 0;
    pub(crate) const CONFLICT: i32 = 1;
    pub(crate) const REPEATED: i32 = 2;
    pub(crate) const KEY_REUSED: i32 = 3;
    /// There was no row; the database never says so.
    const MISSING: i32 = -1;
}

/// One verdict for each of `appends` appends, in their order.
pub(crate) fn verdicts(rows: &[PgRow], appends: usize) -> Result<Vec<Verdict>, sqlx::Error> {
    let missing = Verdict { status: Verdict::MISSING, version: Version::ZERO, position: Position::ZERO };
    let mut verdicts = vec![missing; appends];
    for row in rows {
        let ordinal: i32 = row.try_get(0)?;
        let version = Version::from_i64(row.try_get(2)?);
        let position = Position::from_i64(row.try_get::<Option<i64>, _>(3)?.unwrap_or(0));
        // Rows come in waves, so the place is in the row.
        let place = usize::try_from(ordinal).ok().and_then(|ordinal| verdicts.get_mut(ordinal.checked_sub(1)?));
        if let Some(place) = place {
            *place = Verdict { status: row.try_get(1)?, version, position };
        }
    }
    Ok(verdicts)
}

/// The statement for `appends`, which must be ordered as they arrived.
pub(crate) fn statement<'q, 'a>(
    sql: impl sqlx::SqlSafeStr,
    appends: impl Iterator<Item = &'a Prepared>,
) -> Query<'q, Postgres, PgArguments> {
    let mut arrays = Arrays::default();
    for append in appends {
        arrays.push(append);
    }
    sqlx::query(sql)
        .bind(arrays.streams)
        .bind(arrays.expected)
        .bind(arrays.counts)
        .bind(arrays.waves)
        .bind(arrays.first_ids)
        .bind(arrays.commands)
        .bind(arrays.fingerprints)
        .bind(arrays.event_appends)
        .bind(arrays.event_numbers)
        .bind(arrays.event_streams)
        .bind(arrays.event_ids)
        .bind(arrays.event_names)
        .bind(arrays.event_schemas)
        .bind(arrays.payloads)
        .bind(arrays.metadata)
}

/// One entry an append, then one entry an event.
#[derive(Default)]
struct Arrays<'a> {
    streams: Vec<&'a str>,
    expected: Vec<i64>,
    counts: Vec<i32>,
    waves: Vec<i32>,
    first_ids: Vec<Uuid>,
    commands: Vec<Option<Uuid>>,
    fingerprints: Vec<Option<&'a [u8]>>,
    event_appends: Vec<i32>,
    event_numbers: Vec<i32>,
    event_streams: Vec<&'a str>,
    event_ids: Vec<Uuid>,
    event_names: Vec<&'a str>,
    event_schemas: Vec<i32>,
    payloads: Vec<&'a [u8]>,
    metadata: Vec<Option<&'a [u8]>>,
    /// The last wave of each stream.
    last_waves: HashMap<&'a str, i32>,
}

impl<'a> Arrays<'a> {
    fn push(&mut self, prepared: &'a Prepared) {
        let Prepared { append, remembered, metadata, .. } = prepared;
        let stream = append.stream.as_str();
        let wave = self.last_waves.entry(stream).and_modify(|wave| *wave += 1).or_insert(1);
        self.waves.push(*wave);
        self.streams.push(stream);
        self.expected.push(number(append.expected));
        self.counts.push(small(append.events.len()));
        self.first_ids.push(append.events[0].id);
        self.commands.push(remembered.as_ref().map(|remembered| remembered.id));
        self.fingerprints.push(remembered.as_ref().map(|remembered| &remembered.fingerprint.as_bytes()[..]));
        let ordinal = small(self.streams.len());
        for (index, (event, metadata)) in append.events.iter().zip(metadata).enumerate() {
            self.event_appends.push(ordinal);
            self.event_numbers.push(small(index + 1));
            self.event_streams.push(stream);
            self.event_ids.push(event.id);
            self.event_names.push(&event.data.name);
            self.event_schemas.push(i32::try_from(event.data.schema_version).unwrap_or(i32::MAX));
            self.payloads.push(&event.data.payload);
            self.metadata.push(metadata.as_deref());
        }
    }
}

/// How `append_batch()` writes an expectation.
fn number(expected: Expected) -> i64 {
    match expected {
        Expected::Any => -1,
        Expected::StreamExists => -2,
        Expected::NoStream => 0,
        Expected::Exact(version) => version.to_i64(),
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
        let prepared = Prepared::new(append)?;
        // The caller's connection has another search_path. The schema's name has been checked.
        let sql = APPEND.replace("append_batch(", &format!("{}.append_batch(", self.inner.schema));
        let statement = statement(AssertSqlSafe(sql), std::iter::once(&prepared));
        let rows = statement.fetch_all(transaction).await.map_err(error::append_in)?;
        let verdicts = verdicts(&rows, 1).map_err(error::append_in)?;
        prepared.outcome(verdicts[0])
    }
}
