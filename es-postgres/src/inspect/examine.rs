//! What is wrong with a server, a role, or the sessions on it.

use chrono::{DateTime, TimeDelta, Utc};
use es_core::backend::Finding;
use sqlx::{Row, postgres::PgRow};

use crate::connections::Connections;

/// How far the clocks of this machine and of the server may be apart.
const CLOCKS: TimeDelta = TimeDelta::seconds(1);

/// How long a session may hold the append lock. An append takes milliseconds.
const HELD: f64 = 1.0;

/// The part of all connections whose use is worth a warning, in hundredths.
const BUSY: i64 = 90;

pub(super) async fn all(connections: &Connections, schema: &str) -> Result<Vec<Finding>, sqlx::Error> {
    let before = Utc::now();
    let examine = || sqlx::query(include_str!("../sql/examine.sql")).bind(schema);
    let rows = connections.read(examine).await?;
    let after = Utc::now();
    let server = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let locks = || sqlx::query(include_str!("../sql/append_lock.sql")).bind(schema);
    let locks = connections.read(locks).await?;
    Ok(vec![
        self::server(server)?,
        clock(server.try_get("now")?, before, after),
        role(server, schema)?,
        schema_version(server)?,
        durability(server)?,
        asynchronous(server)?,
        protection(server)?,
        writes(server)?,
        append_lock(&locks)?,
        room(server)?,
        size(server)?,
    ])
}

fn server(row: &PgRow) -> Result<Finding, sqlx::Error> {
    Ok(Finding::ok("server", format!("Postgres {}", row.try_get::<&str, _>("server")?)))
}

/// The server's clock was read at some moment between `before` and `after`.
fn clock(server: DateTime<Utc>, before: DateTime<Utc>, after: DateTime<Utc>) -> Finding {
    let ahead = (server - after).max(TimeDelta::zero());
    let behind = (before - server).max(TimeDelta::zero());
    let apart = ahead.max(behind);
    let found = |what| format!("the clock of the server is {:.1} s {what} of this machine", apart.as_seconds_f64());
    let advice = "synchronise both clocks (NTP); times of events and lags in seconds are wrong by that much";
    match apart {
        apart if apart <= CLOCKS => Finding::ok("clock", "the clocks of the server and of this machine agree"),
        apart if apart == ahead => Finding::warning("clock", found("ahead of that"), advice),
        _ => Finding::warning("clock", found("behind that"), advice),
    }
}

fn role(row: &PgRow, schema: &str) -> Result<Finding, sqlx::Error> {
    let role: &str = row.try_get("role")?;
    let rights = [("read", "reads"), ("append", "appends"), ("keep read models", "keeps_read_models")];
    let mut missing = Vec::new();
    for (right, column) in rights {
        if !row.try_get::<bool, _>(column)? {
            missing.push(right);
        }
    }
    let grant =
        format!("as the owner: SELECT {schema}.grant_application('…'), and let applications connect as that role");
    if row.try_get::<Option<bool>, _>("is_superuser")? == Some(true) {
        let found = format!("{role} is a superuser, whom nothing stops from changing the log");
        return Ok(Finding::warning("role", found, grant));
    }
    if row.try_get::<Option<bool>, _>("owns")? == Some(true) {
        let found = format!("{role} owns the schema {schema} and may change it");
        return Ok(Finding::warning("role", found, grant));
    }
    Ok(if missing.is_empty() {
        Finding::ok("role", format!("{role} may read, append and keep read models, and no more"))
    } else {
        Finding::warning(
            "role",
            format!("{role} may not {}", missing.join(", ")),
            format!("if an application connects as {role}, as the owner: SELECT {schema}.grant_application('{role}')"),
        )
    })
}

fn schema_version(row: &PgRow) -> Result<Finding, sqlx::Error> {
    let migration: i64 = row.try_get("migration")?;
    Ok(Finding::ok("schema", format!("migration {migration} is the newest that this program knows")))
}

fn durability(row: &PgRow) -> Result<Finding, sqlx::Error> {
    let mut off = Vec::new();
    for setting in ["fsync", "full_page_writes"] {
        if row.try_get::<Option<&str>, _>(setting)? == Some("off") {
            off.push(setting);
        }
    }
    if off.is_empty() {
        return Ok(Finding::ok("durability", "fsync and full_page_writes are on"));
    }
    let found =
        format!("{} is off: a crash of the machine can lose or damage what was acknowledged", off.join(" and "));
    let advice = format!(
        "set {} in postgresql.conf and reload",
        off.iter().map(|name| format!("{name} = on")).collect::<Vec<_>>().join(" and ")
    );
    Ok(Finding::problem("durability", found, advice))
}

/// The store's own sessions overrule it. A transaction that an application brings (`append_in`) does not.
fn asynchronous(row: &PgRow) -> Result<Finding, sqlx::Error> {
    const CHECK: &str = "synchronous_commit";
    Ok(match row.try_get::<Option<&str>, _>("synchronous_commit")?.unwrap_or("unknown") {
        "off" => Finding::warning(
            CHECK,
            "it is off by default: the store overrules that in its sessions, but a transaction of your own in which you \
             append can be acknowledged and lost",
            "ALTER ROLE … SET synchronous_commit = on, or SET LOCAL it in these transactions",
        ),
        value => Finding::ok(CHECK, format!("{value} by default")),
    })
}

