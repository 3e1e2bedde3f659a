//! What a store is told before it connects.

use std::{fmt, str::FromStr, time::Duration};

use sqlx::postgres::PgConnectOptions;
use tokio::sync::Semaphore;

use crate::{connect::ConnectError, session::Session};

/// How to connect, and the limits of queues and connections. `SqliteOptions` has the same ones under the same names, with
/// defaults of its own, but neither [`schema`](Self::schema) (a file is one store) nor [`answer_within`](Self::answer_within) (a
/// file cannot vanish without an error).
#[derive(Clone)]
pub struct PostgresOptions {
    url: String,
    schema: Option<String>,
    pub(crate) migrate: bool,
    pub(crate) queue_appends: usize,
    pub(crate) queue_bytes: usize,
    pub(crate) batch_appends: usize,
    pub(crate) batch_bytes: usize,
    pub(crate) reader_connections: usize,
    pub(crate) patience: Duration,
    answer_within: Duration,
    pub(crate) close_within: Duration,
}

impl PostgresOptions {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            schema: None,
            migrate: true,
            queue_appends: 4_096,
            queue_bytes: 64 * 1024 * 1024,
            batch_appends: 1_000,
            batch_bytes: 2 * 1024 * 1024,
            reader_connections: 4,
            patience: Duration::from_secs(10),
            answer_within: Duration::from_secs(30),
            close_within: Duration::from_secs(10),
        }
    }

    /// The schema that holds everything; it is created where it is missing. Default: the URL's
    /// parameter `schema`, or `es`. Stores in different schemas share nothing, not even the append lock.
    pub fn schema(self, name: impl Into<String>) -> Self {
        Self { schema: Some(name.into()), ..self }
    }

    /// Whether the schema is created and brought up to date (by default it is). If not, a schema that is missing or older than this
    /// program is refused with [`ConnectError::NotMigrated`]: so operators look into a store and change nothing.
    pub fn migrate(self, migrate: bool) -> Self {
        Self { migrate, ..self }
    }

    /// How many appends may wait for the writer; further callers wait before they queue (R17). Default: 4,096.
    pub fn queue_appends(self, appends: usize) -> Self {
        Self { queue_appends: appends.clamp(1, Semaphore::MAX_PERMITS), ..self }
    }

    /// How many bytes of events may wait for the writer; further callers wait before they queue (R17). Appends of more than 1 MiB
    /// have as much room again for themselves, so that the others do not wait for theirs. Default: 64 MiB.
    pub fn queue_bytes(self, bytes: usize) -> Self {
        Self { queue_bytes: bytes.max(1), ..self }
    }

    /// The most appends of one statement. Default: 1,000.
    pub fn batch_appends(self, appends: usize) -> Self {
        Self { batch_appends: appends.max(1), ..self }
    }

    /// The most bytes of one statement; an append that is larger goes alone. Default: 2 MiB.
    pub fn batch_bytes(self, bytes: usize) -> Self {
        Self { batch_bytes: bytes.max(1), ..self }
    }

    /// The most connections beside the writer's: for reads, snapshots and read models. Default: 4.
    ///
    /// There are up to three more: for the readers and relays of this process while callers have all of these, to renew leases while
    /// the process holds any, and for appends of more than 1 MiB, from the first of them on.
    pub fn reader_connections(self, connections: usize) -> Self {
        Self { reader_connections: connections.clamp(1, Semaphore::MAX_PERMITS), ..self }
    }

    /// How long an append is tried again when the server is gone or busy, before its caller gets
    /// [`AppendError::Store`](es_core::AppendError::Store). Default: 10 seconds.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// How long everything but an append may take (R16): a read, a snapshot, a step of a read model,
    /// with the wait for one of the [`reader_connections`](Self::reader_connections). Then the caller
    /// gets the port's error for a store that failed, and the connection is not used again; whether a
    /// write took place is unknown. Default: 30 seconds.
    ///
    /// It is the only way to notice a server that vanished without a word (a cut network, a machine
    /// without power). It also ends, nine tenths of it on the server itself, what is merely slow; so it
    /// must be longer than the largest page takes, and than any lock of a migration or of maintenance
    /// is held. A connection must be opened in this time too, or in ten seconds if that is shorter.
    ///
    /// Two have limits of their own: an append (30 seconds a batch on the server, and
    /// [`patience`](Self::patience)), and the deletion of a replaced read model's documents (a
    /// minute for each 10,000 of them).
    pub fn answer_within(self, limit: Duration) -> Self {
        Self { answer_within: limit, ..self }
    }

    /// How long each step of [`PostgresStore::close`](crate::PostgresStore::close) may take: imports, the queued appends, and the
    /// connections. Default: 10 seconds.
    pub fn close_within(self, limit: Duration) -> Self {
        Self { close_within: limit, ..self }
    }

    pub(crate) fn session(&self) -> Result<Session, ConnectError> {
        let (url, from_url) = split_schema(&self.url);
        let options = PgConnectOptions::from_str(&url).map_err(ConnectError::Url)?;
        let schema = self.schema.clone().or(from_url).unwrap_or_else(|| "es".to_owned());
        check_schema(&schema)?;
        Ok(Session::new(options, schema, self.answer_within))
    }
}

