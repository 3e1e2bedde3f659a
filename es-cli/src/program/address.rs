//! Where a store is, and how it is opened.

use std::{path::PathBuf, sync::Arc};

use es_core::ServiceStore;
use es_postgres::{ConnectError, PostgresStore};
use es_sqlite::{OpenError, SqliteStore};
use serde::Serialize;

use super::Place;
use crate::{
    end::{CommandError, Outcome},
    output::{Format, Output},
};

/// The forms of a URL that this program knows.
const FORMS: &str = "write postgres://user@host/database or sqlite:path";

/// Where a store is.
pub(super) enum Address {
    Postgres { url: String, schema: Option<String> },
    Sqlite(PathBuf),
}

/// What `migrate` has done.
#[derive(Serialize)]
struct Migrated {
    /// Whether there was no file.
    created: bool,
    /// The numbers of the migrations that were missing.
    applied: Vec<i64>,
}

impl Address {
    /// The address that the arguments or the environment name. (The errors do not repeat it: it may hold a password.)
    pub(super) fn of(Place { url, schema }: Place) -> Result<Self, CommandError> {
        let url = url
            .or_else(|| std::env::var("DATABASE_URL").ok())
            .filter(|url| !url.is_empty())
            .ok_or_else(|| CommandError::usage("no store is named", format!("set ES_URL or pass --url: {FORMS}")))?;
        match url.split_once(':') {
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres { url, schema }),
            Some(("sqlite", path)) => Self::sqlite(path, schema.is_some()),
            _ => Err(CommandError::usage("the URL names no kind of store", FORMS)),
        }
    }

    fn sqlite(path: &str, has_schema: bool) -> Result<Self, CommandError> {
        if has_schema {
            return Err(CommandError::usage("a file has no schemas", "leave out --schema and ES_SCHEMA"));
        }
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains('?') {
            return Err(CommandError::usage("the URL of a file is sqlite:path, without parameters", FORMS));
        }
        Ok(Self::Sqlite(path.into()))
    }

    /// The store there. Only with `may_migrate` its schema is created or brought up to date.
    pub(super) async fn open(&self, may_migrate: bool) -> Result<Arc<dyn ServiceStore>, CommandError> {
        Ok(self.try_open(may_migrate).await?)
    }

    async fn try_open(&self, may_migrate: bool) -> Result<Arc<dyn ServiceStore>, Failure> {
        match self {
            Self::Postgres { url, schema } => {
                let options = PostgresStore::options(url).migrate(may_migrate);
                let options = match schema {
                    Some(schema) => options.schema(schema),
                    None => options,
                };
                Ok(Arc::new(options.connect().await?))
            }
            Self::Sqlite(path) if may_migrate => Ok(Arc::new(SqliteStore::open(path).await?)),
            Self::Sqlite(path) => Ok(Arc::new(SqliteStore::options(path).migrate(false).open().await?)),
        }
    }

    /// Creates the schema, or brings it up to date.
    pub(super) async fn migrate(&self, format: Format, output: &mut Output) -> Result<Outcome, CommandError> {
        let migrated = match self.try_open(false).await {
            Ok(store) => {
                let _ = store.close().await;
                Migrated { created: false, applied: Vec::new() }
            }
            Err(failure) => {
                let migrated = failure.into_migrated()?;
                self.open(true).await?.close().await.map_err(CommandError::Store)?;
                migrated
            }
        };
        if format.json {
            output.json(&migrated)?;
        } else if migrated.created {
            output.line("the file was created")?;
        } else if migrated.applied.is_empty() {
            output.line("the schema is up to date: nothing was changed")?;
        } else {
            let numbers: Vec<_> = migrated.applied.iter().map(i64::to_string).collect();
            output.line(format_args!("applied migrations: {}", numbers.join(", ")))?;
        }
        output.flush()?;
        Ok(Outcome::Well)
    }
}

/// Why a store was not opened.
#[derive(Debug)]
enum Failure {
    Postgres(ConnectError),
    Sqlite(OpenError),
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::Postgres(error)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self::Sqlite(error)
    }
}

impl Failure {
    /// What `migrate` can do about it.
    fn into_migrated(self) -> Result<Migrated, CommandError> {
        match self {
            Self::Postgres(ConnectError::NotMigrated { missing })
            | Self::Sqlite(OpenError::NotMigrated { missing }) => Ok(Migrated { created: false, applied: missing }),
            Self::Sqlite(OpenError::NoFile { .. }) => Ok(Migrated { created: true, applied: Vec::new() }),
            failure => Err(failure.into()),
        }
    }
}

impl From<Failure> for CommandError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Postgres(ConnectError::Url(_)) => Self::usage("the URL of Postgres is not understood", FORMS),
            Failure::Postgres(error) => error.into(),
            Failure::Sqlite(error) => error.into(),
        }
    }
}
