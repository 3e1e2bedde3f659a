//! Fields of documents: what people see in the file, and what a retired generation leaves.

use std::time::Duration;

use es_core::{
    DocumentField, Field, FieldType, Generation, Position,
    backend::{
        Changes, Checkpoint, DeclaredField, FieldChange, GenerationState, Generations, Leases, Promotion, Shard,
        Takeover,
    },
};
use es_sqlite::SqliteStore;
use sqlx::{AssertSqlSafe, Executor, Row, SqliteConnection};
use uuid::Uuid;

use super::fixture::{foreign_connection, new_path};

const NAME: Field<(), String> = Field::new("name", |()| None);
const SIZE: Field<(), i64> = Field::new("size", |()| None).unique();
const OPEN: Field<(), bool> = Field::new("open", |()| None);
const SINCE: Field<(), chrono::DateTime<chrono::Utc>> = Field::new("since", |()| None);

fn value<T: FieldType>(field: &Field<(), T>, key: &str, value: T) -> FieldChange {
    let field: &dyn DocumentField<()> = field;
    let (key, is_unique, value) = (key.to_owned(), field.is_unique(), Some(value.into_value()));
    FieldChange { key, field: field.name(), is_unique, value, passed: Vec::new() }
}

/// A generation with a document under `key`, and with `fields`.
async fn filled(store: &SqliteStore, state: GenerationState, key: &str, fields: Vec<FieldChange>) -> Generation {
    let declared: [&dyn DocumentField<()>; 4] = [&NAME, &SIZE, &OPEN, &SINCE];
    let declared = declared.map(|field| DeclaredField { name: field.name(), kind: field.kind() });
    let definition = "projection Orders";
    let generation = store.ensure_generation("big-orders", 1, state, definition, &declared).await.unwrap();
    let shard = Shard::from("log");
    store.ensure_shards(&generation.reader, std::slice::from_ref(&shard)).await.unwrap();
    let ttl = Duration::from_mins(1);
    let lease =
        store.acquire(&generation.reader, &shard, Uuid::now_v7(), Takeover::Always, ttl).await.unwrap().unwrap();
    let upserts = vec![(key.to_owned(), r#"{"n":7}"#.into()), ("bare".to_owned(), "1".into())];
    let checkpoint = Checkpoint { position: Position::new(1), ..Checkpoint::default() };
    store.commit(&lease, Changes { upserts, fields, checkpoint, ..Changes::default() }).await.unwrap();
    generation
}

async fn text(person: &mut SqliteConnection, query: &'static str) -> String {
    person.fetch_one(query).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_fields_as_columns_of_the_generation_that_serves() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let since = chrono::DateTime::from_timestamp_micros(-1_500_000).unwrap();
    let fields = vec![
        value(&NAME, "k", "O'Hara".to_owned()),
        value(&SIZE, "k", -12),
        value(&OPEN, "k", true),
        value(&SINCE, "k", since),
    ];
    filled(&store, GenerationState::Serving, "k", fields).await;
    let mut person = foreign_connection(&path).await;
    let statement = text(&mut person, "SELECT statement FROM read_model_views WHERE projection = 'big-orders'").await;
    person.execute(AssertSqlSafe(statement)).await.unwrap();
    let shown = "SELECT concat_ws('|', key, document ->> 'n', name, size, open, since) FROM \"big-orders\" WHERE name = 'O''Hara'";
    assert_eq!(text(&mut person, shown).await, "k|7|O'Hara|-12|1|1969-12-31T23:59:58.500000Z");
    let all =
        "SELECT group_concat(concat_ws(' ', key, name, size), ',') FROM (SELECT * FROM \"big-orders\" ORDER BY key)";
    assert_eq!(text(&mut person, all).await, "bare,k O'Hara -12");
    let new = filled(&store, GenerationState::Building, "new", vec![value(&SIZE, "new", -12)]).await;
    assert_eq!(text(&mut person, all).await, "bare,k O'Hara -12");
    store.promote(&new, Promotion::Automatic).await.unwrap();
    assert_eq!(text(&mut person, all).await, "bare,new -12");
    // The fields of the old generation are deleted.
    let swept = async {
        while person.fetch_one("SELECT count(*) FROM document_fields").await.unwrap().get::<i64, _>(0) > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), swept).await.expect("swept");
}

/// A page of found documents is read from the index in its order: nothing is sorted.
#[tokio::test]
async fn a_search_sorts_nothing() {
    let path = new_path();
    let _store = SqliteStore::open(&path).await.unwrap();
    let mut foreign = foreign_connection(&path).await;
    for statement in
        [include_str!("../../src/sql/find_documents.sql"), include_str!("../../src/sql/find_last_documents.sql")]
    {
        let plan = foreign.fetch_all(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"))).await.unwrap();
        let steps: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        assert!(!steps.iter().any(|step| step.contains("TEMP B-TREE")), "{steps:#?}");
        assert!(steps.iter().any(|step| step.contains("document_fields_by_value")), "{steps:#?}");
    }
}
