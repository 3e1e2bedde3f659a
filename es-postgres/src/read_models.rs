//! Read models: generations, their checkpoints, their documents.

mod fields;
pub(crate) mod heartbeat;
pub(crate) mod leases;
mod letters;
mod operations;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use es_core::{
    Generation, KeyRange, Position,
    backend::{
        DeclaredField, Documents, EnsureError, FieldScan, FoundDocument, GenerationSet, GenerationState, Generations,
        KnownProgress, Progress, PromoteError, Promotion, ReadModelError, Reader, Served, StoredDocument,
    },
};
use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use crate::{error, store::PostgresStore, write::inline};

/// How often a sweep is tried while tables that it is to drop are being read, and the pause between two tries.
const SWEEP_TRIES: u32 = 120;
const SWEEP_PAUSE: Duration = Duration::from_millis(500);

#[async_trait]
impl Documents for PostgresStore {
    async fn get(&self, projection: &str, key: &str) -> Result<Option<Served<Option<Bytes>>>, ReadModelError> {
        let get = || sqlx::query(include_str!("sql/get.sql")).bind(projection).bind(key);
        let rows = self.inner.connections.read(get).await.map_err(error::read_model)?;
        let served =
            rows.first().map(|row| Ok(Served { generation: generation(row, projection)?, found: document(row, 2)? }));
        served.transpose().map_err(error::read_model)
    }

    async fn scan(
        &self,
        projection: &str,
        range: KeyRange,
        limit: usize,
    ) -> Result<Option<Served<Vec<(String, Bytes)>>>, ReadModelError> {
        let Bounds { from, inclusive, below } = Bounds::of(&range);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.inner.connections.read(|| match &below {
            None => sqlx::query(include_str!("sql/scan.sql")).bind(projection).bind(&from).bind(inclusive).bind(limit),
            Some(below) => sqlx::query(include_str!("sql/scan_below.sql"))
                .bind(projection)
                .bind(&from)
                .bind(inclusive)
                .bind(limit)
                .bind(below),
        });
        let rows = rows.await.map_err(error::read_model)?;
        scanned(&rows, projection).map_err(error::read_model)
    }

    async fn find(
        &self,
        projection: &str,
        scan: &FieldScan,
        limit: usize,
    ) -> Result<Option<Served<Option<Vec<FoundDocument>>>>, ReadModelError> {
        fields::find(&self.inner.connections, projection, scan, limit).await.map_err(error::read_model)
    }

    async fn count(&self, projection: &str, scan: &FieldScan) -> Result<Option<Served<Option<u64>>>, ReadModelError> {
        fields::count(&self.inner.connections, projection, scan).await.map_err(error::read_model)
    }

    async fn load(
        &self,
        reader: &Reader,
        keys: &[String],
        budget: usize,
    ) -> Result<Vec<Option<Bytes>>, ReadModelError> {
        let budget = i64::try_from(budget).unwrap_or(i64::MAX);
        let load = || sqlx::query(include_str!("sql/load.sql")).bind(reader.id).bind(keys).bind(budget);
        let rows = self.inner.connections.read(load).await.map_err(error::read_model)?;
        // Each row goes when its document is copied out of it, so that not all of them are there twice.
        rows.into_iter().map(|row| document(&row, 0)).collect::<Result<_, _>>().map_err(error::read_model)
    }

    async fn stored(&self, reader: &Reader, keys: &[String]) -> Result<Vec<StoredDocument>, ReadModelError> {
        fields::stored(&self.inner.connections, reader, keys).await.map_err(error::read_model)
    }

    async fn generations(&self, projection: &str) -> Result<GenerationSet, ReadModelError> {
        let query = || sqlx::query(include_str!("sql/generations.sql")).bind(projection);
        let rows = self.inner.connections.read(query).await.map_err(error::read_model)?;
        generations(&rows, projection).map_err(error::read_model)
    }

    fn known_progress(&self) -> &KnownProgress {
        &self.inner.inline.progress
    }
}