/// The URL holds the password, so it stays out.
impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// The parameters of a URL that the driver knows. It logs all others with their values, of which one may be a password.
const PARAMETERS: [&str; 19] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
    "schema",
];

/// Takes the parameter `schema` out of a URL, and all others that the driver does not know: it would log them with their values.
fn split_schema(url: &str) -> (String, Option<String>) {
    let Some((address, query)) = url.split_once('?') else { return (url.to_owned(), None) };
    let mut schema = None;
    let mut others = Vec::new();
    for parameter in query.split('&') {
        let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
        match parameter.strip_prefix("schema=") {
            Some(name) => schema = Some(name.to_owned()),
            None if PARAMETERS.contains(&name) || name.starts_with("options[") || name.starts_with("options%5") => {
                others.push(parameter);
            }
            None => tracing::warn!(parameter = told(name), "a parameter of the database URL is not known, and ignored"),
        }
    }
    let url = if others.is_empty() { address.to_owned() } else { format!("{address}?{}", others.join("&")) };
    (url, schema)
}

/// The name of a parameter. What looks like none may be a part of a password that was not encoded.
fn told(name: &str) -> &str {
    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-'));
    if is_name { name } else { "(left out)" }
}

/// The name becomes part of SQL text, so it holds nothing that would need quotes.
fn check_schema(name: &str) -> Result<(), ConnectError> {
    let mut bytes = name.bytes();
    let well_formed = name.len() <= 63
        && bytes.next().is_some_and(|first| first.is_ascii_lowercase() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        && !name.starts_with("pg_");
    if well_formed { Ok(()) } else { Err(ConnectError::Schema { name: name.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_taken_out_of_the_url() {
        let (url, schema) = split_schema("postgres://host/db?sslmode=disable&schema=sales&application_name=x");
        assert_eq!(url, "postgres://host/db?sslmode=disable&application_name=x");
        assert_eq!(schema.as_deref(), Some("sales"));
        assert_eq!(split_schema("postgres://host/db?schema=a"), ("postgres://host/db".into(), Some("a".into())));
        assert_eq!(split_schema("postgres://host/db"), ("postgres://host/db".into(), None));
    }

    /// The driver logs each that it does not know with its value.
    #[test]
    fn r14_the_driver_does_not_see_parameters_that_it_would_print() {
        let (url, schema) = split_schema("postgres://host/db?sslpassword=geheim&schema=a&sslmode=require&options[x]=1");
        assert_eq!((url.as_str(), schema.as_deref()), ("postgres://host/db?sslmode=require&options[x]=1", Some("a")));
        assert_eq!((told("sslpassword"), told("ehe1m@host")), ("sslpassword", "(left out)"));
    }

    #[test]
    fn r15_a_schema_name_that_needs_quotes_is_refused() {
        for name in ["", "Es", "e s", "es\"; drop", "1es", "pg_es", "é", &"e".repeat(64)] {
            assert!(matches!(check_schema(name), Err(ConnectError::Schema { .. })), "{name:?}");
        }
        for name in ["es", "_es", "es_2", &"e".repeat(63)] {
            assert!(check_schema(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn options_do_not_print_the_password() {
        let options = PostgresOptions::new("postgres://user:secret@host/db");
        assert!(!format!("{options:?}").contains("secret"));
    }
}
