//! Connections that see the store's schema and plan as its statements need it.

use std::time::Duration;

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

/// How long the server may take to accept a connection.
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
}

impl Session {
    pub(crate) fn new(options: PgConnectOptions, schema: String) -> Self {
        // The log of statements would hold events at level debug.
        let options = sqlx::ConnectOptions::disable_statement_logging(options);
        Self { options, schema }
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// A fresh connection. The settings are made by a statement, since poolers refuse them as
    /// start-up parameters.
    pub(crate) async fn open(&self) -> Result<PgConnection, sqlx::Error> {
        let opened = tokio::time::timeout(CONNECT_WITHIN, async {
            let mut connection = PgConnection::connect_with(&self.options).await?;
            // pg_temp last: otherwise a temporary table could stand before one of ours.
            let path = format!("{},pg_temp", self.schema);
            sqlx::query(include_str!("sql/session.sql")).bind(path).execute(&mut connection).await?;
            Ok(connection)
        });
        opened.await.unwrap_or_else(|_| Err(timed_out("the server did not accept a connection in time")))
    }

    /// A fresh connection for the writer.
    pub(crate) async fn open_lane(&self) -> Result<PgConnection, sqlx::Error> {
        let mut connection = self.open().await?;
        let lane = sqlx::query(include_str!("sql/lane_session.sql"))
            .bind(LANE_WITHIN.as_millis().to_string())
            .bind(BATCH_WITHIN.as_millis().to_string());
        lane.execute(&mut connection).await?;
        Ok(connection)
    }
}

pub(crate) fn timed_out(what: &'static str) -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
}