/// What keeps every program from changing the log.
fn protection(row: &PgRow) -> Result<Finding, sqlx::Error> {
    const CHECK: &str = "append-only";
    let off: Vec<String> = row.try_get("triggers_off")?;
    if !off.is_empty() {
        let found = format!("triggers are disabled or missing: {}; the log can be changed", off.join(", "));
        let advice = "as the owner: ALTER TABLE events ENABLE TRIGGER ALL, and the same for event_tags";
        return Ok(Finding::problem(CHECK, found, advice));
    }
    Ok(match row.try_get::<Option<&str>, _>("replication_role")? {
        Some("replica") => Finding::problem(
            CHECK,
            "session_replication_role is replica by default: no trigger fires, and the log can be changed",
            "reset session_replication_role of the role, the database and the server",
        ),
        _ => Finding::ok(CHECK, "triggers keep every program from changing the log"),
    })
}

fn writes(row: &PgRow) -> Result<Finding, sqlx::Error> {
    const CHECK: &str = "writes";
    if row.try_get("is_replica")? {
        let advice = "if applications are to write, let them connect to the primary";
        return Ok(Finding::warning(CHECK, "the server is a replica: it serves reads and refuses appends", advice));
    }
    Ok(match row.try_get::<Option<&str>, _>("read_only")? {
        Some("on") => Finding::warning(
            CHECK,
            "default_transaction_read_only is on: appends are refused",
            "reset it when writing may go on (ALTER ROLE, ALTER DATABASE or postgresql.conf)",
        ),
        _ => Finding::ok(CHECK, "the server takes writes"),
    })
}

fn append_lock(rows: &[PgRow]) -> Result<Finding, sqlx::Error> {
    const CHECK: &str = "append lock";
    let mut waiting = 0;
    let mut holders = Vec::new();
    let mut is_long = false;
    for row in rows {
        if !row.try_get::<bool, _>("granted")? {
            waiting += 1;
            continue;
        }
        let (pid, seconds): (Option<i32>, Option<f64>) = (row.try_get("pid")?, row.try_get("seconds")?);
        let Some(pid) = pid else {
            is_long = true;
            holders.push("a prepared transaction (pg_prepared_xacts)".to_owned());
            continue;
        };
        is_long |= seconds.is_none_or(|seconds| seconds >= HELD);
        let (role, application): (&str, &str) = (row.try_get("role")?, row.try_get("application")?);
        let state: &str = row.try_get("state")?;
        let since =
            seconds.map_or_else(|| "a time unknown to this role".to_owned(), |seconds| format!("{seconds:.1} s"));
        holders.push(format!("process {pid} of {role} ({application:?}, {state}) for {since}"));
    }
    if holders.is_empty() || !is_long {
        return Ok(Finding::ok(CHECK, format!("no session holds it for long; {waiting} wait for it")));
    }
    let found = format!("held by {}; {waiting} wait for it", holders.join(", "));
    let advice = "end that transaction, or the session with SELECT pg_terminate_backend(<process>); a prepared transaction \
                  with ROLLBACK PREPARED";
    Ok(if waiting > 0 { Finding::problem(CHECK, found, advice) } else { Finding::warning(CHECK, found, advice) })
}

fn room(row: &PgRow) -> Result<Finding, sqlx::Error> {
    let (used, most): (i64, i64) = (row.try_get("connections")?, row.try_get("most_connections")?);
    let found = format!("{used} of at most {most} are open");
    Ok(if used * 100 >= most * BUSY {
        Finding::warning("connections", found, "raise max_connections, or run fewer processes or reader connections")
    } else {
        Finding::ok("connections", found)
    })
}

/// The server does not tell how much room is left.
fn size(row: &PgRow) -> Result<Finding, sqlx::Error> {
    let bytes: i64 = row.try_get("bytes")?;
    let mebibytes = bytes / (1024 * 1024);
    Ok(Finding::ok("disk", format!("the database has {mebibytes} MiB; Postgres does not tell how much room is left")))
}

#[cfg(test)]
mod tests {
    use es_core::backend::Severity;

    use super::*;

    #[test]
    fn clocks_are_compared_within_the_time_of_the_question() {
        let at = |seconds: i64| DateTime::from_timestamp(1_700_000_000 + seconds, 0).expect("a time");
        assert_eq!(clock(at(5), at(0), at(10)).severity, Severity::Ok);
        assert_eq!(clock(at(11), at(0), at(10)).severity, Severity::Ok);
        let ahead = clock(at(15), at(0), at(10));
        assert_eq!((ahead.severity, ahead.found.contains("5.0 s ahead")), (Severity::Warning, true), "{ahead:?}");
        let behind = clock(at(-3), at(0), at(10));
        assert_eq!((behind.severity, behind.found.contains("3.0 s behind")), (Severity::Warning, true), "{behind:?}");
    }
}
