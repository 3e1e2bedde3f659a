//! Generations of read models: one serves, one may be under construction, retired ones are deleted in the background.

use std::sync::Arc;

use es_core::{
    Generation, Position,
    backend::{EnsureError, GenerationSet, GenerationState, Progress, PromoteError, Promotion, Reader},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use crate::{
    connections::{Connections, Work},
    error::Failure,
    tables,
};

/// How many documents of a retired generation one transaction deletes, and how many values of fields. Every append waits while a transaction runs, so
/// each is kept short.
const SWEEP: i64 = 1_000;

/// The generation of `projection` that is in `state`.
pub(crate) async fn find(
    connection: &mut SqliteConnection,
    projection: &str,
    state: &str,
) -> Result<Option<Generation>, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/find_generation.sql")).bind(projection).bind(state);
    query.fetch_optional(connection).await?.map(|row| read(&row, projection)).transpose()
}

/// The generations of `projection`, and the position that each has reached.
pub(crate) async fn of_projection(
    connection: &mut SqliteConnection,
    projection: &str,
) -> Result<GenerationSet, sqlx::Error> {
    let rows = sqlx::query(include_str!("sql/generations.sql")).bind(projection).fetch_all(connection).await?;
    let mut found = GenerationSet::default();
    for row in rows {
        let progress = Progress {
            generation: read(&row, projection)?,
            definition: row.try_get("definition")?,
            reached: Position::from_i64(row.try_get("reached")?),
            furthest: Position::from_i64(row.try_get("furthest")?),
        };
        if row.try_get::<&str, _>("state")? == GenerationState::Serving.as_str() {
            found.withdrawn = row.try_get("withdrawn")?;
            found.serving = Some(progress);
        } else {
            found.building = Some(progress);
        }
    }
    Ok(found)
}

/// The generation in a row.
pub(crate) fn read(row: &SqliteRow, projection: &str) -> Result<Generation, sqlx::Error> {
    let reader = Reader { id: row.try_get("id")?, name: projection.to_owned() };
    Ok(Generation { reader, version: row.try_get("version")? })
}

/// The state of `generation`; `None` when it was replaced or discarded.
pub(crate) async fn state(
    connection: &mut SqliteConnection,
    generation: i64,
) -> Result<Option<GenerationState>, sqlx::Error> {
    let query = sqlx::query_scalar::<_, String>(include_str!("sql/state.sql")).bind(generation);
    let stored = query.fetch_optional(connection).await?;
    Ok(stored.as_deref().and_then(GenerationState::from_stored))
}

