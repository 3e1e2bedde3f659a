//! Plans are made once and kept, so none may depend on how full the tables were at that moment.

use sqlx::{AssertSqlSafe, Row};

use super::server::Schema;

const STATEMENTS: [&str; 18] = [
    include_str!("../../src/sql/count.sql"),
    include_str!("../../src/sql/find.sql"),
    include_str!("../../src/sql/find_last.sql"),
    include_str!("../../src/sql/find_command.sql"),
    include_str!("../../src/sql/find_versions.sql"),
    include_str!("../../src/sql/get.sql"),
    include_str!("../../src/sql/list_streams.sql"),
    include_str!("../../src/sql/load.sql"),
    include_str!("../../src/sql/load_snapshot.sql"),
    include_str!("../../src/sql/load_stream.sql"),
    include_str!("../../src/sql/load_streams.sql"),
    include_str!("../../src/sql/load_whole_streams.sql"),
    include_str!("../../src/sql/read_log.sql"),
    include_str!("../../src/sql/read_matching.sql"),
    include_str!("../../src/sql/read_stream.sql"),
    include_str!("../../src/sql/read_tagged.sql"),
    include_str!("../../src/sql/scan.sql"),
    include_str!("../../src/sql/scan_below.sql"),
];

/// Without `OFFSET 0` in `load.sql`, `load_streams.sql`, `read_matching.sql` or `matching()`, a plan that was made while there
/// was nothing in a table read all of it for each statement: seen to fail for each of them.
#[tokio::test]
async fn plans_that_were_made_for_empty_tables_read_no_whole_table() {
    let schema = Schema::new();
    schema.store().await.close().await.unwrap();
    let mut session = schema.session().await;
    let settings = include_str!("../../src/sql/session.sql")
        .replace("{path}", &schema.0)
        .replace("{lock_timeout}", "0")
        .replace("{statement_timeout}", "0");
    session.run(&settings).await;
    session.run("VACUUM ANALYZE events, event_tags, commands, snapshots, documents, document_fields").await;
    let matching = session.text("SELECT prosrc FROM pg_proc WHERE oid = 'matching'::regproc").await;
    let (_, matching) = matching.split_once("RETURN QUERY").unwrap();
    let (matching, _) = matching.split_once(';').unwrap();
    let matching =
        matching.replace("(query)", "($1::jsonb)").replace("> after", "> $2").replace("LIMIT most", "LIMIT $3");
    for statement in STATEMENTS.into_iter().chain([&*matching]) {
        let guard = "CASE WHEN $9::text = 'mark' THEN true ELSE refuse_session() END";
        let statement = statement.replace("{here}", guard).replace("{here to read}", guard);
        // By the simple protocol, which takes no parameters, so that there may be some.
        let explain = sqlx::raw_sql(AssertSqlSafe(format!("EXPLAIN (GENERIC_PLAN, COSTS OFF) {statement}")));
        let rows = explain.fetch_all(&mut session.0).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let is_whole = |line: usize| {
            let tables = [
                " on events",
                " on event_tags",
                " on commands",
                " on snapshots",
                " on documents",
                " on document_fields",
            ];
            let is_scan = plan[line].contains("Scan using") && tables.iter().any(|table| plan[line].contains(table));
            let is_last = line > 0 && plan[line - 1].trim_end().ends_with("Limit");
            is_scan && !is_last && !plan.get(line + 1).is_some_and(|condition| condition.contains("Index Cond"))
        };
        let gathers = ["Seq Scan", "Bitmap", "Hash", "hashed", "Merge", "Materialize"];
        let gathers = plan.iter().any(|line| gathers.iter().any(|whole| line.contains(whole)));
        assert!(!gathers && !(0..plan.len()).any(is_whole), "{statement}\n{plan:#?}");
    }
}
