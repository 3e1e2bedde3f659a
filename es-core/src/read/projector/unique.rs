//! The values of unique fields while documents are in memory: an event is refused as it would be if each had a commit of its own.

mod owners;

use std::collections::HashMap;

pub(crate) use self::owners::Owners;
use crate::{
    event::Recorded,
    read::{
        engine_error::{EngineError, Location},
        projection::Projection,
        read_model::{FieldChange, FieldValue},
    },
};

/// The values of the documents that are in memory. Of the others the store knows. Without unique fields it stays empty.
#[derive(Debug, Default)]
pub(crate) struct UniqueValues {
    owners: Owners,
    /// The values that a document has had after an event since it was written last.
    passed: HashMap<String, Vec<Value>>,
}

/// A value of a field.
type Value = (&'static str, FieldValue);

/// The key of the document that failed, and why.
pub(crate) type Unsettled = (String, Box<EngineError>);

impl UniqueValues {
    pub(crate) fn are_declared<P: Projection>() -> bool {
        P::FIELDS.iter().any(|field| field.is_unique())
    }

    /// Those of `document`.
    pub(crate) fn in_document<P: Projection>(document: Option<&P::Document>) -> Vec<Value> {
        let fields = P::FIELDS.iter().filter(|field| field.is_unique());
        document.map_or(Vec::new(), |document| {
            fields.filter_map(|field| Some((field.name(), field.value(document)?))).collect()
        })
    }

    /// Those of which `changes` tell.
    pub(crate) fn in_changes(changes: &[FieldChange]) -> Vec<Value> {
        let changes = changes.iter().filter(|change| change.is_unique);
        changes.filter_map(|change| Some((change.field, change.value.clone()?))).collect()
    }

    /// A document as it is stored.
    pub(crate) fn learn(&mut self, key: &str, values: Vec<Value>) {
        self.owners.learn(key, values);
    }

    /// The documents of `event`, after all of them have it: they may have exchanged values.
    ///
    /// # Errors
    /// The key of the document that would get the value of another one.
    pub(crate) fn settle<E>(
        &mut self,
        event: &Recorded<E>,
        documents: Vec<(&str, Vec<Value>)>,
    ) -> Result<(), Unsettled> {
        let keys: Vec<_> = documents.iter().map(|(key, _)| *key).collect();
        if let Some(taken) = self.owners.settle(documents).into_iter().next() {
            let key = taken.key.clone();
            return Err((key, Box::new(EngineError::NotUnique { event: Location::of(event), taken })));
        }
        for key in keys {
            let passed = self.passed.entry(key.to_owned()).or_default();
            passed.extend(
                self.owners.of(key).iter().filter(|value| !passed.contains(value)).cloned().collect::<Vec<_>>(),
            );
        }
        Ok(())
    }

    /// Adds to `changes`, those of the document under `key`, which values it had in between: no document in the store may have
    /// these either.
    pub(crate) fn add_passed(&mut self, key: &str, changes: &mut [FieldChange]) {
        for (field, value) in self.passed.remove(key).unwrap_or_default() {
            if let Some(change) =
                changes.iter_mut().find(|change| change.field == field && change.value.as_ref() != Some(&value))
            {
                change.passed.push(value);
            }
        }
    }

    /// How many documents have values.
    pub(crate) fn len(&self) -> usize {
        self.owners.len()
    }
}
