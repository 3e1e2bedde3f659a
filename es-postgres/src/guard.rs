//! Statements that run only where they were meant to: in the session that the store has opened, in its schema, with its
//! settings.
//!
//! Behind a pooler in transaction mode a statement may meet the session of another client: with another schema in its search
//! path, with asynchronous commits, even with another statement under the name that the driver has given to ours. And a schema
//! can be renamed under a running store, and another one made under its name. So each statement asks, on the server, before it
//! reads or writes anything:
//!
//! - Is this the text that was prepared for this connection? The text holds the connection's mark, and so do its parameters.
//! - Is this the session that the connection was given when it was opened, and does its search path still lead to our schema?
//!   The last part of the path is the mark, so one setting answers both.
//! - Do commits still wait for the disk? Only statements that write ask that.
//! - Is the schema of this name still the one in which the store was opened?
//!
//! Where the answer is no, the statement fails with SQLSTATE `ES002`, and the connection is replaced. What it costs the server
//! are the settings: names and oids are constants of the plan, and a change of a schema makes all plans anew.

use std::{collections::HashMap, ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::{
    Arguments, AssertSqlSafe, Connection, Execute, PgConnection, Postgres, SqlStr,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use crate::schema::SchemaId;

/// What a statement that writes has in the place of its guard.
pub(crate) const HERE: &str = "{here}";

/// What a statement has in that place that only reads.
const HERE_TO_READ: &str = "{here to read}";

/// A connection whose statements are guarded.
pub(crate) struct Guarded {
    pub(crate) connection: PgConnection,
    /// The session's process on the server.
    pub(crate) process: i32,
    pub(crate) guard: Guard,
    /// The generation whose tables it has worked with: the driver keeps what it knows of the types in their schema.
    pub(crate) tables_of: Option<i64>,
}

impl Guarded {
    /// All rows of a statement. It has then been committed: nothing shorter than `fetch_all` waits for that.
    pub(crate) async fn rows(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<PgRow>, sqlx::Error> {
        self.guard.query(query)?.fetch_all(&mut self.connection).await
    }

    /// The first rows of a statement that only reads, up to the one with which they reach `budget`, and whether these are all. The
    /// others are taken from the connection one by one and dropped.
    pub(crate) async fn first_rows(
        &mut self,
        query: Query<'_, Postgres, PgArguments>,
        budget: usize,
        bytes: impl Fn(&PgRow) -> usize,
    ) -> Result<(Vec<PgRow>, bool), sqlx::Error> {
        let mut answer = self.guard.query(query)?.fetch(&mut self.connection);
        let (mut rows, mut taken, mut are_all) = (Vec::new(), 0, true);
        while let Some(row) = answer.try_next().await? {
            if taken < budget {
                taken += bytes(&row);
                rows.push(row);
            } else {
                are_all = false;
            }
        }
        Ok((rows, are_all))
    }

    /// Passes the pieces of a binary `COPY` of what the statement `template` reads to `take`, as they come, until it wants no more;
    /// returns whether these are all. It takes no parameters, so `parameters` are written into its text.
    ///
    /// If these are not all, after an error, and if the future is dropped, the connection must not be used again: what the server
    /// still sends, be it only the word that it is ready, would be taken for the answer to the next statement.
    pub(crate) async fn copy(
        &mut self,
        template: &str,
        parameters: &[i64],
        mut take: impl FnMut(Bytes) -> ControlFlow<()>,
    ) -> Result<bool, sqlx::Error> {
        let copy = self.guard.copy(template, parameters);
        let mut pieces = self.connection.copy_out_raw(&copy).await?;
        while let Some(piece) = pieces.try_next().await? {
            if take(piece).is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many rows a statement has touched.
    pub(crate) async fn execute(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<u64, sqlx::Error> {
        Ok(self.guard.query(query)?.execute(&mut self.connection).await?.rows_affected())
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

/// What makes statements those of one session.
pub(crate) struct Guard {
    /// What the session was marked with when it began.
    mark: String,
    schema: SchemaId,
    /// What was made of each statement, by the address of its text: nearly all are constants.
    texts: HashMap<usize, Text>,
}

struct Text {
    template: SqlStr,
    sql: Arc<str>,
    is_guarded: bool,
}

impl Guard {
    /// The last part of the session's search path.
    pub(crate) fn mark(&self) -> &str {
        &self.mark
    }

    pub(crate) fn new(mark: String, schema: SchemaId) -> Self {
        Self { mark, schema, texts: HashMap::new() }
    }

    /// The same query with its guard.
    pub(crate) fn query<'q>(
        &mut self,
        mut query: Query<'q, Postgres, PgArguments>,
    ) -> Result<Query<'q, Postgres, PgArguments>, sqlx::Error> {
        let arguments = query.take_arguments().map_err(sqlx::Error::Encode)?;
        let mut arguments = arguments.unwrap_or_default();
        let template = query.sql();
        let address = template.as_str().as_ptr().addr();
        let known = self.texts.get(&address).filter(|text| text.template.as_str() == template.as_str());
        let (sql, is_guarded) = if let Some(text) = known {
            (text.sql.clone(), text.is_guarded)
        } else {
            let (sql, is_guarded) = self.text(template.as_str(), arguments.len() + 1);
            let sql = Arc::<str>::from(sql);
            self.texts.insert(address, Text { template, sql: sql.clone(), is_guarded });
            (sql, is_guarded)
        };
        if is_guarded {
            arguments.add(&*self.mark).map_err(sqlx::Error::Encode)?;
        }
        Ok(sqlx::query_with(AssertSqlSafe(sql), arguments))
    }

    /// The text of a statement whose mark is the parameter `number`; and whether it has a guard.
    fn text(&self, template: &str, number: usize) -> (String, bool) {
        let sql = statement(template);
        let prepared = format!("${number}::text = '{}'", self.mark);
        let (place, here) = if sql.contains(HERE_TO_READ) {
            (HERE_TO_READ, self.here(&prepared))
        } else {
            (HERE, self.here(&format!("{prepared} AND current_setting('synchronous_commit') <> 'off'")))
        };
        (sql.replacen(place, &here, 1), sql.contains(place))
    }

    /// The text of a `COPY`. It is not prepared, so no other session can have given its text another meaning.
    fn copy(&self, template: &str, parameters: &[i64]) -> String {
        let sql = statement(template).replacen(HERE_TO_READ, &self.here("true"), 1);
        let numbered = parameters.iter().enumerate().rev();
        let sql = numbered.fold(sql, |sql, (n, parameter)| sql.replace(&format!("${}", n + 1), &parameter.to_string()));
        format!("COPY ({sql}) TO STDOUT (FORMAT binary)")
    }

    /// The condition that this is the session in which the store was opened, and that `more` holds. (Mark, path and name are made of
    /// letters, digits, `_`, `-` and a comma.)
    fn here(&self, more: &str) -> String {
        let Self { mark, schema: schema @ SchemaId { name, oid, .. }, .. } = self;
        format!(
            "CASE WHEN {more} AND current_setting('search_path') = '{path}'
                   AND '{name}'::regnamespace::oid = {oid}::oid
                  THEN true ELSE refuse_session() END",
            path = schema.path(mark)
        )
    }
}

/// The statement without the comments at its head.
fn statement(template: &str) -> String {
    template.lines().skip_while(|line| line.starts_with("--")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// Those before the schema is known, and what a guarded transaction does by the simple protocol or by itself.
    const WITHOUT: [&str; 8] = [
        "applied.sql",
        "copy_events.sql",
        "end_reading.sql",
        "opened.sql",
        "restore.sql",
        "server.sql",
        "session.sql",
        "take_append_lock.sql",
    ];

    #[test]
    fn r5_every_statement_is_guarded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sql");
        for file in fs::read_dir(folder).expect("the folder of the statements") {
            let file = file.expect("a file");
            let text = fs::read_to_string(file.path()).expect("text");
            let guards = text.matches(HERE).count() + text.matches(HERE_TO_READ).count();
            let is_exempt = WITHOUT.iter().any(|name| file.file_name() == *name);
            assert_eq!(guards, usize::from(!is_exempt), "{} needs one {HERE}", file.path().display());
        }
    }
}