#[async_trait]
impl Generations for PostgresStore {
    async fn ensure_generation(
        &self,
        projection: &str,
        version: u32,
        state: GenerationState,
        definition: &str,
        fields: &[DeclaredField],
    ) -> Result<Generation, EnsureError> {
        let ensure = sqlx::query(include_str!("sql/ensure_generation.sql"))
            .bind(projection)
            .bind(i64::from(version))
            .bind(state.as_str())
            .bind(definition)
            .bind(fields::declared(fields));
        let rows = self.inner.connections.write(ensure).await.map_err(error::read_model)?;
        ensured(&rows, projection).map_err(error::read_model)?
    }

    async fn state(&self, generation: &Generation) -> Result<Option<GenerationState>, ReadModelError> {
        let query = || sqlx::query(include_str!("sql/state.sql")).bind(generation.reader.id);
        let rows = self.inner.connections.read(query).await.map_err(error::read_model)?;
        let stored = rows.first().map(|row| row.try_get::<&str, _>(0)).transpose().map_err(error::read_model)?;
        Ok(stored.and_then(GenerationState::from_stored))
    }

    async fn promote(&self, building: &Generation, promotion: Promotion) -> Result<(), PromoteError> {
        let on_purpose = promotion == Promotion::OnPurpose;
        let promote = || sqlx::query(include_str!("sql/promote.sql")).bind(building.reader.id).bind(on_purpose);
        let rows = match self.fold_and_promote(building, promote()).await.map_err(error::read_model)? {
            Some(rows) => rows,
            None => self.inner.connections.write(promote()).await.map_err(error::read_model)?,
        };
        promoted(&rows).map_err(error::read_model)??;
        self.inner.inline.progress.moved(&building.reader.name);
        self.sweep();
        Ok(())
    }

    async fn discard(&self, building: &Generation) -> Result<(), ReadModelError> {
        let discard = sqlx::query(include_str!("sql/discard.sql")).bind(building.reader.id);
        self.inner.connections.execute(discard).await.map_err(error::read_model)?;
        self.sweep();
        Ok(())
    }
}

impl PostgresStore {
    /// The answer to `promote`, which also waits until all events are folded into `building`; `None` if appends do not fold this read
    /// model, or it cannot be folded so far.
    async fn fold_and_promote(
        &self,
        building: &Generation,
        promote: Query<'_, Postgres, PgArguments>,
    ) -> Result<Option<Vec<PgRow>>, sqlx::Error> {
        let models = &self.inner.inline.models;
        if models.of(&building.reader.name, building.version).is_none() {
            return Ok(None);
        }
        let connections = &self.inner.connections;
        let promoting = async {
            let mut taken = connections.take().await?;
            let done = inline::promote(models, building, promote, &mut taken.connection).await;
            // After an error its transaction may be open.
            if done.is_err() { done } else { taken.give_back(done) }
        };
        let Some((rows, folded)) = connections.within(connections.answer_within(), promoting).await? else {
            return Ok(None);
        };
        for (_, fold) in folded {
            fold.committed();
        }
        Ok(Some(rows))
    }

    /// Deletes the documents of retired generations, on a task of its own: no reader sees them any more, and the worker
    /// that has promoted the new generation must go on with it. The next sweep takes what this one leaves.
    fn sweep(&self) {
        let (connections, schema) = (self.inner.connections.clone(), self.inner.schema.clone());
        tokio::spawn(async move {
            for _ in 0..SWEEP_TRIES {
                match connections.sweep().await {
                    // Tables of a retired generation are still being read.
                    Err(cause) if error::is_lock_timeout(&cause) => tokio::time::sleep(SWEEP_PAUSE).await,
                    Ok(()) => return,
                    Err(cause) => {
                        tracing::warn!(schema, error = %cause, "documents of a retired generation stay for now");
                        return;
                    }
                }
            }
            tracing::warn!(schema, "tables of a retired generation are still being read, and stay for now");
        });
    }
}

