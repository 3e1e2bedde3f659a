//! What work costs: log bytes and processor time.

use std::fs;

use anyhow::Result;
use sqlx::PgConnection;

use crate::database::{self, Database};

/// The kernel counts processor time in hundredths of a second, on every architecture that Linux tells user space about.
const TICKS_PER_SECOND: f64 = 100.0;

/// What was used in a window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Bytes of write-ahead log; none where no server counts them.
    pub(crate) wal_bytes: Option<f64>,
    /// Seconds of processor time of the server, all its processes together; none where they cannot be seen.
    pub(crate) server_seconds: Option<f64>,
}

/// The counters at the beginning of a window.
#[derive(Debug)]
pub(crate) struct Meter {
    postmaster: Option<u32>,
    begin: Usage,
}

impl Meter {
    pub(crate) async fn start(database: &mut Database) -> Result<Self> {
        let postmaster = match database {
            Database::Server(connection) => postmaster(connection).await?,
            Database::File(_) => None,
        };
        Ok(Self { postmaster, begin: counters(postmaster, database).await? })
    }

    /// What was used since the start.
    pub(crate) async fn stop(self, database: &mut Database) -> Result<Usage> {
        let end = counters(self.postmaster, database).await?;
        let since = |end: Option<f64>, begin: Option<f64>| Some(end? - begin?);
        Ok(Usage {
            wal_bytes: since(end.wal_bytes, self.begin.wal_bytes),
            server_seconds: since(end.server_seconds, self.begin.server_seconds),
        })
    }
}

async fn counters(postmaster: Option<u32>, database: &mut Database) -> Result<Usage> {
    let Database::Server(database) = database else { return Ok(Usage::default()) };
    let wal_bytes = database::value(database, "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8").await?;
    Ok(Usage { wal_bytes: Some(wal_bytes), server_seconds: postmaster.and_then(server_seconds) })
}

/// The process that starts the server's others, if it runs on this machine.
pub(crate) async fn postmaster(database: &mut PgConnection) -> Result<Option<u32>> {
    let backend: i32 = database::value(database, "SELECT pg_backend_pid()").await?;
    let parent = |backend| {
        let name = fs::read_to_string(format!("/proc/{backend}/comm")).ok()?;
        let parent = stat(backend)?.get(1)?.parse().ok()?;
        (name.trim() == "postgres").then_some(parent)
    };
    Ok(u32::try_from(backend).ok().and_then(parent))
}

/// The processor time of the postmaster, of its children, and of those it has had.
fn server_seconds(postmaster: u32) -> Option<f64> {
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).ok()?;
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    let living: f64 = children.filter_map(|child| ticks(&stat(child)?, 11..13)).sum();
    Some((living + ticks(&stat(postmaster)?, 11..15)?) / TICKS_PER_SECOND)
}

/// The processor time of this process.
pub(crate) fn own_seconds() -> Option<f64> {
    Some(ticks(&stat(std::process::id())?, 11..13)? / TICKS_PER_SECOND)
}

/// The processor time of another process of this machine, exactly.
pub(crate) fn seconds_of(process: u32) -> Option<f64> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let nanoseconds = |task: fs::DirEntry| {
        let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    Some(tasks.flatten().filter_map(nanoseconds).sum::<f64>() / 1e9)
}

/// The fields of `/proc/…/stat` that come after the process's name, which may hold anything.
fn stat(process: u32) -> Option<Vec<String>> {
    let line = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = line.rsplit_once(") ")?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn ticks(stat: &[String], fields: std::ops::Range<usize>) -> Option<f64> {
    stat.get(fields)?.iter().map(|field| field.parse::<f64>().ok()).sum()
}
