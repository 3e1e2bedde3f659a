//! Documents of read models.

use bytes::Bytes;
use es_core::{
    KeyRange,
    backend::{Reader, Served},
};
use sqlx::{Row, SqliteConnection};

use crate::{
    generations,
    log::rows_limit,
    packed::{Packed, json},
};

/// Writes and deletes documents of `generation`. The caller's transaction also moves the checkpoint.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    generation: i64,
    upserts: &[(String, Bytes)],
    deletes: &[String],
) -> Result<(), sqlx::Error> {
    if !upserts.is_empty() {
        let mut packed = Packed::with_capacity(upserts.iter().map(|(_, document)| document.len()).sum());
        let mut rows = Vec::with_capacity(upserts.len());
        for (key, document) in upserts {
            let place = packed.push(document);
            rows.push((key, place.start, place.length));
        }
        sqlx::query(include_str!("sql/upsert_documents.sql"))
            .bind(generation)
            .bind(json(&rows))
            .bind(packed.into_bytes())
            .execute(&mut *connection)
            .await?;
    }
    if !deletes.is_empty() {
        let query = sqlx::query(include_str!("sql/delete_documents.sql")).bind(generation).bind(json(&deletes));
        query.execute(connection).await?;
    }
    Ok(())
}

/// The documents under the first of `keys`, in the order of `keys`, up to the one that reaches `budget` bytes.
pub(crate) async fn load(
    connection: &mut SqliteConnection,
    reader: &Reader,
    keys: &[String],
    budget: usize,
) -> Result<Vec<Option<Bytes>>, sqlx::Error> {
    let query = sqlx::query_scalar(include_str!("sql/load_documents.sql"))
        .bind(reader.id)
        .bind(json(&keys))
        .bind(i64::try_from(budget).unwrap_or(i64::MAX));
    let documents: Vec<Option<Vec<u8>>> = query.fetch_all(connection).await?;
    Ok(documents.into_iter().map(|document| document.map(Bytes::from)).collect())
}

/// The document under `key` in the serving generation; `None` if no generation serves.
pub(crate) async fn get(
    connection: &mut SqliteConnection,
    projection: &str,
    key: &str,
) -> Result<Option<Served<Option<Bytes>>>, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/get_document.sql")).bind(projection).bind(key);
    let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
    let found = row.try_get::<Option<Vec<u8>>, _>("document")?.map(Bytes::from);
    Ok(Some(Served { generation: generations::read(&row, projection)?, found }))
}

/// Documents of the serving generation, in byte order of their keys; `None` if no generation serves.
pub(crate) async fn scan(
    connection: &mut SqliteConnection,
    projection: &str,
    range: &KeyRange,
    limit: usize,
) -> Result<Option<Served<Vec<(String, Bytes)>>>, sqlx::Error> {
    // Both ends of the range are keys, so SQLite uses the index.
    let first = range.after.as_ref().unwrap_or(&range.prefix).max(&range.prefix);
    let query = sqlx::query(include_str!("sql/scan_documents.sql"))
        .bind(projection)
        .bind(first)
        .bind(range.after.as_deref())
        .bind(range.end())
        // At least one row: it names the generation.
        .bind(rows_limit(limit.max(1)));
    let rows = query.fetch_all(connection).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let mut served =
        Served { generation: generations::read(first, projection)?, found: Vec::with_capacity(rows.len()) };
    for row in rows.iter().take(limit) {
        if let Some(key) = row.try_get("key")? {
            served.found.push((key, row.try_get::<Vec<u8>, _>("document")?.into()));
        }
    }
    Ok(Some(served))
}