/// A range of keys as the index sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) from: String,
    pub(crate) inclusive: bool,
    pub(crate) below: Option<String>,
}

impl Bounds {
    pub(crate) fn of(range: &KeyRange) -> Self {
        let (from, inclusive) = match &range.after {
            Some(after) if *after >= range.prefix => (after.clone(), false),
            _ => (range.prefix.clone(), true),
        };
        Self { from, inclusive, below: range.end() }
    }
}

fn one(rows: &[PgRow]) -> Result<&PgRow, sqlx::Error> {
    rows.first().ok_or(sqlx::Error::RowNotFound)
}

fn generation(row: &PgRow, projection: &str) -> Result<Generation, sqlx::Error> {
    let reader = Reader { id: row.try_get(0)?, name: projection.to_owned() };
    Ok(Generation { reader, version: version(row, 1)? })
}

fn ensured(rows: &[PgRow], projection: &str) -> Result<Result<Generation, EnsureError>, sqlx::Error> {
    let row = one(rows)?;
    match row.try_get(2)? {
        Some(definition) => Ok(Err(EnsureError::OtherReader { definition })),
        None => generation(row, projection).map(Ok),
    }
}

fn version(row: &PgRow, column: usize) -> Result<u32, sqlx::Error> {
    u32::try_from(row.try_get::<i64, _>(column)?).map_err(|reason| sqlx::Error::Decode(reason.into()))
}

fn generations(rows: &[PgRow], projection: &str) -> Result<GenerationSet, sqlx::Error> {
    let mut found = GenerationSet::default();
    for row in rows {
        let progress = Progress {
            generation: generation(row, projection)?,
            definition: row.try_get(3)?,
            reached: Position::from_i64(row.try_get(5)?),
            furthest: Position::from_i64(row.try_get(6)?),
        };
        if row.try_get::<&str, _>(2)? == GenerationState::Serving.as_str() {
            found.withdrawn = version(row, 4)?;
            found.serving = Some(progress);
        } else {
            found.building = Some(progress);
        }
    }
    Ok(found)
}

/// Documents with their keys, in the order of these.
type Found = Vec<(String, Bytes)>;

fn scanned(rows: &[PgRow], projection: &str) -> Result<Option<Served<Found>>, sqlx::Error> {
    let Some(first) = rows.first() else { return Ok(None) };
    let mut served = Served { generation: generation(first, projection)?, found: Vec::with_capacity(rows.len()) };
    for row in rows {
        if let Some(key) = row.try_get(2)? {
            served.found.push((key, document(row, 3)?.unwrap_or_default()));
        }
    }
    Ok(Some(served))
}

fn promoted(rows: &[PgRow]) -> Result<Result<(), PromoteError>, sqlx::Error> {
    let row = one(rows)?;
    let position = |column| row.try_get::<Option<i64>, _>(column).map(|at| Position::from_i64(at.unwrap_or(0)));
    Ok(match row.try_get(0)? {
        "promoted" => Ok(()),
        "behind" => Err(PromoteError::Behind { building: position(1)?, serving: position(2)? }),
        "withdrawn" => Err(PromoteError::Withdrawn { serving: version(row, 2)? }),
        _ => Err(PromoteError::NotBuilding),
    })
}

fn document(row: &PgRow, column: usize) -> Result<Option<Bytes>, sqlx::Error> {
    Ok(row.try_get::<Option<&[u8]>, _>(column)?.map(Bytes::copy_from_slice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_outside_the_prefix_does_not_move_the_range() {
        let bounds = Bounds::of(&KeyRange::prefix("b").after("a"));
        assert_eq!(bounds, Bounds { from: "b".into(), inclusive: true, below: Some("c".into()) });
        let bounds = Bounds::of(&KeyRange::prefix("b").after("bb").before("bx"));
        assert_eq!(bounds, Bounds { from: "bb".into(), inclusive: false, below: Some("bx".into()) });
    }
}
