//! Databases of their own for the contenders, and what the server tells about itself.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection, PgConnection, SqliteConnection, postgres::PgRow};

/// Every database of a run begins with it; what is left of an earlier run is replaced.
const PREFIX: &str = "es_bench_";

/// The server on which everything is measured.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    url: String,
}

impl Server {
    pub(crate) fn new(url: &str) -> Self {
        Self { url: url.to_owned() }
    }

    /// A connection to the database that was given.
    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        PgConnection::connect(&self.url).await.context("cannot connect to the server")
    }

    /// Creates the contender's database, empty; gives its URL. Its commits take at least `commit_delay`.
    pub(crate) async fn create(&self, contender: &str, commit_delay: Duration) -> Result<String> {
        self.drop(contender).await?;
        let name = name(contender);
        // C everywhere, as the server of the tests has it: it is the fastest collation for everyone.
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 LOCALE 'C' ENCODING 'UTF8'");
        let mut connection = self.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut connection).await?;
        if !commit_delay.is_zero() {
            // It goes with the database. Without siblings to wait for, a lone commit is delayed too.
            for setting in [format!("commit_delay = {}", commit_delay.as_micros()), "commit_siblings = 0".to_owned()] {
                let set = format!("ALTER DATABASE {name} SET {setting}");
                sqlx::raw_sql(AssertSqlSafe(set)).execute(&mut connection).await?;
            }
        }
        Ok(with_database(&self.url, &name))
    }

    /// Drops the contender's database and ends all sessions in it.
    pub(crate) async fn drop(&self, contender: &str) -> Result<()> {
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", name(contender));
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut self.connect().await?).await?;
        Ok(())
    }
}

/// The database's name: letters, digits and underscores only.
fn name(contender: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    format!("{PREFIX}{}", contender.chars().map(safe).collect::<String>())
}

/// The URL of another database of the same server. The parameters stay as they are: each driver knows others.
fn with_database(url: &str, name: &str) -> String {
    let (address, parameters) = url.split_at(url.find('?').unwrap_or(url.len()));
    let host = address.find("://").map_or(0, |scheme| scheme + 3);
    let path = address[host..].find('/').map_or(address.len(), |path| host + path);
    format!("{}/{name}{parameters}", &address[..path])
}

/// A contender's database, seen from outside.
pub(crate) enum Database {
    Server(PgConnection),
    File(SqliteConnection),
}

impl Database {
    pub(crate) async fn open(url: &str) -> Result<Self> {
        Ok(if url.starts_with("sqlite:") {
            Self::File(SqliteConnection::connect(url).await?)
        } else {
            Self::Server(PgConnection::connect(url).await?)
        })
    }

    /// Gives the planner the numbers that it needs. Those of a file serve the next connection that opens it, and the statements have
    /// one plan only.
    pub(crate) async fn analyze(&mut self) -> Result<()> {
        match self {
            Self::Server(connection) => analyze(connection).await,
            Self::File(_) => Ok(()),
        }
    }

    /// The number that a query gives.
    pub(crate) async fn count(&mut self, sql: &str) -> Result<u64> {
        let sql = AssertSqlSafe(sql.to_owned());
        let (count,): (i64,) = match self {
            Self::Server(connection) => sqlx::query_as(sql).fetch_one(connection).await?,
            Self::File(connection) => sqlx::query_as(sql).fetch_one(connection).await?,
        };
        Ok(u64::try_from(count)?)
    }
}

/// Gives the planner the numbers that autovacuum would have given it in a while: nobody is measured on a plan that was
/// made when the table was empty.
pub(crate) async fn analyze(connection: &mut PgConnection) -> Result<()> {
    sqlx::raw_sql("ANALYZE").execute(connection).await?;
    Ok(())
}

/// The one value of a query.
pub(crate) async fn value<T>(connection: &mut PgConnection, sql: &'static str) -> Result<T>
where
    (T,): for<'r> sqlx::FromRow<'r, PgRow> + Send + Unpin,
{
    Ok(sqlx::query_as::<_, (T,)>(sql).fetch_one(connection).await?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_database_of_a_url_is_replaced() {
        assert_eq!(
            with_database("postgres://u:p@host:1/db?sslmode=disable", "x"),
            "postgres://u:p@host:1/x?sslmode=disable"
        );
        assert_eq!(with_database("postgres://host", "x"), "postgres://host/x");
    }
}