/// The identity of this store.
pub(crate) async fn store_id(connection: &mut SqliteConnection) -> Result<Uuid, sqlx::Error> {
    let stored: Vec<u8> = sqlx::query_scalar(include_str!("sql/store_id.sql")).fetch_one(connection).await?;
    Uuid::from_slice(&stored).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// The generation of `projection` in `state`, created if there is none. The caller holds the write lock.
pub(crate) async fn ensure(
    connection: &mut SqliteConnection,
    projection: &str,
    version: u32,
    state: &str,
    definition: &str,
    fields: &str,
) -> Result<Result<Generation, EnsureError>, sqlx::Error> {
    if let Some(found) = find(connection, projection, state).await? {
        return Ok(Ok(found));
    }
    let oldest = sqlx::query(include_str!("sql/find_reader.sql")).bind(projection);
    if let Some(row) = oldest.fetch_optional(&mut *connection).await?
        && !row.try_get::<bool, _>("is_generation")?
    {
        return Ok(Err(EnsureError::OtherReader { definition: row.try_get("definition")? }));
    }
    let reader = add_reader(connection, projection, definition).await?;
    sqlx::query(include_str!("sql/add_generation.sql"))
        .bind(reader.id)
        .bind(projection)
        .bind(version)
        .bind(state)
        .bind(fields)
        .execute(connection)
        .await?;
    Ok(Ok(Generation { reader, version }))
}

/// The oldest reader of this name and its definition, created if there is none. The caller holds the write lock.
pub(crate) async fn ensure_reader(
    connection: &mut SqliteConnection,
    name: &str,
    definition: &str,
) -> Result<(Reader, String), sqlx::Error> {
    let oldest = sqlx::query(include_str!("sql/find_reader.sql")).bind(name);
    match oldest.fetch_optional(&mut *connection).await? {
        Some(row) => Ok((Reader { id: row.try_get("id")?, name: name.to_owned() }, row.try_get("definition")?)),
        None => Ok((add_reader(connection, name, definition).await?, definition.to_owned())),
    }
}

async fn add_reader(connection: &mut SqliteConnection, name: &str, definition: &str) -> Result<Reader, sqlx::Error> {
    let add = sqlx::query_scalar(include_str!("sql/add_reader.sql")).bind(name).bind(definition);
    Ok(Reader { id: add.fetch_one(connection).await?, name: name.to_owned() })
}

/// The position up to which the reader `name` has everything.
pub(crate) async fn reached(connection: &mut SqliteConnection, name: &str) -> Result<Position, sqlx::Error> {
    let query = sqlx::query_scalar(include_str!("sql/reached.sql")).bind(name);
    query.fetch_one(connection).await.map(Position::from_i64)
}

/// Replaces the serving generation with `building`, unless readers would go back in time (R12). The caller holds the
/// write lock, so no worker moves either generation meanwhile.
pub(crate) async fn promote(
    connection: &mut SqliteConnection,
    building: i64,
    promotion: Promotion,
) -> Result<Result<(), PromoteError>, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/promotion.sql")).bind(building);
    let Some(row) = query.fetch_optional(&mut *connection).await? else {
        return Ok(Err(PromoteError::NotBuilding));
    };
    let version: u32 = row.try_get("version")?;
    let serving_version: Option<u32> = row.try_get("serving_version")?;
    let withdrawn = row.try_get::<Option<u32>, _>("withdrawn")?.unwrap_or(0);
    if let Some(serving) = serving_version
        && (serving > version || withdrawn >= version)
        && promotion == Promotion::Automatic
    {
        return Ok(Err(PromoteError::Withdrawn { serving }));
    }
    let building_at = Position::from_i64(row.try_get("building_at")?);
    let serving_at = Position::from_i64(row.try_get("serving_at")?);
    if building_at < serving_at {
        return Ok(Err(PromoteError::Behind { building: building_at, serving: serving_at }));
    }
    // The old one is retired first: a unique index allows only one that serves.
    let serving = row.try_get("serving")?;
    if let Some(serving) = serving {
        retire(connection, serving, GenerationState::Serving).await?;
    }
    tables::swap(connection, serving, building).await?;
    let newest = serving_version.unwrap_or(0).max(withdrawn);
    let withdrawn = if newest > version { newest } else { 0 };
    sqlx::query(include_str!("sql/promote.sql")).bind(building).bind(withdrawn).execute(connection).await?;
    Ok(Ok(()))
}

/// Retires a generation that is in `state`: readers no longer see it, and its workers are fenced. The caller holds the
/// write lock.
pub(crate) async fn retire(
    connection: &mut SqliteConnection,
    generation: i64,
    state: GenerationState,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(include_str!("sql/delete_generation.sql")).bind(generation).bind(state.as_str());
    if query.execute(&mut *connection).await?.rows_affected() > 0 {
        sqlx::query(include_str!("sql/retire.sql")).bind(generation).execute(&mut *connection).await?;
        sqlx::query(include_str!("sql/fence.sql")).bind(generation).execute(connection).await?;
    }
    Ok(())
}

/// Deletes what retired generations hold, in a separate task. No reader sees it any more, so neither the worker that
/// promoted another generation nor a process that starts waits for it. The transactions are small, and other writes
/// get their turn between two of them. An interrupted sweep leaves rows that no query reads; the next sweep deletes
/// them.
pub(crate) async fn sweep(connections: &Arc<Connections>) -> Result<(), Failure> {
    let mut reader = connections.reader().await?;
    let retired: Vec<i64> = sqlx::query_scalar(include_str!("sql/retired.sql")).fetch_all(reader.connection()).await?;
    reader.give_back();
    if !retired.is_empty() {
        let connections = connections.clone();
        tokio::spawn(async move {
            match sweep_all(&connections, retired).await {
                Ok(()) | Err(Failure::Closed) => {}
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(
                        error,
                        "documents of a retired generation were not deleted; the next sweep tries again"
                    );
                }
            }
        });
    }
    Ok(())
}

async fn sweep_all(connections: &Connections, retired: Vec<i64>) -> Result<(), Failure> {
    for generation in retired {
        while !connections.write(move |connection| sweep_some(connection, generation)).await? {}
    }
    Ok(())
}

/// Returns whether that was all.
fn sweep_some(connection: &mut SqliteConnection, generation: i64) -> Work<'_, bool> {
    Box::pin(async move {
        let mut done = true;
        for statement in [include_str!("sql/sweep_fields.sql"), include_str!("sql/sweep_documents.sql")] {
            let query = sqlx::query(statement).bind(generation).bind(SWEEP);
            done &= query.execute(&mut *connection).await?.rows_affected() < SWEEP.unsigned_abs();
        }
        if done {
            tables::drop_tables(connection, generation).await?;
            sqlx::query(include_str!("sql/sweep_reader.sql")).bind(generation).execute(connection).await?;
        }
        Ok(done)
    })
}
