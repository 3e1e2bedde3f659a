//! Dead letters as rows.

use es_core::{
    DeadLetter, EventData, LetterPage, Metadata, Position, RecordedEvent, Version,
    backend::{NewLetter, PAGE_BYTES, ReadModelError, Reader, Redemption, Shard},
};
use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
};

use crate::{connections::Connections, error};

type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// Binds what `commit_letters.sql` has beyond `commit.sql`.
pub(super) fn bind<'q>(
    statement: Statement<'q>,
    letters: &'q [NewLetter],
    redemption: Option<&'q Redemption>,
) -> Statement<'q> {
    let events = || letters.iter().map(|letter| &letter.event);
    let statement = statement
        .bind(letters.iter().map(|letter| letter.key.as_str()).collect::<Vec<_>>())
        .bind(events().map(|event| event.position.to_i64()).collect::<Vec<_>>())
        .bind(events().map(|event| event.id).collect::<Vec<_>>())
        .bind(events().map(|event| event.stream.as_str()).collect::<Vec<_>>())
        .bind(events().map(|event| event.version.to_i64()).collect::<Vec<_>>())
        .bind(events().map(|event| &*event.data.name).collect::<Vec<_>>())
        .bind(events().map(|event| event.data.schema_version.cast_signed()).collect::<Vec<_>>())
        .bind(events().map(|event| event.recorded_at).collect::<Vec<_>>())
        .bind(events().map(|event| &event.data.payload[..]).collect::<Vec<_>>())
        .bind(events().map(|event| event.metadata.encode()).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| letter.cause.as_deref()).collect::<Vec<_>>())
        .bind(letters.iter().map(|letter| i64::from(letter.attempts)).collect::<Vec<_>>());
    let failed = redemption.and_then(|redemption| redemption.failed.as_ref());
    let tried = redemption.iter().flat_map(|redemption| &redemption.handled).copied();
    let tried = tried.chain(failed.map(|failed| (failed.position, failed.revision)));
    let (positions, revisions): (Vec<_>, Vec<_>) = tried.map(|(at, revision)| (at.to_i64(), revision)).unzip();
    statement
        .bind(redemption.map(|redemption| redemption.key.as_str()))
        .bind(positions)
        .bind(revisions)
        .bind(failed.map(|failed| failed.position.to_i64()))
        .bind(failed.map(|failed| failed.cause.as_str()))
        .bind(redemption.is_some_and(|redemption| redemption.is_whole))
}

/// The letters of the readers of this `name` on `page`; only those of the reader `id`, if it is given.
pub(super) async fn read(
    connections: &Connections,
    name: &str,
    page: &LetterPage,
    id: Option<i64>,
) -> Result<Vec<DeadLetter>, ReadModelError> {
    let LetterPage { key, after, limit } = page;
    let query = || {
        sqlx::query(include_str!("../sql/letters.sql"))
            .bind(name)
            .bind(key)
            .bind(after.as_ref().map(|after| after.reader))
            .bind(after.as_ref().map(|after| after.key.as_str()))
            .bind(after.as_ref().map(|after| after.position.to_i64()))
            .bind(id)
            .bind(i64::try_from(*limit).unwrap_or(i64::MAX))
            .bind(i64::try_from(PAGE_BYTES).unwrap_or(i64::MAX))
    };
    let rows = connections.read(query).await.map_err(error::read_model)?;
    rows.iter().map(|row| letter(row, name)).collect::<Result<_, _>>().map_err(error::read_model)
}

fn letter(row: &PgRow, name: &str) -> Result<DeadLetter, sqlx::Error> {
    let decode = |reason: sqlx::error::BoxDynError| sqlx::Error::Decode(reason);
    let unsigned = |number: i64| u32::try_from(number).map_err(|reason| decode(reason.into()));
    let event = RecordedEvent {
        position: Position::from_i64(row.try_get("position")?),
        stream: row.try_get::<&str, _>("stream")?.parse().map_err(|reason| decode(Box::new(reason)))?,
        version: Version::from_i64(row.try_get("version")?),
        id: row.try_get("event_id")?,
        recorded_at: row.try_get("recorded_at")?,
        metadata: Metadata::decode(row.try_get("metadata")?).map_err(|reason| decode(reason.into()))?,
        data: EventData {
            name: row.try_get::<&str, _>("type")?.into(),
            schema_version: row.try_get::<i32, _>("schema_version")?.cast_unsigned(),
            payload: row.try_get::<Vec<u8>, _>("payload")?.into(),
        },
    };
    Ok(DeadLetter {
        reader: Reader { id: row.try_get("reader")?, name: name.to_owned() },
        shard: Shard::from(row.try_get::<&str, _>("shard")?),
        key: row.try_get("key")?,
        event,
        edited: row.try_get::<Option<Vec<u8>>, _>("edited")?.map(Into::into),
        cause: row.try_get("cause")?,
        attempts: unsigned(row.try_get("attempts")?)?,
        parked_at: row.try_get("parked_at")?,
        revision: row.try_get("revision")?,
    })
}
