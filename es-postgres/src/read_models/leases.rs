//! Checkpoints and the leases on them, and the dead letters that commit with them.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use es_core::{
    DeadLetter, LetterPage, Pause, Position, RecordedEvent,
    backend::{
        Acts, Changeover, Changes, Checkpoint, CommitError, FieldChange, INBOX_FORGETS, Inbox, Lease, Leases,
        ReadModelError, Reader, Shard, Share, Situation, Takeover, Witness,
    },
    limits::COMMIT_DOCUMENTS,
};
use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{fields, heartbeat::interval, letters, one};
use crate::{error, store::PostgresStore, transaction};

/// How long the folds of other readers may keep the threads of the runtime between two statements of a commit.
const IDLE_WITHIN: Duration = Duration::from_secs(10);

/// The most letters that a worker handles again with one commit.
const LETTERS: usize = 100;

#[async_trait]
impl Leases for PostgresStore {
    async fn id(&self) -> Result<Uuid, ReadModelError> {
        let rows = self.inner.connections.read(|| sqlx::query(include_str!("../sql/store_id.sql"))).await;
        let rows = rows.map_err(error::read_model)?;
        let row = rows.first().ok_or_else(|| error::read_model(sqlx::Error::RowNotFound))?;
        row.try_get(0).map_err(error::read_model)
    }

    async fn ensure_reader(&self, name: &str, definition: &str) -> Result<(Reader, String), ReadModelError> {
        let ensure = sqlx::query(include_str!("../sql/ensure_reader.sql")).bind(name).bind(definition);
        let rows = self.inner.connections.write(ensure).await.map_err(error::read_model)?;
        let reader = |row: &PgRow| Ok((Reader { id: row.try_get(0)?, name: name.to_owned() }, row.try_get(1)?));
        one(&rows).and_then(reader).map_err(error::read_model)
    }

    async fn reached(&self, name: &str) -> Result<Position, ReadModelError> {
        let query = || sqlx::query(include_str!("../sql/reached.sql")).bind(name);
        let rows = self.inner.connections.read(query).await.map_err(error::read_model)?;
        one(&rows).and_then(|row| row.try_get(0)).map(Position::from_i64).map_err(error::read_model)
    }

    async fn ensure_shards(&self, reader: &Reader, shards: &[Shard]) -> Result<Changeover, ReadModelError> {
        if shards.is_empty() {
            return Ok(Changeover::Ready);
        }
        let names: Vec<_> = shards.iter().map(Shard::to_string).collect();
        let sources: Vec<_> = shards.iter().map(|shard| &*shard.source).collect();
        let ensure = sqlx::query(include_str!("../sql/ensure_shards.sql")).bind(reader.id).bind(sources).bind(names);
        let rows = self.inner.connections.write(ensure).await.map_err(error::read_model)?;
        changeover(&rows).map_err(error::read_model)
    }

    async fn acquire(
        &self,
        reader: &Reader,
        shard: &Shard,
        owner: Uuid,
        takeover: Takeover,
        ttl: Duration,
    ) -> Result<Option<Lease>, ReadModelError> {
        let acquire = match takeover {
            Takeover::WhenFree => include_str!("../sql/acquire.sql"),
            Takeover::Always => include_str!("../sql/take_over.sql"),
        };
        let acquire = sqlx::query(acquire).bind(reader.id).bind(shard.to_string()).bind(owner).bind(interval(ttl));
        let asked = Instant::now();
        let rows = self.inner.connections.write(acquire).await.map_err(error::read_model)?;
        let Some(row) = rows.first() else { return Ok(None) };
        let (fencing_token, checkpoint) = leased(row).map_err(error::read_model)?;
        let lease = Lease::new(reader.clone(), shard.clone(), owner, fencing_token, ttl, checkpoint);
        self.inner.leases.written(&lease, asked);
        Ok(Some(lease))
    }

    async fn confirm(&self, lease: &Lease) -> Result<(), CommitError> {
        let holds = || {
            sqlx::query(include_str!("../sql/holds.sql"))
                .bind(lease.reader.id)
                .bind(lease.shard.to_string())
                .bind(lease.fencing_token)
        };
        let rows = self.inner.connections.read(holds).await.map_err(error::read_model)?;
        if rows.is_empty() { Err(CommitError::Fenced(lease.shard.clone())) } else { Ok(()) }
    }

