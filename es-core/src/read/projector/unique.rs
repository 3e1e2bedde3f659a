//! The values of unique fields while documents are in memory: an event is refused as it would be if each had a commit of its own.

use std::collections::HashMap;

use crate::{
    event::Recorded,
    read::{
        engine_error::{EngineError, Location},
        projection::Projection,
        read_model::{FieldChange, FieldValue, Taken},
    },
};

/// The values of the documents that are in memory. Of the others the store knows. Without unique fields it stays empty.
#[derive(Debug, Default)]
pub(crate) struct UniqueValues {
    /// Whose each value is.
    owners: HashMap<Value, String>,
    of: HashMap<String, Vec<Value>>,
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
        for value in &values {
            self.owners.insert(value.clone(), key.to_owned());
        }
        self.of.insert(key.to_owned(), values);
    }

    /// The documents of `event`, after all of them have it: they may have exchanged values. After a failure it may hold half of the
    /// event.
    ///
    /// # Errors
    /// The key of the document that would get the value of another one.
    pub(crate) fn settle<E>(
        &mut self,
        event: &Recorded<E>,
        documents: Vec<(&str, Vec<Value>)>,
    ) -> Result<(), Unsettled> {
        for (key, _) in &documents {
            for value in self.of.remove(*key).unwrap_or_default() {
                self.owners.remove(&value);
            }
        }
        for (key, values) in documents {
            for value in &values {
                if let Some(other) = self.owners.insert(value.clone(), key.to_owned()) {
                    let taken = Taken { field: value.0.to_owned(), key: key.to_owned(), other };
                    let failure = EngineError::NotUnique { event: Location::of(event), taken };
                    return Err((key.to_owned(), Box::new(failure)));
                }
            }
            let passed = self.passed.entry(key.to_owned()).or_default();
            passed.extend(values.iter().filter(|value| !passed.contains(value)).cloned().collect::<Vec<_>>());
            self.of.insert(key.to_owned(), values);
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
        self.of.len()
    }
}
