//! Fields of documents: what people see with `psql`, under an application's role, and what a retired generation leaves.

use std::time::Duration;

use es_core::{
    DocumentField, Field, FieldType, Generation, Position,
    backend::{
        Changes, Checkpoint, DeclaredField, Documents, FieldChange, GenerationState, Generations, Leases, Promotion,
        Shard, Takeover,
    },
};
use es_postgres::PostgresStore;
use sqlx::Row;
use uuid::Uuid;

use super::{
    roles::Role,
    server::{Schema, soon},
};

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
async fn filled(store: &PostgresStore, state: GenerationState, key: &str, fields: Vec<FieldChange>) -> Generation {
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

/// The application makes no view: its role may not. A person makes one once, and a promotion changes what it shows.
#[tokio::test(flavor = "multi_thread")]
async fn people_see_fields_as_columns_of_the_generation_that_serves() {
    let schema = Schema::new();
    drop(schema.store().await);
    let store = Role::new(&schema).await.options(&schema).connect().await.unwrap();
    let since = chrono::DateTime::from_timestamp_micros(1_767_225_600_123_456).unwrap();
    let fields = vec![
        value(&NAME, "k", "O'Hara".to_owned()),
        value(&SIZE, "k", -12),
        value(&OPEN, "k", true),
        value(&SINCE, "k", since),
    ];
    filled(&store, GenerationState::Serving, "k", fields).await;
    let mut person = schema.session().await;
    let statement = person.text("SELECT statement FROM read_model_views WHERE projection = 'big-orders'").await;
    person.run(&statement).await;
    let shown = "SELECT key, document ->> 'n' AS n, name, size, open, since FROM \"big-orders\" WHERE name = 'O''Hara'";
    let row = &person.rows(shown).await[0];
    assert_eq!((row.get("key"), row.get("n"), row.get("name")), ("k", Some("7"), "O'Hara"));
    assert_eq!((row.get("size"), row.get("open")), (-12_i64, true));
    assert_eq!(row.get::<chrono::DateTime<chrono::Utc>, _>("since"), since);
    let all = "SELECT string_agg(concat_ws(' ', key, name, size), ',' ORDER BY key) FROM \"big-orders\"";
    assert_eq!(person.text(all).await, "bare,k O'Hara -12");
    // What people filter by is looked up.
    person.run("SET enable_seqscan = off; SET enable_bitmapscan = off").await;
    let plan = person.rows("EXPLAIN SELECT key FROM \"big-orders\" WHERE name = 'x'").await;
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let looks_up = plan.iter().any(|line| line.contains("using document_fields_value"));
    assert!(looks_up, "{plan:#?}");

    let new = filled(&store, GenerationState::Building, "new", vec![value(&SIZE, "new", -12)]).await;
    assert_eq!(person.text(all).await, "bare,k O'Hara -12");
    store.promote(&new, Promotion::Automatic).await.unwrap();
    assert_eq!(person.text(all).await, "bare,new -12");
    // The fields of the old generation are deleted.
    person.until("SELECT count(*) FROM document_fields", 1).await;
    store.close().await.unwrap();
}

/// Two workers of different shards write the value before either has committed: the second one waits for the first. (Without the unique
/// index it waits for nothing.)
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_another_commit_is_writing_is_waited_for() {
    let schema = Schema::new();
    let store = schema.store().await;
    let generation = filled(&store, GenerationState::Serving, "k", Vec::new()).await;
    let shard = Shard::from("log");
    let ttl = Duration::from_mins(1);
    let lease =
        store.acquire(&generation.reader, &shard, Uuid::now_v7(), Takeover::Always, ttl).await.unwrap().unwrap();
    let (mut rival, mut watcher) = (schema.session().await, schema.session().await);
    rival
        .run(&format!(
            "BEGIN; INSERT INTO document_fields VALUES ({}, 'size', 5, '', 'other', true)",
            generation.reader.id
        ))
        .await;
    let checkpoint = Checkpoint { position: Position::new(2), ..Checkpoint::default() };
    let changes = Changes {
        upserts: vec![("k".to_owned(), "2".into())],
        fields: vec![value(&SIZE, "k", 5)],
        checkpoint,
        ..Changes::default()
    };
    let waiting = tokio::spawn({
        let (store, changes) = (store.clone(), changes.clone());
        async move { store.commit(&lease, changes).await }
    });
    watcher.until_blocked(&schema, 1).await;
    rival.run("COMMIT").await;
    let refused = soon(waiting).await.unwrap().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the documents \"k\" and \"other\" would have the same value of the unique field \"size\""
    );
    assert_eq!(store.reached("big-orders").await.unwrap(), Position::new(1), "nothing was written");
    assert_eq!(store.get("big-orders", "k").await.unwrap().unwrap().found.unwrap(), r#"{"n":7}"#);
}
