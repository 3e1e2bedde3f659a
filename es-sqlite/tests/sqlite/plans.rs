//! The query plans of statements whose tables grow with the log.

use es_sqlite::SqliteStore;
use sqlx::{AssertSqlSafe, Executor, Row};

use super::fixture::{foreign_connection, new_path};

#[tokio::test]
async fn appends_and_reads_look_up_and_never_scan() {
    let path = new_path();
    let _store = SqliteStore::open(&path).await.unwrap();
    let mut foreign = foreign_connection(&path).await;
    for statement in [
        include_str!("../../src/sql/append_conditions.sql"),
        include_str!("../../src/sql/append_events.sql"),
        include_str!("../../src/sql/append_state.sql"),
        include_str!("../../src/sql/count_documents.sql"),
        include_str!("../../src/sql/delete_fields.sql"),
        include_str!("../../src/sql/find_command.sql"),
        include_str!("../../src/sql/find_documents.sql"),
        include_str!("../../src/sql/find_last_documents.sql"),
        include_str!("../../src/sql/taken_field.sql"),
        include_str!("../../src/sql/list_streams.sql"),
        include_str!("../../src/sql/read_log.sql"),
        include_str!("../../src/sql/read_matching.sql"),
        include_str!("../../src/sql/read_stream.sql"),
        include_str!("../../src/sql/read_tagged.sql"),
    ] {
        let plan = foreign.fetch_all(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"))).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        // Only these may be scanned: JSON parameters and their rows, the queue of the recursion, and its rows. The latter are
        // not collected first, so the LIMIT ends the recursion.
        let of_parameters = |what: &str| ["rows", "items"].contains(&what);
        let of_recursion = |what: &str| ["candidates", "matching", "names", "CONSTANT ROW"].contains(&what);
        let grows = |step: &&String| match step.split_once(' ') {
            Some(("SCAN", what)) => !what.contains("VIRTUAL TABLE") && !of_recursion(what) && !of_parameters(what),
            Some((verb, what)) => verb == "MATERIALIZE" && !of_parameters(what),
            None => false,
        };
        assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{steps:#?}");
        assert_eq!(steps.iter().find(grows), None, "{statement}");
    }
}
