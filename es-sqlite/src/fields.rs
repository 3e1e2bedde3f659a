//! The fields of documents: declared, written with a commit, and searched.

use std::collections::BTreeMap;

use es_core::backend::{
    DeclaredField, FieldChange, FieldPlace, FieldScan, FieldValue, FoundDocument, Reader, Served, StoredDocument, Taken,
};
use sqlx::{
    Row, Sqlite, SqliteConnection,
    query::Query,
    sqlite::{SqliteArguments, SqliteRow},
};

use crate::{generations, log::rows_limit, packed::json};

/// The JSON of `fields`: their names and kinds.
pub(crate) fn declared(fields: &[DeclaredField]) -> String {
    json(&fields.iter().map(|field| (field.name, field.kind.as_str())).collect::<BTreeMap<_, _>>())
}

/// Writes the fields of documents of `generation`, of which no value is taken. The caller's transaction also writes the documents.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    generation: i64,
    changes: &[FieldChange],
) -> Result<(), sqlx::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let rows = rows(changes);
    for statement in [include_str!("sql/delete_fields.sql"), include_str!("sql/insert_fields.sql")] {
        sqlx::query(statement).bind(generation).bind(&*rows).execute(&mut *connection).await?;
    }
    Ok(())
}

/// A value of a unique field that two documents of `generation` would have after `changes`.
pub(crate) async fn taken(
    connection: &mut SqliteConnection,
    generation: i64,
    changes: &[FieldChange],
) -> Result<Option<Taken>, sqlx::Error> {
    if !changes.iter().any(|change| change.is_unique) {
        return Ok(None);
    }
    if let Some(taken) = FieldChange::taken_twice(changes) {
        return Ok(Some(taken));
    }
    let claims = changes.iter().flat_map(|change| {
        change.claims().map(|FieldValue { number, text }| (&*change.key, change.field, *number, &**text))
    });
    let claims = json(&claims.collect::<Vec<_>>());
    let query = sqlx::query(include_str!("sql/taken_field.sql")).bind(generation).bind(claims).bind(rows(changes));
    let taken = |row: SqliteRow| {
        Ok(Taken { field: row.try_get("field")?, key: row.try_get("key")?, other: row.try_get("other")? })
    };
    query.fetch_optional(connection).await?.map(taken).transpose()
}

fn rows(changes: &[FieldChange]) -> String {
    let values = changes.iter().map(|change| change.value.as_ref());
    let rows = changes.iter().zip(values).map(|(change, value)| {
        let (number, text) = (value.map(|value| value.number), value.map_or("", |value| &*value.text));
        (&*change.key, change.field, i64::from(change.is_unique), number, text)
    });
    json(&rows.collect::<Vec<_>>())
}

/// The documents that `scan` covers in the serving generation; `None` if no generation serves.
pub(crate) async fn find(
    connection: &mut SqliteConnection,
    projection: &str,
    scan: &FieldScan,
    limit: usize,
) -> Result<Option<Served<Option<Vec<FoundDocument>>>>, sqlx::Error> {
    let statement = if scan.is_descending {
        include_str!("sql/find_last_documents.sql")
    } else {
        include_str!("sql/find_documents.sql")
    };
    // At least one row: it names the generation.
    let rows = search(statement, projection, scan).bind(rows_limit(limit.max(1))).fetch_all(connection).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let generation = generations::read(first, projection)?;
    if !first.try_get::<bool, _>("has_field")? {
        return Ok(Some(Served { generation, found: None }));
    }
    let mut found = Vec::with_capacity(rows.len());
    for row in rows.iter().take(limit) {
        if let Some(key) = row.try_get("key")? {
            let value = FieldValue { number: row.try_get("number")?, text: row.try_get("text")? };
            let document = row.try_get::<Vec<u8>, _>("document")?.into();
            found.push(FoundDocument { place: FieldPlace { value, key }, document });
        }
    }
    Ok(Some(Served { generation, found: Some(found) }))
}

/// How many documents `scan` covers in the serving generation; `None` if no generation serves.
pub(crate) async fn count(
    connection: &mut SqliteConnection,
    projection: &str,
    scan: &FieldScan,
) -> Result<Option<Served<Option<u64>>>, sqlx::Error> {
    let query = search(include_str!("sql/count_documents.sql"), projection, scan);
    let Some(row) = query.fetch_optional(connection).await? else { return Ok(None) };
    let counted = row.try_get::<i64, _>("counted")?.unsigned_abs();
    let found = row.try_get::<bool, _>("has_field")?.then_some(counted);
    Ok(Some(Served { generation: generations::read(&row, projection)?, found }))
}

/// Binds what all searches have in common.
fn search<'q>(statement: &'static str, projection: &'q str, scan: &'q FieldScan) -> Query<'q, Sqlite, SqliteArguments> {
    let FieldScan { field, kind, after, before, .. } = scan;
    let mut query = sqlx::query(statement).bind(projection).bind(*field).bind(kind.as_str());
    for FieldPlace { value: FieldValue { number, text }, key } in [after, before] {
        query = query.bind(number).bind(text).bind(key);
    }
    query
}

/// What is stored under `keys`, in their order.
pub(crate) async fn stored(
    connection: &mut SqliteConnection,
    reader: &Reader,
    keys: &[String],
) -> Result<Vec<StoredDocument>, sqlx::Error> {
    let query = sqlx::query(include_str!("sql/stored_documents.sql")).bind(reader.id).bind(json(&keys));
    let stored = |row: &SqliteRow| {
        let document = row.try_get::<Option<Vec<u8>>, _>("document")?.map(Into::into);
        let fields: Vec<(String, i64, String)> =
            serde_json::from_str(row.try_get("fields")?).map_err(|reason| sqlx::Error::Decode(reason.into()))?;
        let fields = fields.into_iter().map(|(field, number, text)| (field, FieldValue { number, text })).collect();
        Ok(StoredDocument { document, fields })
    };
    query.fetch_all(connection).await?.iter().map(stored).collect()
}
