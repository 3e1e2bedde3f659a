//! Connections that see the store's schema and plan as its statements need it.

use std::time::Duration;

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

/// How long the server may take to accept a connection, where no shorter limit is asked for.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long the writer waits for the lane: longer than any append takes, shorter than patience.
const LANE_WITHIN: Duration = Duration::from_secs(5);

/// How long one batch may take on the server.
pub(crate) const BATCH_WITHIN: Duration = Duration::from_secs(30);

/// Where the server is and which schema is ours.
#[derive(Clone)]
pub(crate) struct Session {
    options: PgConnectOptions,
    schema: String,
    /// How long the server may leave us without an answer.
    answer_within: Duration,
}

impl Session {
    pub(crate) fn new(options: PgConnectOptions, schema: String, answer_within: Duration) -> Self {
        // The log of statements would hold events at level debug.
        let options = sqlx::ConnectOptions::disable_statement_logging(options);
        Self { options, schema, answer_within }
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    pub(crate) fn answer_within(&self) -> Duration {
        self.answer_within
    }

    /// A fresh connection whose statements the server does not limit: a migration takes as long as it
    /// takes.
    pub(crate) async fn open(&self) -> Result<PgConnection, sqlx::Error> {
        self.in_time(self.connect(None)).await
    }

    /// A fresh connection for statements that the client gives up after `limit`. The server gives up a
    /// little earlier: then it says so, the connection stays whole, and nothing goes on for nobody.
    pub(crate) async fn open_within(&self, limit: Duration) -> Result<PgConnection, sqlx::Error> {
        self.in_time(self.connect(Some(statement_timeout(limit)))).await
    }

    /// A fresh connection for the writer, and the mark of its session.
    pub(crate) async fn open_lane(&self) -> Result<(PgConnection, String), sqlx::Error> {
        self.in_time(self.connect_lane(LANE_WITHIN)).await
    }

    /// A fresh connection for an import, which waits `patience` for the lane.
    pub(crate) async fn open_import(&self, patience: Duration) -> Result<PgConnection, sqlx::Error> {
        let opened = async {
            let (mut connection, _) = self.connect_lane(patience).await?;
            let import = sqlx::query(include_str!("sql/import_session.sql"));
            import.bind(milliseconds(BATCH_WITHIN)).execute(&mut connection).await?;
            Ok(connection)
        };
        self.in_time(opened).await
    }

    async fn connect_lane(&self, lane_within: Duration) -> Result<(PgConnection, String), sqlx::Error> {
        let mut connection = self.connect(None).await?;
        let lane = sqlx::query_scalar(include_str!("sql/lane_session.sql"))
            .bind(milliseconds(lane_within))
            .bind(milliseconds(BATCH_WITHIN));
        let mark = lane.fetch_one(&mut connection).await?;
        Ok((connection, mark))
    }

    /// The settings are made by a statement, since poolers refuse them as start-up parameters.
    async fn connect(&self, statement_timeout: Option<String>) -> Result<PgConnection, sqlx::Error> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        // pg_temp last: otherwise a temporary table could stand before one of ours.
        let path = format!("{},pg_temp", self.schema);
        let settings = sqlx::query(include_str!("sql/session.sql")).bind(path).bind(statement_timeout);
        settings.execute(&mut connection).await?;
        Ok(connection)
    }

    async fn in_time<T>(&self, opened: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, sqlx::Error> {
        let opened = tokio::time::timeout(CONNECT_WITHIN.min(self.answer_within), opened).await;
        opened.unwrap_or_else(|_| Err(timed_out("the server did not accept a connection in time")))
    }
}

/// Nine tenths of `limit`.
fn statement_timeout(limit: Duration) -> String {
    milliseconds(limit / 10 * 9)
}

/// `limit` as the server takes it: 0 would mean no limit at all.
fn milliseconds(limit: Duration) -> String {
    const MOST: u128 = i32::MAX as u128;
    limit.as_millis().clamp(1, MOST).to_string()
}

pub(crate) fn timed_out(what: &'static str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r16_the_server_gives_up_before_the_client_and_never_waits_for_ever() {
        assert_eq!(statement_timeout(Duration::from_secs(30)), "27000");
        assert_eq!(statement_timeout(Duration::ZERO), "1");
        assert_eq!(statement_timeout(Duration::MAX), i32::MAX.to_string());
    }
}
