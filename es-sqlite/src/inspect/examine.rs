//! What is wrong with a file, or with the disk on which it lies.

use std::{ffi::OsString, fs, path::Path};

use es_core::backend::Finding;
use sqlx::SqliteConnection;

use crate::{error::Failure, holders::Holders};

/// A write-ahead log of this size shows that a reader keeps it from being moved into the file, or that nothing was moved since a
/// huge append.
const LARGE_WAL: u64 = 256 * 1024 * 1024;

/// Less room than this is worth a warning: the largest append takes some times its 64 MiB, in the log and in the file.
const LITTLE_ROOM: u64 = 1024 * 1024 * 1024;

const MEBIBYTE: u64 = 1024 * 1024;

/// Each keeps a program from changing the log in one way.
const TRIGGERS: [&str; 6] = [
    "events_are_dense",
    "events_are_not_changed",
    "events_are_not_deleted",
    "tags_are_on_events",
    "tags_are_not_changed",
    "tags_are_not_deleted",
];

pub(super) async fn all(
    connection: &mut SqliteConnection,
    path: &Path,
    holders: &Holders,
) -> Result<Vec<Finding>, Failure> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut *connection).await?;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await?;
    let migration: i64 =
        sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations").fetch_one(&mut *connection).await?;
    let triggers: Vec<String> = sqlx::query_scalar(include_str!("../sql/triggers.sql")).fetch_all(connection).await?;
    let mut findings = vec![
        Finding::ok("server", format!("SQLite {version}")),
        Finding::ok("schema", format!("migration {migration} is the newest that this program knows")),
        durability(&mode),
        protection(&triggers),
        processes(holders.others()),
        write_ahead_log(path),
    ];
    findings.extend(disk(path));
    findings.extend(network_drive(path));
    Ok(findings)
}

fn durability(mode: &str) -> Finding {
    if mode == "wal" {
        return Finding::ok("durability", "each commit is synced to the write-ahead log");
    }
    let advice = "stop every process that has the file open and open it once with an application, or with `es migrate`";
    Finding::problem("durability", format!("the journal mode is {mode}: readers and writers block each other"), advice)
}

/// What keeps every program from changing the log.
fn protection(found: &[String]) -> Finding {
    let missing: Vec<_> = TRIGGERS.into_iter().filter(|name| !found.iter().any(|found| found == name)).collect();
    if missing.is_empty() {
        return Finding::ok("append-only", "triggers keep every program from changing the log");
    }
    let found = format!("triggers are missing: {}; the log can be changed", missing.join(", "));
    Finding::problem("append-only", found, "restore a backup, or find out which program has dropped them")
}

fn processes(others: usize) -> Finding {
    Finding::ok(
        "processes",
        match others {
            0 => "no other store has the file open".to_owned(),
            1 => "1 other store has the file open".to_owned(),
            others => format!("{others} other stores have the file open"),
        },
    )
}

fn write_ahead_log(path: &Path) -> Finding {
    let size = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let mut log = OsString::from(path);
    log.push("-wal");
    let (file, log) = (size(path), size(Path::new(&log)));
    let found = format!("the file has {} MiB, its write-ahead log {} MiB", file / MEBIBYTE, log / MEBIBYTE);
    if log < LARGE_WAL {
        return Finding::ok("size", found);
    }
    Finding::warning("size", found, "find the process that has read from the file for a long time, and end it")
}

/// How much room is left on the disk; nothing where the system does not tell.
fn disk(path: &Path) -> Option<Finding> {
    let disk = rustix::fs::statvfs(path).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let found = format!("{} MiB are free", free / MEBIBYTE);
    Some(if free < LITTLE_ROOM {
        Finding::warning("disk", found, "make room: appends are refused while the disk is full")
    } else {
        Finding::ok("disk", found)
    })
}

/// The locks of SQLite are not to be relied on there.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn network_drive(path: &Path) -> Option<Finding> {
    const NETWORK: [(u32, &str); 4] =
        [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB"), (0x0102_1997, "9p")];
    let magic = rustix::fs::statfs(path).ok()?.f_type;
    let (_, name) = NETWORK.into_iter().find(|(known, _)| i64::from(*known) == magic & 0xffff_ffff)?;
    let found = format!("the file lies on a network drive ({name}), whose locks may not hold");
    Some(Finding::problem("drive", found, "move the file to a disk of the machine, or use Postgres"))
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn network_drive(_: &Path) -> Option<Finding> {
    None
}
