//! What both `append_all()` and `append_batch()` are told of a batch: its events, the commands to remember, the tags, and the
//! items of the conditions. One element for each, in the order of the entries.

use std::slice;

use es_core::{Position, Tag, backend::QueryItem};
use sqlx::{Postgres, postgres::PgArguments, query::Query};
use uuid::Uuid;

use crate::write::{append::Prepared, batch::Batch, entry::Entry};

pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

#[derive(Default)]
pub(crate) struct Columns<'a> {
    events: Events<'a>,
    commands: Commands<'a>,
    tags: Tags<'a>,
    conditions: Conditions<'a>,
}

impl<'a> Columns<'a> {
    pub(crate) fn of(batch: &'a Batch) -> Self {
        let mut columns = Self::default();
        for prepared in batch.entries().flat_map(Entry::members) {
            columns.push(prepared);
        }
        columns
    }

    fn push(&mut self, prepared: &'a Prepared) {
        let stream = prepared.append.stream.as_str();
        self.events.push(prepared, &mut self.tags);
        if let Some(remembered) = &prepared.remembered {
            self.commands.events.push(small(self.events.ids.len()));
            self.commands.streams.push(stream);
            self.commands.ids.push(remembered.id);
            self.commands.fingerprints.push(remembered.fingerprint.as_bytes());
        }
        for part in prepared.append.condition_parts() {
            for item in part.query.items() {
                self.conditions.push(part.after, item);
            }
        }
    }

    /// The last 16 parameters of both.
    pub(crate) fn bind(self, statement: Statement<'_>) -> Statement<'_> {
        let statement = self.events.bind(statement);
        let statement = self.commands.bind(statement);
        let statement = self.tags.bind(statement);
        self.conditions.bind(statement)
    }
}

#[derive(Default)]
struct Events<'a> {
    streams: Vec<&'a str>,
    ids: Vec<Uuid>,
    names: Vec<&'a str>,
    schemas: Vec<i32>,
    payloads: Vec<&'a [u8]>,
    metadata: Vec<Option<&'a [u8]>>,
}

impl<'a> Events<'a> {
    fn push(&mut self, prepared: &'a Prepared, tags: &mut Tags<'a>) {
        for (event, metadata) in prepared.append.events.iter().zip(&prepared.metadata) {
            self.streams.push(prepared.append.stream.as_str());
            self.ids.push(event.id);
            self.names.push(&event.data.name);
            self.schemas.push(schema_version(event.data.schema_version));
            self.payloads.push(&event.data.payload);
            self.metadata.push(metadata.as_deref());
            for tag in &event.tags {
                tags.events.push(small(self.ids.len()));
                tags.names.push(&event.data.name);
                tags.texts.push(tag.as_str());
            }
        }
    }

    fn bind(self, statement: Statement<'_>) -> Statement<'_> {
        let statement = statement.bind(self.streams).bind(self.ids).bind(self.names);
        statement.bind(self.schemas).bind(self.payloads).bind(self.metadata)
    }
}

/// Commands to remember; `events`: which of all events is the last one of each.
#[derive(Default)]
struct Commands<'a> {
    events: Vec<i32>,
    streams: Vec<&'a str>,
    ids: Vec<Uuid>,
    fingerprints: Vec<&'a [u8]>,
}

impl Commands<'_> {
    fn bind(self, statement: Statement<'_>) -> Statement<'_> {
        statement.bind(self.events).bind(self.streams).bind(self.ids).bind(self.fingerprints)
    }
}

/// Tags; `events`: of which of all events.
#[derive(Default)]
struct Tags<'a> {
    events: Vec<i32>,
    names: Vec<&'a str>,
    texts: Vec<&'a str>,
}

impl Tags<'_> {
    fn bind(self, statement: Statement<'_>) -> Statement<'_> {
        statement.bind(self.events).bind(self.names).bind(self.texts)
    }
}

/// Items of conditions: no event after the position matches the item, which is looked up by its first tag.
#[derive(Default)]
struct Conditions<'a> {
    afters: Vec<i64>,
    tags: Vec<Option<&'a str>>,
    items: Vec<Option<String>>,
}

impl<'a> Conditions<'a> {
    fn push(&mut self, after: Position, item: &'a QueryItem) {
        let is_one_tag = item.tags.len() == 1 && item.names.is_empty();
        self.afters.push(after.to_i64());
        self.tags.push(item.tags.first().map(Tag::as_str));
        self.items.push((!is_one_tag).then(|| json(slice::from_ref(item))));
    }

    fn bind(self, statement: Statement<'_>) -> Statement<'_> {
        statement.bind(self.afters).bind(self.tags).bind(self.items)
    }
}

/// Items of a query as `matching()` takes them.
pub(crate) fn json(items: &[QueryItem]) -> String {
    serde_json::to_string(items).expect("a query holds nothing but text")
}

pub(crate) fn schema_version(version: u32) -> i32 {
    i32::try_from(version).unwrap_or(i32::MAX)
}

/// Counts within a batch are bounded far below 2^31 by the limits of appends and batches.
pub(crate) fn small(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
