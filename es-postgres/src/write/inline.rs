//! Read models that are folded in the transaction of each batch.
//!
//! Such a transaction has several statements, all under the append lock, which the first of them takes. Then come the locks on the
//! checkpoints and the documents. A worker that commits to one of them holds nothing else meanwhile, and takes no append lock. A
//! promotion locks the readers and the checkpoints of all generations before it folds, as those do that take no append lock.

use std::time::Duration;

use bytes::Bytes;
use es_core::{
    Generation, Position, RecordedEvent,
    backend::{
        Checkpoint, CommitError, GenerationState, InlineBehind, InlineDue, InlineFailure, InlineFold, InlineFolds,
        InlineModels, InlineObstacle, InlineState, PAGE_BYTES, Reader, Witness, check_contiguous,
    },
};
use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use crate::{guard::Guarded, read::log, read_models::leases, transaction, write::fate::Fate};

/// How long the server waits for the next statement of an append with read models: it has the append lock.
pub(crate) const IDLE_WITHIN: Duration = Duration::from_secs(2);

/// How many events are read at a time.
const PAGE: usize = 1_000;

/// What comes of a transaction that the read models may refuse. The outer error is one of the database.
pub(crate) type Obstructed<T> = Result<Result<T, InlineObstacle>, sqlx::Error>;

/// Why a batch was not written with the read models.
pub(crate) enum Refusal {
    /// This request of it fails; if that is not known, all of them together.
    Request(Option<usize>, InlineFailure),
    /// None is to blame. The fates are those that the entries would have had.
    Behind(InlineBehind, Vec<Fate>),
}

/// What comes of a batch.
pub(crate) type Refusable<T> = Result<Result<T, Refusal>, sqlx::Error>;

/// A generation that is to be folded, and whether a worker holds its lease.
pub(crate) struct Due {
    due: InlineDue,
    is_leased: bool,
}

/// The events of the appends with which the read models are folded.
#[derive(Clone, Copy)]
pub(crate) enum Own<'a> {
    /// There are none.
    None,
    Known(&'a [RecordedEvent]),
    /// So many, which are to be read.
    Written(usize),
}

/// The generations in `state` that this process folds, for appends after `head`. Their checkpoints are locked from now on.
pub(crate) async fn due(
    models: &InlineModels,
    names: &[&str],
    state: GenerationState,
    head: Position,
    connection: &mut Guarded,
) -> Result<Result<Vec<Due>, InlineBehind>, sqlx::Error> {
    let shard = InlineState::shard().to_string();
    let query = sqlx::query(include_str!("../sql/inline_states.sql")).bind(names).bind(state.as_str()).bind(shard);
    let found = connection.rows(query).await?;
    let states = found.iter().map(inline_state).collect::<Result<Vec<_>, _>>()?;
    let leased: Vec<_> = states.iter().filter(|(_, is_leased)| *is_leased).map(|(state, _)| state.reader.id).collect();
    let states = states.into_iter().map(|(state, _)| state).collect();
    let due = models
        .due(states, head)
        .map(|due| due.into_iter().map(|due| Due { is_leased: leased.contains(&due.1.reader.id), due }).collect());
    Ok(due)
}

/// Folds all events after the checkpoints of `due`, up to `head` and then its `own`.
pub(crate) async fn fold(
    models: &InlineModels,
    due: Vec<Due>,
    head: Position,
    own: Own<'_>,
    connection: &mut Guarded,
) -> Obstructed<InlineFolds> {
    let mut folded = InlineFolds::with_capacity(due.len());
    for due in due {
        match fold_one(models, due, head, own, connection).await? {
            Ok(one) => folded.extend(one),
            Err(obstacle) => return Ok(Err(obstacle)),
        }
    }
    Ok(Ok(folded))
}

