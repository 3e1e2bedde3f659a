//! The fields of documents in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use crate::read::read_model::{DeclaredField, FieldChange, FieldKind, FieldPlace, FieldScan, FieldValue, Taken};

/// The fields of one generation.
#[derive(Debug, Default)]
pub(super) struct FieldIndex {
    declared: BTreeMap<&'static str, FieldKind>,
    /// The places of each field in their order.
    places: BTreeMap<&'static str, BTreeSet<FieldPlace>>,
    /// The place of each document in each of its fields.
    by_key: BTreeMap<(String, &'static str), FieldPlace>,
}

impl FieldIndex {
    pub(super) fn declare(&mut self, fields: &[DeclaredField]) {
        self.declared = fields.iter().map(|field| (field.name, field.kind)).collect();
    }

    /// Whether it has the field of `scan`.
    pub(super) fn has(&self, scan: &FieldScan) -> bool {
        self.declared.get(scan.field) == Some(&scan.kind)
    }

    /// The places that `scan` covers, in its order.
    pub(super) fn covered(&self, scan: &FieldScan) -> Box<dyn Iterator<Item = &FieldPlace> + '_> {
        let Some(places) = self.places.get(scan.field).filter(|_| scan.after < scan.before) else {
            return Box::new(std::iter::empty());
        };
        let covered = places.range((Bound::Excluded(&scan.after), Bound::Excluded(&scan.before)));
        if scan.is_descending { Box::new(covered.rev()) } else { Box::new(covered) }
    }

    /// The values of the document under `key`, by the names of its fields.
    pub(super) fn of(&self, key: &str) -> BTreeMap<String, FieldValue> {
        let entries = self.by_key.range((key.to_owned(), "")..).take_while(|((of, _), _)| of == key);
        entries.map(|((_, field), place)| ((*field).to_owned(), place.value.clone())).collect()
    }

    /// The first of `changes` whose value another document has and keeps.
    pub(super) fn taken(&self, changes: &[FieldChange]) -> Option<Taken> {
        let is_written = |key: &str, field| changes.iter().any(|change| change.key == key && change.field == field);
        FieldChange::taken_twice(changes).or_else(|| {
            let claims = changes.iter().flat_map(|change| change.claims().map(move |value| (change, value)));
            claims.into_iter().find_map(|(change, value)| {
                let from = FieldPlace { value: value.clone(), key: String::new() };
                let same = self.places.get(change.field)?.range(from..).take_while(|place| place.value == *value);
                let other = same.map(|place| &place.key).find(|key| !is_written(key, change.field))?;
                let (field, key, other) = (change.field.to_owned(), change.key.clone(), other.clone());
                Some(Taken { field, key, other })
            })
        })
    }

    pub(super) fn write(&mut self, changes: Vec<FieldChange>) {
        for FieldChange { key, field, value, .. } in changes {
            let places = self.places.entry(field).or_default();
            if let Some(former) = self.by_key.remove(&(key.clone(), field)) {
                places.remove(&former);
            }
            if let Some(value) = value {
                let place = FieldPlace { value, key: key.clone() };
                places.insert(place.clone());
                self.by_key.insert((key, field), place);
            }
        }
    }
}
