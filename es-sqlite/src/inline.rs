//! Read models that are folded in the transaction of each batch.

use chrono::{DateTime, Utc};
use es_core::{
    AppendError, Generation, Position, ReadError, RecordedEvent, Version,
    backend::{
        Checkpoint, GenerationState, InlineBehind, InlineDue, InlineFailure, InlineFold, InlineFolds, InlineModels,
        InlineObstacle, InlineState, Reader, check_contiguous,
    },
};
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteRow};

use crate::{
    batch::write_within,
    documents,
    error::is_refusal,
    fields, leases,
    log::rows_limit,
    packed::json,
    queue::{Outcome, Prepared},
    rows,
    verdict::Written,
};

/// Why a batch was not written: an inline read model does not have the events before it.
#[derive(Debug)]
pub(crate) struct Behind {
    pub(crate) behind: InlineBehind,
    /// Of each entry, whether it would be written. What becomes of the others depends on no read model.
    pub(crate) written: Vec<bool>,
}

/// A step of a batch that is written in parts.
enum Step<'a> {
    Write(&'a [Prepared]),
    Refuse(AppendError),
}

/// Writes `batch` and folds the read models, in a transaction of its own, and returns the outcome of each entry, in order, and the last
/// position. After an error the transaction may still be open.
///
/// An entry that cannot be folded is taken back to its savepoint and fails alone; what stands before it and after it is written without
/// it (R4).
///
/// # Errors
/// The inner one is that of the read models, which all entries share. The transaction has ended.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    batch: &[Prepared],
    own: &mut Written,
    models: &InlineModels,
) -> Result<Result<(Vec<Outcome>, Position, InlineFolds), Behind>, sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let (mut outcomes, mut end, mut folded) = (Vec::with_capacity(batch.len()), Position::ZERO, InlineFolds::new());
    let mut steps = vec![Step::Write(batch)];
    while let Some(step) = steps.pop() {
        let part = match step {
            Step::Write([]) => continue,
            Step::Write(part) => part,
            Step::Refuse(error) => {
                outcomes.push(Err(error));
                continue;
            }
        };
        let mut savepoint = transaction.begin().await?;
        let written = write_part(&mut savepoint, part, models).await;
        // The first of the next steps on top of the stack: entries must see those that were queued before them.
        match written {
            Ok(Ok((written, head, folds))) => {
                savepoint.commit().await?;
                outcomes.extend(written);
                end = end.max(head);
                folded.extend(folds);
            }
            Ok(Err(Refused::Entry(Some(entry), failure))) => {
                savepoint.rollback().await?;
                let (before, rest) = part.split_at(entry);
                let after = rest.get(1..).unwrap_or_default();
                steps.extend([Step::Write(after), Step::Refuse(failure.into()), Step::Write(before)]);
            }
            Ok(Err(Refused::Entry(None, failure))) => {
                savepoint.rollback().await?;
                divide(part, &mut steps, failure);
            }
            Ok(Err(Refused::Behind(behind, of_part))) => {
                savepoint.rollback().await?;
                transaction.rollback().await?;
                let mut written: Vec<_> = outcomes.iter().chain(&of_part).map(is_written).collect();
                // The next parts have not been judged.
                written.resize(batch.len(), true);
                return Ok(Err(Behind { behind, written }));
            }
            Err(error) if is_refusal(&error) => {
                savepoint.rollback().await?;
                divide(part, &mut steps, RefusedBySqlite(error));
            }
            Err(error) => return Err(error),
        }
    }
    own.recognise(&mut outcomes);
    transaction.commit().await?;
    Ok(Ok((outcomes, end, folded)))
}

fn is_written(outcome: &Outcome) -> bool {
    outcome.iter().flatten().any(|appended| !appended.repeated)
}

/// Tries each half of `part` on its own. An entry that is alone fails.
fn divide<'a>(part: &'a [Prepared], steps: &mut Vec<Step<'a>>, cause: impl Into<AppendError>) {
    if part.len() == 1 {
        steps.push(Step::Refuse(cause.into()));
    } else {
        let (first, second) = part.split_at(part.len() / 2);
        steps.extend([Step::Write(second), Step::Write(first)]);
    }
}

/// What SQLite has refused.
struct RefusedBySqlite(sqlx::Error);

impl From<RefusedBySqlite> for AppendError {
    fn from(RefusedBySqlite(error): RefusedBySqlite) -> Self {
        Self::Refused(error.into())
    }
}

