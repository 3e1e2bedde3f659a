//! Events that match a query.
//!
//! Queries for one tag share statements (`shared.rs`): what they cost is bounded by how many events they ask for. Others may go
//! through many entries of a tag, or through the log, for each event that they find, so each of them has a statement of its own.

use std::{collections::HashSet, sync::Arc};

use es_core::{EventQuery, Position, ReadError, RecordedEvent, Tag, backend::PAGE_BYTES};
use sqlx::{Row, ValueRef, postgres::PgRow};

use crate::{
    connections::Connections,
    error,
    read::{
        loader::bytes,
        log::{decode, event, rows},
        shared::{Asked, Shareable, Shared},
    },
    write::columns,
};

/// How many events one statement reads, unless it serves so many queries that each may have [`FEWEST_EVENTS`].
const MOST_EVENTS: usize = 256;

/// How many events of each query, at least, however many the statement serves.
const FEWEST_EVENTS: usize = 32;

/// The way of queries for one tag to the server.
pub(crate) type Matching = Shared<Tagged>;

pub(crate) async fn read_matching(
    connections: &Connections,
    matching: &Matching,
    query: &EventQuery,
    after: Position,
    limit: usize,
) -> Result<Vec<RecordedEvent>, ReadError> {
    query.validate()?;
    let mut found = Found { events: Vec::new(), are_all: false };
    if let Some(tag) = query.only_tag() {
        found = matching.read(Tagged { tag: tag.clone(), after, limit }).await?;
    }
    let Found { mut events, are_all } = found;
    let bytes: usize = events.iter().map(|event| event.data.payload.len()).sum();
    if are_all || events.len() >= limit || bytes >= PAGE_BYTES {
        return Ok(events);
    }
    // A later snapshot has the same events up to here, and perhaps more after them.
    let after = events.last().map_or(after, |event| event.position);
    let query = columns::json(query.items());
    let rest = connections.read(|| {
        sqlx::query(include_str!("../sql/read_matching.sql"))
            .bind(&query)
            .bind(after.to_i64())
            .bind(rows(limit - events.len()))
            .bind(rows(PAGE_BYTES - bytes))
    });
    events.extend(decode(&rest.await.map_err(error::read)?, None)?);
    Ok(events)
}

/// A query for the events with a tag.
pub(crate) struct Tagged {
    tag: Tag,
    after: Position,
    limit: usize,
}

/// The first events of a query.
pub(crate) struct Found {
    events: Vec<RecordedEvent>,
    are_all: bool,
}

impl Shareable for Tagged {
    type Found = Found;

    async fn alone(&self, connections: &Connections) -> Result<Found, ReadError> {
        let (found, most) = fetch(connections, &[self]).await.map_err(error::read)?;
        first_events(&found.0, self.limit.min(most), found.1)
    }

    async fn together(connections: &Connections, asked: Vec<Asked<Self>>) {
        let queries: Vec<_> = asked.iter().map(|asked| &asked.read).collect();
        let fetched = fetch(connections, &queries).await.map_err(Arc::new);
        let ordinal = |row: &PgRow| row.try_get::<i32, _>(ORDINAL).ok();
        let mut left = fetched.as_ref().map(|((rows, are_all), most)| {
            // The statement does not sort them. If those of a query do not stand together, each query is read alone.
            let stand_together = rows.is_sorted_by_key(ordinal);
            if stand_together { (&rows[..], *are_all, *most) } else { (&[][..], false, *most) }
        });
        for (asked, number) in asked.into_iter().zip(1_i32..) {
            let is_own = |row: &&PgRow| ordinal(row) == Some(number);
            let answer = match &mut left {
                Ok((rows, are_all, most)) => {
                    let (own, others) = rows.split_at(rows.iter().take_while(is_own).count());
                    *rows = others;
                    // Rows are missing behind the last one.
                    let is_whole = *are_all || !others.is_empty();
                    first_events(own, asked.read.limit.min(*most), is_whole)
                }
                Err(cause) => Err(ReadError::Store(cause.clone().into())),
            };
            asked.answer(answer);
        }
    }
}

/// Where a row of `read_tagged.sql` tells which query it belongs to.
const ORDINAL: usize = 9;

/// Where it has the payload.
const PAYLOAD: usize = 6;

/// The rows of all of `queries` one after the other, whether these are all, and how many of each query they may be. They end with
/// the row whose payloads reach [`PAGE_BYTES`] (R17); a payload that is larger than its share of that is left out.
async fn fetch(connections: &Connections, queries: &[&Tagged]) -> Result<((Vec<PgRow>, bool), usize), sqlx::Error> {
    let most = (MOST_EVENTS / queries.len().max(1)).max(FEWEST_EVENTS);
    let (mut tags, mut afters, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for Tagged { tag, after, limit } in queries {
        tags.push(tag.as_str());
        afters.push(after.to_i64());
        limits.push(rows(most.min(*limit)));
    }
    let query = || {
        let tagged = sqlx::query(include_str!("../sql/read_tagged.sql"));
        tagged.bind(&tags[..]).bind(&afters[..]).bind(&limits[..]).bind(rows(PAGE_BYTES / most))
    };
    connections.read_first(query, PAGE_BYTES, |row| bytes(row, PAYLOAD)).await.map(|found| (found, most))
}

/// The events of `rows`, up to one whose payload was left out. They are all there are if there are fewer than `limit`, and none was
/// left out: neither of them (`is_whole`) nor a payload.
fn first_events(rows: &[PgRow], limit: usize, is_whole: bool) -> Result<Found, ReadError> {
    let (mut events, mut names) = (Vec::<RecordedEvent>::with_capacity(rows.len()), HashSet::new());
    for row in rows {
        let has_payload = row.try_get_raw(PAYLOAD).is_ok_and(|payload| !payload.is_null());
        if !has_payload {
            return Ok(Found { events, are_all: false });
        }
        let event = event(row, None, &mut names)?;
        // The statement does not sort them: they come in the order of the index.
        if events.last().is_some_and(|last| last.position >= event.position) {
            return Ok(Found { events: Vec::new(), are_all: false });
        }
        events.push(event);
    }
    Ok(Found { are_all: is_whole && events.len() < limit, events })
}