    async fn release(&self, lease: &Lease) -> Result<(), ReadModelError> {
        self.inner.leases.ended(lease);
        let release = sqlx::query(include_str!("../sql/release.sql"))
            .bind(lease.reader.id)
            .bind(lease.shard.to_string())
            .bind(lease.fencing_token);
        self.inner.connections.execute(release).await.map(drop).map_err(error::read_model)
    }

    async fn commit(&self, lease: &Lease, mut changes: Changes) -> Result<(), CommitError> {
        let sent = Instant::now();
        let rest = later_parts(&mut changes);
        let commit = commit(lease, &changes)?;
        let rows = if rest.is_empty() {
            self.inner.connections.write(commit).await
        } else {
            Box::pin(self.commit_in_parts(lease, commit, rest)).await
        };
        let rows = rows.map_err(error::read_model)?;
        let acts = committed(&rows, lease, &changes).map_err(error::read_model)??;
        self.has_committed(lease, sent, acts);
        Ok(())
    }

    async fn situation(&self, lease: &Lease) -> Result<Situation, CommitError> {
        let query = || {
            sqlx::query(include_str!("../sql/situation.sql"))
                .bind(lease.reader.id)
                .bind(lease.shard.to_string())
                .bind(lease.fencing_token)
                .bind(&lease.reader.name)
        };
        let rows = self.inner.connections.read(query).await.map_err(error::read_model)?;
        let row = rows.first().ok_or_else(|| CommitError::Fenced(lease.shard.clone()))?;
        situation(row).map_err(|error| error::read_model(error).into())
    }

    async fn letters(&self, lease: &Lease, key: &str) -> Result<Vec<DeadLetter>, ReadModelError> {
        let page = LetterPage::first(LETTERS).of_key(key);
        letters::read(&self.inner.connections, &lease.reader.name, &page, Some(lease.reader.id)).await
    }

    async fn handled(&self, reader: &Reader, messages: &[Uuid]) -> Result<Vec<Uuid>, ReadModelError> {
        let query = || sqlx::query(include_str!("../sql/handled.sql")).bind(reader.id).bind(messages);
        let rows = self.inner.connections.read(query).await.map_err(error::read_model)?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(error::read_model)
    }

    async fn stopped(&self, lease: &Lease, event: &RecordedEvent, cause: &str) -> Result<(), ReadModelError> {
        let stopped = sqlx::query(include_str!("../sql/stopped.sql"))
            .bind(lease.reader.id)
            .bind(lease.shard.to_string())
            .bind(lease.fencing_token)
            .bind(event.position.to_i64())
            .bind(event.id)
            .bind(event.recorded_at)
            .bind(cause);
        self.inner.connections.execute(stopped).await.map(drop).map_err(error::read_model)
    }

    async fn paused(&self, reader: &str) -> Result<Option<Pause>, ReadModelError> {
        let query = || sqlx::query(include_str!("../sql/paused.sql")).bind(reader);
        let rows = self.inner.connections.read(query).await.map_err(error::read_model)?;
        let pause = |row: &PgRow| Ok(Pause { actor: row.try_get(0)?, reason: row.try_get(1)?, at: row.try_get(2)? });
        rows.first().map(pause).transpose().map_err(error::read_model)
    }

    async fn shares(&self, reader: &Reader) -> Result<Vec<Share>, ReadModelError> {
        let query = || sqlx::query(include_str!("../sql/shares.sql")).bind(reader.id);
        let rows = self.inner.connections.read(query).await.map_err(error::read_model)?;
        rows.iter().map(share).collect::<Result<_, _>>().map_err(error::read_model)
    }

    async fn ask_for(&self, reader: &Reader, shards: &[Shard]) -> Result<(), ReadModelError> {
        let shards: Vec<_> = shards.iter().map(Shard::to_string).collect();
        let ask = sqlx::query(include_str!("../sql/ask_for.sql")).bind(reader.id).bind(shards);
        self.inner.connections.execute(ask).await.map(drop).map_err(error::read_model)
    }
}