/// Why a part of a batch was not written.
enum Refused {
    /// The read models cannot be folded with this entry; if that is not known, with one of them.
    Entry(Option<usize>, InlineFailure),
    /// No entry is to blame. These would have been their outcomes.
    Behind(InlineBehind, Vec<Outcome>),
}

/// Writes `part` within the caller's transaction and folds the read models. Returns also the last position.
async fn write_part(
    connection: &mut SqliteConnection,
    part: &[Prepared],
    models: &InlineModels,
) -> Result<Result<(Vec<Outcome>, Position, InlineFolds), Refused>, sqlx::Error> {
    let (outcomes, head, now) = write_within(connection, part).await?;
    let appended = recorded(part, &outcomes, now);
    let Some(last) = appended.last().map(|last| last.position) else {
        return Ok(Ok((outcomes, head, InlineFolds::new())));
    };
    let due = match due(models, &models.names(), GenerationState::Serving, head, connection).await? {
        Ok(due) => due,
        Err(behind) => return Ok(Err(Refused::Behind(behind, outcomes))),
    };
    match fold(models, due, head, &appended, connection).await? {
        Ok(folded) => Ok(Ok((outcomes, last, folded))),
        Err(InlineObstacle::Behind(behind)) => Ok(Err(Refused::Behind(behind, outcomes))),
        Err(InlineObstacle::Failed(failure)) => {
            let entry = failure.position.and_then(|position| entry_at(&outcomes, position));
            Ok(Err(Refused::Entry(entry, failure)))
        }
    }
}

/// Which entry has written the event at `position`: the first that ends there or later.
fn entry_at(outcomes: &[Outcome], position: Position) -> Option<usize> {
    let ends = |outcome: &Outcome| {
        outcome.iter().flatten().any(|appended| !appended.repeated && appended.position >= position)
    };
    outcomes.iter().position(ends)
}

/// The generations in `state` that this process folds, for appends after `head`.
async fn due(
    models: &InlineModels,
    names: &[&str],
    state: GenerationState,
    head: Position,
    connection: &mut SqliteConnection,
) -> Result<Result<Vec<InlineDue>, InlineBehind>, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/inline_states.sql"))
        .bind(json(&names))
        .bind(state.as_str())
        .bind(InlineState::shard().to_string());
    let rows = query.fetch_all(connection).await?;
    let states = rows.iter().map(inline_state).collect::<Result<_, _>>()?;
    Ok(models.due(states, head))
}

fn inline_state(row: &SqliteRow) -> Result<InlineState, sqlx::Error> {
    let fencing_token: Option<i64> = row.try_get("fencing_token")?;
    let checkpoint = match row.try_get::<Option<i64>, _>("position")? {
        Some(position) => Some(Checkpoint {
            position: Position::from_i64(position),
            witness: leases::witness(row)?,
            cursor: row.try_get("cursor")?,
        }),
        None => None,
    };
    Ok(InlineState {
        reader: Reader { id: row.try_get("id")?, name: row.try_get("projection")? },
        version: row.try_get("version")?,
        definition: row.try_get("definition")?,
        fencing_token: fencing_token.unwrap_or_default(),
        checkpoint,
        is_detached: row.try_get("is_detached")?,
    })
}

/// Folds all events after the checkpoints of `due`, up to `head` and then those of the appends.
async fn fold(
    models: &InlineModels,
    due: Vec<InlineDue>,
    head: Position,
    appended: &[RecordedEvent],
    connection: &mut SqliteConnection,
) -> Result<Result<InlineFolds, InlineObstacle>, sqlx::Error> {
    let mut folded = InlineFolds::with_capacity(due.len());
    for due in due {
        match fold_one(models, due, head, appended, connection).await? {
            Ok(one) => folded.extend(one),
            Err(obstacle) => return Ok(Err(obstacle)),
        }
    }
    Ok(Ok(folded))
}

