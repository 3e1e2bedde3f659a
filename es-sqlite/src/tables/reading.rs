//! Transactions that read the tables of one generation.

use std::sync::Arc;

use es_core::{Generation, backend::TableReading};
use sqlx::{AssertSqlSafe, Row, SqliteConnection};

use super::Names;
use crate::{
    connections::{Connections, OwnedReader},
    error::Failure,
    generations,
};

/// A transaction that only reads. All its statements see the tables of one generation, at the same moment.
///
/// Call [`end`](Self::end) when nothing more is to be read: then its connection serves the next one. If it is dropped without that,
/// the connection is closed.
#[derive(Debug)]
pub struct SqliteReading {
    reader: OwnedReader,
    names: Names,
    generation: Generation,
}

impl SqliteReading {
    /// The connection.
    pub fn connection(&mut self) -> &mut SqliteConnection {
        self.reader.connection()
    }

    /// `sql` with the names of this generation, as [`SqliteTables::sql`](super::SqliteTables::sql).
    pub fn sql(&self, sql: &'static str) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.names.sql(sql))
    }

    /// The same for an SQL text that was made at run time. Values belong into binds.
    pub fn sql_of(&self, sql: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(self.names.sql(sql))
    }

    /// Ends it.
    ///
    /// # Errors
    /// The database's own. What was read is valid in this case too.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn end(mut self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("COMMIT").execute(self.connection()).await?;
        self.reader.give_back();
        Ok(())
    }
}

impl TableReading for SqliteReading {
    fn generation(&self) -> &Generation {
        &self.generation
    }
}

/// Begins to read the tables of the generation that serves `projection`.
pub(super) async fn begin(connections: &Arc<Connections>, projection: &str) -> Result<Option<SqliteReading>, Failure> {
    let mut reader = connections.owned_reader().await?;
    sqlx::raw_sql("BEGIN").execute(reader.connection()).await?;
    let query = sqlx::query(include_str!("../sql/serving_tables.sql")).bind(projection);
    let Some(row) = query.fetch_optional(reader.connection()).await? else {
        sqlx::raw_sql("COMMIT").execute(reader.connection()).await?;
        reader.give_back();
        return Ok(None);
    };
    let names = Names::with_prefix(row.try_get("prefix")?);
    Ok(Some(SqliteReading { reader, names, generation: generations::read(&row, projection)? }))
}
