//! Transactions that read the tables of one generation.

use es_core::{
    Generation,
    backend::{Reader, TableReading},
};
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{PLANNER, quoted};
use crate::{
    connections::{Connections, Taken},
    error,
};

/// A transaction that only reads, in which the tables of one generation have their plain names. All its statements see the same
/// moment.
///
/// Call [`end`](Self::end) when nothing more is to be read: then its connection serves the next one. If it is dropped without that,
/// the connection is closed.
pub struct PgReading {
    taken: Taken,
    generation: Generation,
}

impl PgReading {
    /// The connection. What is set in it (`SET`) ends with the transaction.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.taken.connection.connection
    }

    /// Ends it.
    ///
    /// # Errors
    /// The database's own. What was read is valid in this case too.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn end(mut self) -> Result<(), sqlx::Error> {
        // What the application has set (`SET` without `LOCAL`) would stay after a commit.
        let ended = sqlx::raw_sql(include_str!("../sql/end_reading.sql")).execute(self.connection()).await;
        self.taken.give_back(ended).map(drop)
    }
}

impl TableReading for PgReading {
    fn generation(&self) -> &Generation {
        &self.generation
    }
}

impl std::fmt::Debug for PgReading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgReading").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// Begins to read the tables of the generation that serves `projection`.
pub(super) async fn begin(connections: &Connections, projection: &str) -> Result<Option<PgReading>, sqlx::Error> {
    let begin = async {
        loop {
            let mut taken = connections.lend().await?;
            match try_begin(&mut taken, projection).await {
                Ok(Begun::In(generation)) => return Ok(Some(PgReading { taken, generation })),
                Ok(Begun::Elsewhere) => drop(taken),
                Ok(begun) => {
                    let ended = sqlx::raw_sql("ROLLBACK").execute(&mut taken.connection.connection).await;
                    taken.give_back(ended)?;
                    if let Begun::Nothing = begun {
                        return Ok(None);
                    }
                }
                Err(cause) if error::is_broken(&cause) => {
                    let was_idle = taken.was_idle;
                    let failed = taken.give_back(Err(cause));
                    if !was_idle {
                        return failed;
                    }
                }
                // Its transaction is open.
                Err(cause) => return Err(cause),
            }
        }
    };
    connections.within(connections.answer_within(), begin).await
}

enum Begun {
    In(Generation),
    /// Another generation was promoted meanwhile.
    Late,
    /// The connection has worked with the tables of another generation: see [`Connections::take_for`].
    Elsewhere,
    Nothing,
}

async fn try_begin(taken: &mut Taken, projection: &str) -> Result<Begun, sqlx::Error> {
    let guarded = &mut taken.connection;
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY";
    sqlx::raw_sql(begin).execute(&mut guarded.connection).await?;
    let rows = guarded.rows(sqlx::query(include_str!("../sql/serving_tables.sql")).bind(projection)).await?;
    let Some(row) = rows.first() else { return Ok(Begun::Nothing) };
    let (id, name): (i64, &str) = (row.try_get(0)?, row.try_get(2)?);
    let version = u32::try_from(row.try_get::<i64, _>(1)?).map_err(|reason| sqlx::Error::Decode(reason.into()))?;
    // It stays locked until the end, so the schema is not dropped before. It tells which generation has the name: perhaps another
    // one than a moment ago.
    let marker = format!("SELECT id FROM {}.es_generation", quoted(name));
    let found = sqlx::raw_sql(AssertSqlSafe(marker)).fetch_all(&mut guarded.connection).await?;
    if found.first().map(|row| row.try_get::<i64, _>(0)).transpose()? != Some(id) {
        return Ok(Begun::Late);
    }
    if guarded.tables_of.replace(id).is_some_and(|other| other != id) {
        return Ok(Begun::Elsewhere);
    }
    // When another generation takes the public name, this one gets the first of the two.
    let (own, public) = (quoted(&format!("{name}_g{id}")), quoted(name));
    let enter = format!("SET LOCAL search_path TO {own}, {public}, pg_temp; {PLANNER}");
    sqlx::raw_sql(AssertSqlSafe(enter)).execute(&mut guarded.connection).await?;
    Ok(Begun::In(Generation { reader: Reader { id, name: projection.to_owned() }, version }))
}
