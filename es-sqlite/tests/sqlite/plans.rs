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
        include_str!("../../src/sql/append_state.sql"),
        include_str!("../../src/sql/find_command.sql"),
        include_str!("../../src/sql/list_streams.sql"),
        include_str!("../../src/sql/read_log.sql"),
        include_str!("../../src/sql/read_matching.sql"),
        include_str!("../../src/sql/read_stream.sql"),
    ] {
        let plan = foreign.fetch_all(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"))).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        // Only these may be scanned: JSON parameters, the queue of the recursion, and its rows. These are not
        // collected first, so the LIMIT ends the recursion.
        let grows = |step: &&String| match step.split_once(' ') {
            Some(("SCAN", what)) => {
                !what.contains("VIRTUAL TABLE") && !["candidates", "matching", "names", "CONSTANT ROW"].contains(&what)
            }
            Some((verb, _)) => verb == "MATERIALIZE",
            None => false,
        };
        assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{steps:#?}");
        assert_eq!(steps.iter().find(grows), None, "{statement}");
    }
}
