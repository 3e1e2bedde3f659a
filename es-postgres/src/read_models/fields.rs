//! The fields of documents: declared, written with a commit, and searched.

use es_core::backend::{
    DeclaredField, FieldChange, FieldPlace, FieldScan, FieldValue, FoundDocument, Reader, Served, StoredDocument, Taken,
};
use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use super::{document, generation};
use crate::connections::Connections;

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// The JSON of `fields`: their names and kinds, which are of letters, digits and `_`.
pub(super) fn declared(fields: &[DeclaredField]) -> String {
    let fields: Vec<_> = fields.iter().map(|field| format!("\"{}\":\"{}\"", field.name, field.kind.as_str())).collect();
    format!("{{{}}}", fields.join(","))
}

/// Binds what `commit_fields.sql` has beyond `commit_letters.sql`.
pub(super) fn bind<'q>(statement: Statement<'q>, changes: &'q [FieldChange]) -> Statement<'q> {
    let values = || changes.iter().map(|change| change.value.as_ref());
    let passed = || changes.iter().flat_map(|change| change.passed.iter().map(move |value| (change, value)));
    statement
        .bind(changes.iter().map(|change| change.key.as_str()).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.field).collect::<Vec<_>>())
        .bind(changes.iter().map(|change| change.is_unique).collect::<Vec<_>>())
        .bind(values().map(|value| value.map(|value| value.number)).collect::<Vec<_>>())
        .bind(values().map(|value| value.map_or("", |value| value.text.as_str())).collect::<Vec<_>>())
        .bind(passed().map(|(change, _)| change.key.as_str()).collect::<Vec<_>>())
        .bind(passed().map(|(change, _)| change.field).collect::<Vec<_>>())
        .bind(passed().map(|(_, value)| value.number).collect::<Vec<_>>())
        .bind(passed().map(|(_, value)| value.text.as_str()).collect::<Vec<_>>())
}

/// What a row of `commit_fields.sql` says of a value that is taken.
pub(super) fn taken(row: &PgRow) -> Result<Taken, sqlx::Error> {
    Ok(Taken { field: row.try_get(2)?, key: row.try_get(3)?, other: row.try_get(4)? })
}

/// Binds what all searches have in common.
fn search<'q>(statement: &'static str, projection: &'q str, scan: &'q FieldScan) -> Statement<'q> {
    let FieldScan { field, kind, after, before, .. } = scan;
    let mut statement = sqlx::query(statement).bind(projection).bind(*field).bind(kind.as_str());
    for FieldPlace { value: FieldValue { number, text }, key } in [after, before] {
        statement = statement.bind(number).bind(text).bind(key);
    }
    statement
}

pub(super) async fn find(
    connections: &Connections,
    projection: &str,
    scan: &FieldScan,
    limit: usize,
) -> Result<Option<Served<Option<Vec<FoundDocument>>>>, sqlx::Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let text = if scan.is_descending { include_str!("../sql/find_last.sql") } else { include_str!("../sql/find.sql") };
    let rows = connections.read(|| search(text, projection, scan).bind(limit)).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let served = generation(first, projection)?;
    if !first.try_get::<bool, _>(2)? {
        return Ok(Some(Served { generation: served, found: None }));
    }
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        if let Some(key) = row.try_get(5)? {
            let value = FieldValue { number: row.try_get(3)?, text: row.try_get(4)? };
            let document = document(row, 6)?.unwrap_or_default();
            found.push(FoundDocument { place: FieldPlace { value, key }, document });
        }
    }
    Ok(Some(Served { generation: served, found: Some(found) }))
}

pub(super) async fn count(
    connections: &Connections,
    projection: &str,
    scan: &FieldScan,
) -> Result<Option<Served<Option<u64>>>, sqlx::Error> {
    let rows = connections.read(|| search(include_str!("../sql/count.sql"), projection, scan)).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let counted = row.try_get::<i64, _>(3)?.unsigned_abs();
    let found = row.try_get::<bool, _>(2)?.then_some(counted);
    Ok(Some(Served { generation: generation(row, projection)?, found }))
}

/// What is stored under `keys`, in their order.
pub(super) async fn stored(
    connections: &Connections,
    reader: &Reader,
    keys: &[String],
) -> Result<Vec<StoredDocument>, sqlx::Error> {
    let rows = connections.read(|| sqlx::query(include_str!("../sql/stored.sql")).bind(reader.id).bind(keys)).await?;
    let stored = |row: &PgRow| {
        let (names, numbers): (Vec<String>, Vec<i64>) = (row.try_get(1)?, row.try_get(2)?);
        let values = numbers.into_iter().zip(row.try_get::<Vec<String>, _>(3)?);
        let values = values.map(|(number, text)| FieldValue { number, text });
        Ok(StoredDocument { document: document(row, 0)?, fields: names.into_iter().zip(values).collect() })
    };
    rows.iter().map(stored).collect()
}
