//! Connections that see the store's schema and plan as its statements need it.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, Row,
    postgres::{PgConnectOptions, PgRow},
};
use uuid::Uuid;

use crate::{
    error::SchemaMoved,
    guard::{Guard, Guarded},
    schema::SchemaId,
};

/// How long the server may take to accept a connection, where no shorter limit is asked for.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long the writer waits for the append lock: longer than any append takes, shorter than patience.
const APPEND_LOCK_WITHIN: Duration = Duration::from_secs(5);

/// How long one batch may take on the server.
pub(crate) const BATCH_WITHIN: Duration = Duration::from_secs(30);

/// Where the server is and which schema is ours.
#[derive(Clone)]
pub(crate) struct Session {
    options: PgConnectOptions,
    schema: SchemaId,
    /// How long the server may leave us without an answer.
    answer_within: Duration,
}

/// How long the server goes on with a statement, and waits for a lock; none is without limit.
#[derive(Clone, Copy, Default)]
struct Limits {
    statement: Option<Duration>,
    lock: Option<Duration>,
}

impl Limits {
    /// For statements that the client gives up after `limit`.
    fn within(limit: Duration) -> Self {
        Self { statement: Some(limit / 10 * 9), lock: None }
    }
}

impl Session {
    pub(crate) fn new(options: PgConnectOptions, schema: String, answer_within: Duration) -> Self {
        // The log of statements would hold events at level debug.
        let options = sqlx::ConnectOptions::disable_statement_logging(options);
        Self { options, schema: SchemaId { name: schema, oid: 0 }, answer_within }
    }

    /// The same for the schema that has this oid, and for no other one that bears its name.
    pub(crate) fn of_schema(mut self, oid: i64) -> Self {
        self.schema.oid = oid;
        self
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema.name
    }

    pub(crate) fn schema_oid(&self) -> i64 {
        self.schema.oid
    }

    pub(crate) fn answer_within(&self) -> Duration {
        self.answer_within
    }

    /// A fresh connection whose statements the server does not limit: a migration takes as long as it
    /// takes. There may be no schema yet; its oid if there is one.
    pub(crate) async fn open(&self) -> Result<(PgConnection, Option<i64>), sqlx::Error> {
        let opened = async {
            let (connection, row) = self.connect(&mark(), Limits::default()).await?;
            let oid = row.try_get("schema")?;
            Ok((connection, oid))
        };
        self.in_time(opened).await
    }

    /// A fresh connection for statements that the client gives up after `limit`. The server gives up a
    /// little earlier: then it says so, the connection stays whole, and no statement goes on without its client.
    pub(crate) async fn open_within(&self, limit: Duration) -> Result<Guarded, sqlx::Error> {
        self.in_time(self.connect_guarded(Limits::within(limit))).await
    }

    /// A fresh connection for the writer: no session that holds the append lock for long may block it for good.
    pub(crate) async fn open_appender(&self) -> Result<Guarded, sqlx::Error> {
        let limits = Limits { statement: Some(BATCH_WITHIN), lock: Some(APPEND_LOCK_WITHIN) };
        self.in_time(self.connect_guarded(limits)).await
    }

    /// A fresh connection for an import, which waits `patience` for the append lock.
    pub(crate) async fn open_import(&self, patience: Duration) -> Result<Guarded, sqlx::Error> {
        let limits = Limits { statement: Some(BATCH_WITHIN), lock: Some(patience) };
        let opened = async {
            let mut connection = self.connect_guarded(limits).await?;
            connection.rows(sqlx::query(include_str!("sql/import_session.sql"))).await?;
            Ok(connection)
        };
        self.in_time(opened).await
    }

    async fn connect_guarded(&self, limits: Limits) -> Result<Guarded, sqlx::Error> {
        let mark = mark();
        let (connection, row) = self.connect(&mark, limits).await?;
        if row.try_get::<Option<i64>, _>("schema")? != Some(self.schema.oid) {
            let moved = SchemaMoved { schema: self.schema.name.clone() };
            return Err(sqlx::Error::Configuration(moved.into()));
        }
        let (process, guard) = (row.try_get("process")?, Guard::new(mark, self.schema.clone()));
        Ok(Guarded { connection, process, guard, tables_of: None })
    }

    /// The settings are made by a statement, since poolers refuse them as start-up parameters.
    async fn connect(&self, mark: &str, limits: Limits) -> Result<(PgConnection, PgRow), sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        let settings = self.settings(mark, limits);
        let row = sqlx::raw_sql(AssertSqlSafe(settings)).fetch_one(&mut connection).await?;
        Ok((connection, row))
    }

    fn settings(&self, mark: &str, limits: Limits) -> String {
        include_str!("sql/session.sql")
            .replace("{path}", &self.schema.path(mark))
            .replace("{schema}", &self.schema.name)
            .replace("{statement_timeout}", &milliseconds(limits.statement))
            .replace("{lock_timeout}", &milliseconds(limits.lock))
    }

    /// Makes a session that was [opened](Self::open_within) within the limit of an answer what it was then, whatever an application's
    /// statements have set in it.
    pub(crate) async fn restore(&self, Guarded { connection, guard, .. }: &mut Guarded) -> Result<(), sqlx::Error> {
        let limits = Limits::within(self.answer_within);
        let restore = include_str!("sql/restore.sql").to_owned() + &self.settings(guard.mark(), limits);
        sqlx::raw_sql(AssertSqlSafe(restore)).execute(connection).await.map(drop)
    }

    async fn in_time<T>(&self, opened: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        let opened = tokio::time::timeout(CONNECT_WITHIN.min(self.answer_within), opened).await;
        opened.unwrap_or_else(|_| Err(timed_out("the server did not accept a connection in time")))
    }
}

/// The mark of a session, different for each: a name without quotes.
fn mark() -> String {
    format!("es_{}", Uuid::now_v7().simple())
}

/// `limit` as the server takes it: 0 means no limit at all.
pub(crate) fn milliseconds(limit: Option<Duration>) -> String {
    const MOST: u128 = i32::MAX as u128;
    limit.map_or(0, |limit| limit.as_millis().clamp(1, MOST)).to_string()
}

pub(crate) fn timed_out(what: &'static str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r16_a_limit_is_never_none_and_never_too_much() {
        assert_eq!(milliseconds(Some(Duration::from_secs(30))), "30000");
        assert_eq!(milliseconds(Some(Duration::ZERO)), "1");
        assert_eq!(milliseconds(Some(Duration::MAX)), i32::MAX.to_string());
        assert_eq!(milliseconds(None), "0");
    }
}