/// `None` if there is nothing to fold, or the read model is left out.
async fn fold_one(
    models: &InlineModels,
    Due { due: (model, mut at), is_leased }: Due,
    head: Position,
    own: Own<'_>,
    connection: &mut Guarded,
) -> Obstructed<Option<(&'static str, Box<dyn InlineFold>)>> {
    let (name, behind) = (model.name(), |behind| Ok(Err(InlineObstacle::Behind(behind))));
    let missing = match at.missing(name, head) {
        Ok(missing) => missing,
        Err(error) => return behind(error),
    };
    if is_leased {
        let fence = sqlx::query(include_str!("../sql/inline_fence.sql"));
        connection.execute(fence.bind(at.reader.id).bind(InlineState::shard().to_string())).await?;
        at.fencing_token += 1;
    }
    let mut caught_up = None;
    if missing > 0 {
        let events = page(at.reached(), InlineState::page(missing), connection).await?;
        let fold = match models.begin_missing(&model, &at, &events, missing, head) {
            Ok(Some(fold)) => fold,
            Ok(None) => return Ok(Ok(None)),
            Err(error) => return behind(error),
        };
        match write(fold, &at, connection).await? {
            Ok((fold, checkpoint)) => {
                at.checkpoint = Some(checkpoint);
                caught_up = Some((name, fold));
            }
            Err(failure) => {
                return match models.missing_failed(failure, &at, missing, head) {
                    Ok(()) => Ok(Ok(None)),
                    Err(error) => behind(error),
                };
            }
        }
    }
    let read;
    let events = match own {
        Own::None => return Ok(Ok(caught_up)),
        Own::Known(events) => events,
        Own::Written(count) => {
            read = events_after(head, count, connection).await?;
            &read
        }
    };
    let fold = match model.begin(&at, events) {
        Ok(fold) => write(fold, &at, connection).await?,
        Err(failure) => Err(failure),
    };
    Ok(fold.map(|(fold, _)| Some((name, fold))).map_err(InlineObstacle::Failed))
}

/// Folds what `fold` has begun and writes it. Returns also the checkpoint after it.
async fn write(
    mut fold: Box<dyn InlineFold>,
    at: &InlineState,
    connection: &mut Guarded,
) -> Result<Result<(Box<dyn InlineFold>, Checkpoint), InlineFailure>, sqlx::Error> {
    let stored = load(at.reader.id, fold.missing(), fold.budget(), connection).await?;
    let changes = match fold.fold(stored) {
        Ok(changes) => changes,
        Err(failure) => return Ok(Err(failure)),
    };
    let lease = at.lease();
    let committed = match leases::commit(&lease, &changes) {
        Ok(commit) => leases::committed(&connection.rows(commit).await?, &lease, &changes)?.map(drop),
        Err(refused) => Err(refused),
    };
    match committed {
        Ok(()) => Ok(Ok((fold, changes.checkpoint))),
        Err(CommitError::Taken(taken)) => Ok(Err(fold.refused(taken))),
        // The checkpoint is locked, and no letter is redeemed: it is the unique index, of which another transaction has made use.
        Err(error) => Err(sqlx::Error::Io(std::io::Error::other(error))),
    }
}

/// Folds all events into the generation `building`, which is about to serve, and runs `promote` in the same transaction, under the append
/// lock: so it serves with all that was acknowledged. `None` if it cannot be folded up to there; nothing has changed then.
pub(crate) async fn promote(
    models: &InlineModels,
    building: &Generation,
    promote: Query<'_, Postgres, PgArguments>,
    connection: &mut Guarded,
) -> Result<Option<(Vec<PgRow>, InlineFolds)>, sqlx::Error> {
    transaction::begin(connection, IDLE_WITHIN).await?;
    let done = fold_and_promote(models, building, promote, connection).await;
    match transaction::end(connection, done).await? {
        Ok(done) => Ok(Some(done)),
        Err(obstacle) => {
            if let Some(obstacle) = obstacle {
                tracing::warn!(name = building.reader.name, ?obstacle, "the new generation was not folded to the end");
            }
            Ok(None)
        }
    }
}

