//! What `es doctor` finds.

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};

use super::fixture::{Place, Run, server};

fn finding(run: &Run, check: &str) -> Value {
    let lines = run.lines();
    lines.iter().find(|line| line["check"] == check).unwrap_or_else(|| panic!("{check} in {}", run.out)).clone()
}

/// A store that is in order, with the words that a program may rely on.
#[test]
fn findings_have_a_severity_and_advice() {
    for place in Place::filled() {
        let run = place.es(&["doctor", "--json"]);
        for line in run.lines() {
            let fields: Vec<_> = line.as_object().unwrap().keys().cloned().collect();
            assert_eq!(fields, ["advice", "check", "found", "severity"]);
            assert_eq!(line["advice"].is_string(), line["severity"] != "ok", "{line}");
        }
        assert_eq!(finding(&run, "connection")["severity"], "ok");
        assert_eq!(finding(&run, "append-only")["severity"], "ok");
        let text = place.es(&["doctor"]);
        assert_eq!(text.code, run.code);
        assert!(text.out.contains("server: "), "{}", text.out);
        assert!(!text.out.contains('\u{1b}'), "no colours where that is no terminal");
    }
}

#[test]
fn a_file_whose_log_can_be_changed_is_a_problem() {
    let [place, _] = Place::filled();
    assert_eq!(finding(&place.es(&["doctor", "--json"]), "durability")["severity"], "ok");
    place.runtime.block_on(async {
        let mut file = SqliteConnection::connect(&place.url).await.unwrap();
        file.execute("DROP TRIGGER events_are_not_deleted").await.unwrap();
        file.close().await.unwrap();
    });
    let run = place.es(&["doctor", "--json"]);
    let found = finding(&run, "append-only");
    assert_eq!((run.code, &found["severity"]), (1, &json!("problem")));
    assert!(found["found"].as_str().unwrap().contains("events_are_not_deleted"));
    assert_eq!(run.lines()[0], found, "the worst comes first");
}

async fn session() -> PgConnection {
    PgConnection::connect(&server()).await.unwrap()
}

#[test]
fn a_server_on_which_the_log_can_be_changed_is_a_problem() {
    let [_, place] = Place::filled();
    let schema = place.schema.clone().unwrap();
    place.runtime.block_on(async {
        let disable = format!("ALTER TABLE {schema}.events DISABLE TRIGGER events_append_only");
        session().await.execute(AssertSqlSafe(disable)).await.unwrap();
    });
    let run = place.es(&["doctor", "--json"]);
    let found = finding(&run, "append-only");
    assert_eq!((run.code, &found["severity"]), (1, &json!("problem")), "{}", run.out);
    assert!(found["found"].as_str().unwrap().contains("events_append_only"));
}

/// The server of the tests runs without fsync, if it is the one that `cargo xtask test` starts.
#[test]
fn a_server_that_loses_commits_in_a_crash_is_a_problem() {
    let [_, place] = Place::filled();
    let fsync: String = place
        .runtime
        .block_on(async { sqlx::query_scalar("SHOW fsync").fetch_one(&mut session().await).await.unwrap() });
    let run = place.es(&["doctor", "--json"]);
    let expected = if fsync == "off" { "problem" } else { "ok" };
    assert_eq!(finding(&run, "durability")["severity"], expected, "{}", run.out);
    assert!(run.code == 1 || fsync == "on", "{}", run.out);
}

/// The settings of the role are those that its sessions have by default.
#[test]
fn settings_of_a_role_that_endanger_a_promise_are_found() {
    let [_, place] = Place::filled();
    let (schema, role) = (place.schema.clone().unwrap(), format!("r_{}", uuid::Uuid::now_v7().simple()));
    place.runtime.block_on(async {
        let mut session = session().await;
        for statement in [
            format!("CREATE ROLE {role} LOGIN"),
            format!("SELECT {schema}.grant_application('{role}')"),
            format!("ALTER ROLE {role} SET synchronous_commit = off"),
        ] {
            session.execute(AssertSqlSafe(statement)).await.unwrap();
        }
    });
    // The parameter goes before what the URL says.
    let separator = if place.url.contains('?') { '&' } else { '?' };
    let place = Place { url: format!("{}{separator}user={role}", place.url), ..place };
    let run = place.es(&["doctor", "--json"]);
    let found = finding(&run, "synchronous_commit");
    assert_eq!(found["severity"], "warning", "{} {}", run.out, run.err);
    let role_found = finding(&run, "role");
    assert_eq!(role_found["severity"], "ok", "{}", run.out);

    place.runtime.block_on(async {
        let revoke = format!("REVOKE INSERT ON {schema}.events FROM {role}");
        session().await.execute(AssertSqlSafe(revoke)).await.unwrap();
    });
    let role_found = finding(&place.es(&["doctor", "--json"]), "role");
    assert!(role_found["found"].as_str().unwrap().contains("may not append"), "{role_found}");
}

#[test]
fn a_session_that_holds_up_appends_is_named() {
    let [_, place] = Place::filled();
    let schema = place.schema.clone().unwrap();
    let holder = place.runtime.block_on(async {
        let mut holder = session().await;
        let take = format!("BEGIN; SET LOCAL search_path = {schema}; SELECT take_append_lock(); SELECT pg_sleep(1.1)");
        sqlx::raw_sql(AssertSqlSafe(take)).execute(&mut holder).await.unwrap();
        holder
    });
    let run = place.es(&["doctor", "--json"]);
    let found = finding(&run, "append lock");
    assert_eq!(found["severity"], "warning", "{}", run.out);
    assert!(found["found"].as_str().unwrap().contains("idle in transaction"), "{found}");
    assert!(found["advice"].as_str().unwrap().contains("pg_terminate_backend"));
    place.runtime.block_on(holder.close()).unwrap();
}

/// It is late, and no process runs it. (Times of events cannot be set back on a server, so its clock is that of the file.)
#[test]
fn a_reader_that_no_process_runs_is_named_when_it_is_late() {
    let [place, _] = Place::filled();
    assert_eq!(finding(&place.es(&["doctor", "--json"]), "readers")["severity"], "ok");
    place.runtime.block_on(async {
        let mut file = SqliteConnection::connect(&place.url).await.unwrap();
        let trigger = "SELECT sql FROM sqlite_schema WHERE name = 'events_are_not_changed'";
        let trigger: String = sqlx::query_scalar(trigger).fetch_one(&mut file).await.unwrap();
        file.execute("DROP TRIGGER events_are_not_changed").await.unwrap();
        file.execute("UPDATE events SET recorded_at_us = recorded_at_us - 3600000000").await.unwrap();
        file.execute(AssertSqlSafe(trigger)).await.unwrap();
        file.close().await.unwrap();
    });
    let run = place.es(&["doctor", "--json"]);
    let found = finding(&run, "readers");
    assert_eq!((run.code, &found["severity"]), (5, &json!("warning")), "{}", run.out);
    assert!(found["found"].as_str().unwrap().contains("all lags by 6 events"), "{found}");
}

#[test]
fn a_store_that_does_not_fit_is_a_problem_with_advice() {
    for place in [Place::on_a_file(), Place::on_a_server()] {
        if place.schema.is_none() {
            std::fs::write(place.directory.path().join("events.db"), "").unwrap();
        }
        let run = place.es(&["doctor", "--json"]);
        let found = finding(&run, "connection");
        assert_eq!((run.code, &found["severity"]), (1, &json!("problem")));
        assert!(found["advice"].as_str().unwrap().contains("es migrate"), "{found}");
    }
}