/// `None` if there is nothing to fold, or the read model is left out.
async fn fold_one(
    models: &InlineModels,
    (model, mut at): InlineDue,
    head: Position,
    appended: &[RecordedEvent],
    connection: &mut SqliteConnection,
) -> Result<Result<Option<(&'static str, Box<dyn InlineFold>)>, InlineObstacle>, sqlx::Error> {
    let (name, behind) = (model.name(), |behind| Ok(Err(InlineObstacle::Behind(behind))));
    let missing = match at.missing(name, head) {
        Ok(missing) => missing,
        Err(error) => return behind(error),
    };
    let mut caught_up = None;
    if missing > 0 {
        let page = events_after(at.reached(), InlineState::page(missing), connection).await?;
        let fold = match models.begin_missing(&model, &at, &page, missing, head) {
            Ok(Some(fold)) => fold,
            Ok(None) => return Ok(Ok(None)),
            Err(error) => return behind(error),
        };
        match write_fold(fold, &mut at, connection).await? {
            Ok(fold) => caught_up = Some((name, fold)),
            Err(failure) => {
                return match models.missing_failed(failure, &at, missing, head) {
                    Ok(()) => Ok(Ok(None)),
                    Err(error) => behind(error),
                };
            }
        }
    }
    if appended.is_empty() {
        return Ok(Ok(caught_up));
    }
    let fold = match model.begin(&at, appended) {
        Ok(fold) => write_fold(fold, &mut at, connection).await?,
        Err(failure) => Err(failure),
    };
    Ok(fold.map(|fold| Some((name, fold))).map_err(InlineObstacle::Failed))
}

/// Folds what `fold` has begun, writes it, and moves `at`.
async fn write_fold(
    mut fold: Box<dyn InlineFold>,
    at: &mut InlineState,
    connection: &mut SqliteConnection,
) -> Result<Result<Box<dyn InlineFold>, InlineFailure>, sqlx::Error> {
    let stored = if fold.missing().is_empty() {
        Vec::new()
    } else {
        documents::load(connection, &at.reader, fold.missing(), fold.budget()).await?
    };
    let changes = match fold.fold(stored) {
        Ok(changes) => changes,
        Err(failure) => return Ok(Err(failure)),
    };
    if let Some(taken) = fields::taken(connection, at.reader.id, &changes.fields).await? {
        return Ok(Err(fold.refused(taken)));
    }
    leases::advance_inline(connection, at, &changes.checkpoint).await?;
    documents::write(connection, at.reader.id, &changes.upserts, &changes.deletes).await?;
    fields::write(connection, at.reader.id, &changes.fields).await?;
    Ok(Ok(fold))
}

/// The first events after `position`, at most `limit`, and no more than a page.
async fn events_after(
    position: Position,
    limit: usize,
    connection: &mut SqliteConnection,
) -> Result<Vec<RecordedEvent>, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/read_log.sql")).bind(position.to_i64()).bind(rows_limit(limit));
    let damaged = |reason: ReadError| sqlx::Error::Decode(reason.into());
    let events = rows::page_within(query, connection).await?.map_err(damaged)?;
    check_contiguous(position, &events).map_err(damaged)?;
    Ok(events)
}

/// Folds all events into the generation `building`, which is about to serve, as far as it can be folded. The caller's transaction makes it
/// serve: with all that was acknowledged.
pub(crate) async fn fold_building(
    connection: &mut SqliteConnection,
    models: &InlineModels,
    building: &Generation,
) -> Result<InlineFolds, sqlx::Error> {
    let Some(model) = models.of(&building.reader.name, building.version) else { return Ok(InlineFolds::new()) };
    let head = rows::head(connection).await?;
    let mut savepoint = connection.begin().await?;
    let due = due(models, &[model.name()], GenerationState::Building, head, &mut savepoint).await?;
    let due = due.map(|due| due.into_iter().filter(|(_, at)| at.reader == building.reader).collect());
    let folded = match due {
        Ok(due) => fold(models, due, head, &[], &mut savepoint).await?,
        Err(behind) => Err(InlineObstacle::Behind(behind)),
    };
    match folded {
        Ok(folded) => {
            savepoint.commit().await?;
            Ok(folded)
        }
        Err(obstacle) => {
            savepoint.rollback().await?;
            tracing::warn!(name = building.reader.name, ?obstacle, "the new generation was not folded to the end");
            Ok(InlineFolds::new())
        }
    }
}

/// The events that `part` has written at the time `now`, in the order of the log.
fn recorded(part: &[Prepared], outcomes: &[Outcome], now: DateTime<Utc>) -> Vec<RecordedEvent> {
    let mut events = Vec::new();
    for (prepared, outcome) in part.iter().zip(outcomes) {
        let appended = outcome.iter().flatten().filter(|appended| !appended.repeated);
        for (append, appended) in prepared.appends.iter().zip(appended) {
            let count = append.events.len() as u64;
            let mut position = Position::new(appended.position.get() - count);
            let mut version = Version::new(appended.version.get() - count);
            for new in &append.events {
                (position, version) = (position.next(), version.next());
                events.push(new.clone().into_recorded(append.stream.clone(), version, position, now));
            }
        }
    }
    events
}