impl PostgresStore {
    /// Commits what is too much for one statement: neither this process nor the server has all of it in one. `commit`, with the first
    /// documents, locks the checkpoint; without it nothing is written.
    async fn commit_in_parts(
        &self,
        lease: &Lease,
        commit: Query<'_, Postgres, PgArguments>,
        rest: Vec<(String, Bytes)>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let (connections, limit) = (&self.inner.connections, self.inner.connections.answer_within());
        let begin = async {
            let mut taken = connections.take().await?;
            transaction::begin(&mut taken.connection, IDLE_WITHIN).await?;
            let rows = taken.connection.rows(commit).await?;
            Ok((taken, rows))
        };
        let (mut taken, rows) = connections.within(limit, begin).await?;
        let is_held = acts(one(&rows)?, 0)?.is_some();
        let mut rest = rest.into_iter().filter(|_| is_held).peekable();
        while rest.peek().is_some() {
            let (keys, documents): (Vec<_>, Vec<_>) = rest.by_ref().take(COMMIT_DOCUMENTS).unzip();
            let documents: Vec<&[u8]> = documents.iter().map(|document| &document[..]).collect();
            let write = sqlx::query(include_str!("../sql/write_documents.sql"))
                .bind(lease.reader.id)
                .bind(lease.shard.to_string())
                .bind(interval(lease.ttl))
                .bind(&keys)
                .bind(documents);
            connections.within(limit, taken.connection.rows(write)).await?;
        }
        let done = if is_held { Ok(rows) } else { Err(rows) };
        let ended = connections.within(limit, transaction::end(&mut taken.connection, Ok(done))).await;
        taken.give_back(ended).map(|(Ok(rows) | Err(rows))| rows)
    }

    /// A commit that was sent at the time `sent` has succeeded.
    pub(crate) fn has_committed(&self, lease: &Lease, sent: Instant, acts: Acts) {
        self.inner.leases.written(lease, sent);
        lease.hold().note(acts);
        self.inner.inline.progress.moved(&lease.reader.name);
    }
}

fn is_plain(changes: &Changes) -> bool {
    changes.fields.is_empty()
        && changes.letters.is_empty()
        && changes.redemption.is_none()
        && changes.healed_by.is_none()
        && changes.inbox.is_none()
}

/// Takes what is too much for one statement out of `changes`.
fn later_parts(changes: &mut Changes) -> Vec<(String, Bytes)> {
    if is_plain(changes) && changes.upserts.len() > COMMIT_DOCUMENTS {
        changes.upserts.split_off(COMMIT_DOCUMENTS)
    } else {
        Vec::new()
    }
}

/// The statement that commits `changes`.
///
/// # Errors
/// [`CommitError::Taken`] where two of them have the same unique value.
pub(crate) fn commit<'q>(
    lease: &'q Lease,
    changes: &'q Changes,
) -> Result<Query<'q, Postgres, PgArguments>, CommitError> {
    if let Some(taken) = FieldChange::taken_twice(&changes.fields) {
        return Err(CommitError::Taken(taken));
    }
    let has_fields = !changes.fields.is_empty() || changes.healed_by.is_some();
    let is_plain = is_plain(changes);
    let (keys, documents): (Vec<&str>, Vec<&[u8]>) =
        changes.upserts.iter().map(|(key, document)| (key.as_str(), &document[..])).unzip();
    let commit = match (is_plain, has_fields) {
        (true, _) => include_str!("../sql/commit.sql"),
        (false, false) if changes.inbox.is_some() => include_str!("../sql/commit_inbox.sql"),
        (false, false) => include_str!("../sql/commit_letters.sql"),
        (false, true) if changes.healed_by.is_some() => include_str!("../sql/heal.sql"),
        (false, true) => include_str!("../sql/commit_fields.sql"),
    };
    let mut commit = sqlx::query(commit)
        .bind(lease.reader.id)
        .bind(lease.shard.to_string())
        .bind(lease.fencing_token)
        .bind(lease.checkpoint.position.to_i64())
        .bind(changes.checkpoint.position.to_i64())
        .bind(changes.checkpoint.witness.map(|witness| witness.event_id))
        .bind(changes.checkpoint.witness.map(|witness| witness.recorded_at))
        .bind(&changes.checkpoint.cursor)
        .bind(interval(lease.ttl))
        .bind(keys)
        .bind(documents)
        .bind(&changes.deletes);
    if !is_plain {
        commit = letters::bind(commit, &changes.letters, changes.redemption.as_ref());
    }
    if let Some(Inbox { handled, keep_for }) = changes.inbox.as_ref().filter(|_| !has_fields) {
        let most = i64::try_from(INBOX_FORGETS).unwrap_or(i64::MAX);
        commit = commit.bind(handled).bind(interval(*keep_for)).bind(most);
    }
    if has_fields {
        commit = fields::bind(commit, &changes.fields);
    }
    if let Some(act) = &changes.healed_by {
        commit = commit.bind(&lease.reader.name).bind(act.actor()).bind(act.reason());
    }
    Ok(commit)
}