async fn fold_and_promote(
    models: &InlineModels,
    building: &Generation,
    promote: Query<'_, Postgres, PgArguments>,
    connection: &mut Guarded,
) -> Result<Result<(Vec<PgRow>, InlineFolds), Option<InlineObstacle>>, sqlx::Error> {
    connection.rows(sqlx::query(include_str!("../sql/inline_turn.sql"))).await?;
    let lock = sqlx::query(include_str!("../sql/inline_promotion.sql"));
    connection.rows(lock.bind(&building.reader.name)).await?;
    // Another statement: it sees all that was written before the lock was taken.
    let head = connection.rows(sqlx::query(include_str!("../sql/head.sql"))).await?;
    let head = Position::from_i64(head.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)?);
    let Some(model) = models.of(&building.reader.name, building.version) else { return Ok(Err(None)) };
    let due = match due(models, &[model.name()], GenerationState::Building, head, connection).await? {
        Ok(due) => due,
        Err(behind) => return Ok(Err(Some(InlineObstacle::Behind(behind)))),
    };
    // Another one is built by now, or it is paused.
    if !due.iter().any(|due| due.due.1.reader == building.reader) {
        return Ok(Err(None));
    }
    match fold(models, due, head, Own::None, connection).await? {
        Ok(folded) => Ok(Ok((connection.rows(promote).await?, folded))),
        Err(obstacle) => Ok(Err(Some(obstacle))),
    }
}

/// The next `count` events after `position`.
async fn events_after(
    position: Position,
    count: usize,
    connection: &mut Guarded,
) -> Result<Vec<RecordedEvent>, sqlx::Error> {
    let mut events = Vec::with_capacity(count);
    let mut last = position;
    while events.len() < count {
        let next = page(last, PAGE.min(count - events.len()), connection).await?;
        last = next.last().ok_or(sqlx::Error::RowNotFound)?.position;
        events.extend(next);
    }
    Ok(events)
}

/// The first events after `position`, at most `limit`, and no more than a page.
async fn page(position: Position, limit: usize, connection: &mut Guarded) -> Result<Vec<RecordedEvent>, sqlx::Error> {
    let [limit, bytes] = [limit, PAGE_BYTES].map(|most| i64::try_from(most).unwrap_or(i64::MAX));
    let query = sqlx::query(include_str!("../sql/read_log.sql")).bind(position.to_i64()).bind(limit).bind(bytes);
    let damaged = |reason: es_core::ReadError| sqlx::Error::Decode(reason.into());
    let page = log::decode(&connection.rows(query).await?, None).map_err(damaged)?;
    check_contiguous(position, &page).map_err(damaged)?;
    Ok(page)
}

/// The documents under the first of `keys`, as many as `budget` bytes allow.
async fn load(
    generation: i64,
    keys: &[String],
    budget: usize,
    connection: &mut Guarded,
) -> Result<Vec<Option<Bytes>>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let budget = i64::try_from(budget).unwrap_or(i64::MAX);
    let load = sqlx::query(include_str!("../sql/load.sql")).bind(generation).bind(keys).bind(budget);
    let rows = connection.rows(load).await?;
    rows.iter().map(|row| Ok(row.try_get::<Option<&[u8]>, _>(0)?.map(Bytes::copy_from_slice))).collect()
}

/// A generation whose checkpoint is locked, and whether a worker holds its lease.
fn inline_state(row: &PgRow) -> Result<(InlineState, bool), sqlx::Error> {
    let version = row.try_get::<i64, _>(2)?;
    let (event_id, recorded_at) = (row.try_get::<Option<_>, _>(7)?, row.try_get::<Option<_>, _>(8)?);
    let witness = event_id.zip(recorded_at).map(|(event_id, recorded_at)| Witness { event_id, recorded_at });
    let position = Position::from_i64(row.try_get(6)?);
    let state = InlineState {
        reader: Reader { id: row.try_get(0)?, name: row.try_get(1)? },
        version: u32::try_from(version).map_err(|reason| sqlx::Error::Decode(reason.into()))?,
        definition: row.try_get(3)?,
        is_detached: row.try_get(4)?,
        fencing_token: row.try_get(5)?,
        checkpoint: Some(Checkpoint { position, witness, cursor: row.try_get(9)? }),
    };
    Ok((state, row.try_get(10)?))
}
