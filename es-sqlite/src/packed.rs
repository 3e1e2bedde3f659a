//! Many values in one bound parameter: their bytes end to end, and where each one starts. So one statement writes any
//! number of rows, and the values are copied as they are.

use es_core::{EventQuery, Tag, backend::QueryItem};
use serde::Serialize;

/// Where a value starts, counted from 1 as in SQL's `substr`, and its length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) start: usize,
    pub(crate) length: usize,
}

/// Values end to end.
#[derive(Debug)]
pub(crate) struct Packed {
    bytes: Vec<u8>,
}

impl Packed {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let mut packed = Vec::with_capacity(bytes + 1);
        // SQLite's substr returns NULL for an empty blob, so a blob of empty values alone would store NULL.
        packed.push(0);
        Self { bytes: packed }
    }

    pub(crate) fn push(&mut self, value: &[u8]) -> Place {
        let start = self.bytes.len() + 1;
        self.bytes.extend_from_slice(value);
        Place { start, length: value.len() }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// The JSON text of `rows`, made of numbers and texts.
pub(crate) fn json(rows: &impl Serialize) -> String {
    serde_json::to_string(rows).expect("numbers and texts are always JSON")
}

/// The items of `query` in the form that the statements read: the tags and names of each.
pub(crate) fn items<'q>(query: &'q EventQuery) -> Vec<(Vec<&'q str>, Vec<&'q str>)> {
    let tags_and_names = |item: &'q QueryItem| {
        (item.tags.iter().map(Tag::as_str).collect(), item.names.iter().map(|name| &**name).collect())
    };
    query.items().iter().map(tags_and_names).collect()
}
