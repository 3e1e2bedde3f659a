//! The SQL views of the file.

use std::collections::BTreeMap;

use es_core::{Append, EventStore, Expected, Metadata, Position};
use es_sqlite::SqliteStore;
use sqlx::{Executor, Row};

use super::fixture::{event, foreign_connection, new_path, put, stream};

/// The name passes through JSON on its way into the file.
const ID: &str = r#"with-dash "quoted" \ 🦀"#;

#[tokio::test]
async fn the_log_is_shown_as_it_was_written() {
    let path = new_path();
    let store = SqliteStore::open(&path).await.unwrap();
    let extra = BTreeMap::from([("city".to_owned(), "Zürich".to_owned())]);
    let mut first = event("test.happened").with_metadata(Metadata { extra, ..Metadata::default() });
    first.data.payload = r#"{ "price" : 1.50 }"#.into();
    let id = first.id.to_string();
    put(&store, Append::new(stream(ID), Expected::NoStream, vec![first, event("test.ended")])).await;
    let recorded_at = store.read_log(Position::ZERO, 1).await.unwrap()[0].recorded_at;

    let mut foreign = foreign_connection(&path).await;
    let rows = foreign
        .fetch_all("SELECT *, data ->> 'price' AS price, metadata ->> '$.extra.city' AS city FROM event_log")
        .await
        .unwrap();
    let text = |column: &str| rows[0].get::<String, _>(column);
    assert_eq!(text("event_id"), id);
    assert_eq!((text("event_type"), text("data")), ("test.happened".into(), r#"{ "price" : 1.50 }"#.into()));
    assert_eq!((text("aggregate_type"), text("aggregate_id")), ("test".into(), ID.into()));
    assert_eq!(text("timestamp"), recorded_at.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string());
    assert_eq!((rows[0].get::<f64, _>("price"), text("city")), (1.5, "Zürich".into()));
    assert_eq!((rows[1].get::<i64, _>("position"), rows[1].get::<i64, _>("version")), (2, 2));
    assert_eq!(rows[1].get::<Option<&str>, _>("metadata"), None);
}
