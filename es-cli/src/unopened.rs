//! How a command ends whose store cannot be opened.

use crate::end::CommandError;

#[cfg(feature = "postgres")]
impl From<es_postgres::ConnectError> for CommandError {
    fn from(error: es_postgres::ConnectError) -> Self {
        use es_postgres::ConnectError as E;
        let advice = match &error {
            // The error may repeat it, with a password.
            E::Url(_) => {
                let form = "write postgres://user:password@host/database";
                return Self::usage("the URL of Postgres is not understood", form);
            }
            E::Schema { .. } => return Self::usage(error.to_string(), "name the schema of the store (`es --schema`)"),
            E::Connect(_) => {
                let advice =
                    "see whether the server runs, and whether host, port, user, password and database are right";
                return Self::Unreachable { cause: error.into(), advice: advice.to_owned() };
            }
            E::NotMigrated { .. } => "name the schema of the store (`es --schema`), or let its owner run `es migrate`",
            E::MayNotMigrate { .. } => "run `es migrate` as the owner of the schema; then grant_application again",
            E::NewerSchema { .. } => "use a program as new as the newest one on this store",
            E::ServerTooOld { .. } => "upgrade the server",
            E::Encoding { .. } => "create the database again with ENCODING 'UTF8'",
            E::SharedSession => "let the pooler pool in session mode, or connect past it",
            E::NoAppendLock => "connect to a server that keeps advisory locks, past any pooler that hides them",
            _ => "the log of the server may say more",
        };
        let advice = advice.to_owned();
        Self::Unfit { cause: error.into(), advice }
    }
}

#[cfg(feature = "sqlite")]
impl From<es_sqlite::OpenError> for CommandError {
    fn from(error: es_sqlite::OpenError) -> Self {
        use es_sqlite::OpenError as E;
        let advice = match &error {
            E::NoFile { .. } | E::NoDirectory { .. } => {
                let advice = "name the file of the store, or create it with `es migrate`";
                return Self::Unreachable { cause: error.into(), advice: advice.to_owned() };
            }
            E::File(_) | E::Locked(_) => {
                let advice = "see who may read and write the file and its directory, and which process keeps it locked";
                return Self::Unreachable { cause: error.into(), advice: advice.to_owned() };
            }
            E::NotMigrated { .. } => "name the file of a store, or run `es migrate` if this is to become one",
            E::NewerSchema { .. } => "use a program as new as the newest one on this file",
            E::NotADatabase(_) | E::Schema(_) => "name the file of a store",
            _ => "see whether the file can be read and written",
        };
        let advice = advice.to_owned();
        Self::Unfit { cause: error.into(), advice }
    }
}