const ANOTHER_COMMIT: &str = "another commit wrote the same value of a unique field";

/// What `rows`, the answer to [`commit`], say.
pub(crate) fn committed(
    rows: &[PgRow],
    lease: &Lease,
    changes: &Changes,
) -> Result<Result<Acts, CommitError>, sqlx::Error> {
    let row = one(rows)?;
    let is_plain = is_plain(changes);
    let outcome = if is_plain { "committed" } else { row.try_get(0)? };
    match outcome {
        "edited" => {
            let key = changes.redemption.as_ref().map(|redemption| redemption.key.clone());
            return Ok(Err(CommitError::Edited(key.unwrap_or_default())));
        }
        // Another document has the value.
        "taken" => return Ok(Err(CommitError::Taken(fields::taken(row)?))),
        // Another document had the value when this commit was to write it, and has another one now.
        "again" => return Ok(Err(CommitError::Store(ReadModelError(ANOTHER_COMMIT.into())))),
        _ => {}
    }
    let acts = acts(row, usize::from(!is_plain))?;
    Ok(acts.ok_or_else(|| CommitError::Fenced(lease.shard.clone())))
}

/// None if the lease is lost.
fn acts(row: &PgRow, column: usize) -> Result<Option<Acts>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Acts))
}

fn situation(row: &PgRow) -> Result<Situation, sqlx::Error> {
    let (actor, reason, at) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let paused = match (actor, reason, at) {
        (Some(actor), Some(reason), Some(at)) => Some(Pause { actor, reason, at }),
        _ => None,
    };
    let letters = usize::try_from(row.try_get::<i64, _>(6)?).unwrap_or(usize::MAX);
    let (acts, parked, retries) = (Acts(row.try_get(0)?), row.try_get(4)?, row.try_get(5)?);
    Ok(Situation { acts, paused, parked, retries, letters, is_asked_for: row.try_get(7)? })
}

fn share(row: &PgRow) -> Result<Share, sqlx::Error> {
    let shard = Shard::from(row.try_get::<&str, _>(0)?);
    Ok(Share { shard, owner: row.try_get(1)?, is_asked_for: row.try_get(2)? })
}

fn changeover(rows: &[PgRow]) -> Result<Changeover, sqlx::Error> {
    match one(rows)?.try_get::<&str, _>(0)? {
        "ready" => Ok(Changeover::Ready),
        "busy" => Ok(Changeover::Busy),
        "uneven" => Ok(Changeover::Uneven),
        "parked" => Ok(Changeover::Parked),
        other => Err(sqlx::Error::Protocol(format!("ensure_shards() said {other:?}"))),
    }
}

fn leased(row: &PgRow) -> Result<(i64, Checkpoint), sqlx::Error> {
    let position = Position::from_i64(row.try_get(1)?);
    let event_id: Option<Uuid> = row.try_get(2)?;
    let recorded_at = row.try_get(3)?;
    let witness = event_id.zip(recorded_at).map(|(event_id, recorded_at)| Witness { event_id, recorded_at });
    Ok((row.try_get(0)?, Checkpoint { position, witness, cursor: row.try_get(4)? }))
}
