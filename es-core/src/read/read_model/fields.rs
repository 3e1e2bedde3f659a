//! The values that documents are found by, as stores keep them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use bytes::Bytes;

use crate::{counted::counted, limits::MAX_FIELD_BYTES};

/// What the values of a field are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// A text.
    Text,
    /// A whole number.
    Integer,
    /// False or true.
    Boolean,
    /// A time, to the microsecond.
    Timestamp,
}

impl FieldKind {
    /// Its word in stores and definitions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
        }
    }
}

/// The value of a field. All kinds are ordered in one way, as pairs: a text has the number 0; a whole number, 0 or 1 of a boolean, and
/// the microseconds since 1970 of a time have the empty text.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldValue {
    /// The number.
    pub number: i64,
    /// The text, ordered by bytes.
    pub text: String,
}

impl FieldValue {
    /// Whether every store can keep it.
    pub(crate) fn check(&self) -> Result<(), InvalidFieldValue> {
        if self.text.len() > MAX_FIELD_BYTES {
            return Err(InvalidFieldValue::TooLong(self.text.len()));
        }
        if self.text.contains('\0') { Err(InvalidFieldValue::Nul) } else { Ok(()) }
    }

    /// The least value that is not less than this one or, if `is_past`, that is greater. Stored values hold no NUL, which makes that
    /// value a text.
    pub(crate) fn edge(mut self, is_past: bool) -> Self {
        if let Some(nul) = self.text.find('\0') {
            self.text.truncate(nul);
            self.text.push('\u{1}');
        } else if is_past {
            self.text.push('\u{1}');
        }
        self
    }
}

/// Why the value of a field cannot be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidFieldValue {
    /// It has more than [`MAX_FIELD_BYTES`].
    #[error("the text has {0} bytes; a field may have {MAX_FIELD_BYTES}")]
    TooLong(usize),
    /// It holds a NUL character.
    #[error("the text holds a NUL character")]
    Nul,
}

/// A field as a projection declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredField {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub kind: FieldKind,
}

/// What a commit does to one field of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldChange {
    /// The document's key.
    pub key: String,
    /// The field's name.
    pub field: &'static str,
    /// Whether no other document may have the value.
    pub is_unique: bool,
    /// The value from now on; `None`: the document is not found by the field.
    pub value: Option<FieldValue>,
    /// Other values that the document had after an event of this commit, if it is unique: no document that this commit does not
    /// change may have one of these either.
    pub passed: Vec<FieldValue>,
}

impl FieldChange {
    /// The values that no other document may have: those of unique fields.
    pub fn claims(&self) -> impl Iterator<Item = &FieldValue> {
        self.value.iter().chain(&self.passed).filter(|_| self.is_unique)
    }

    /// Two documents to which `changes` give the same value of a unique field. Stores find those that were written before.
    pub fn taken_twice(changes: &[Self]) -> Option<Taken> {
        let mut owners = HashMap::new();
        for change in changes.iter().filter(|change| change.is_unique) {
            let Some(value) = &change.value else { continue };
            let owner = *owners.entry((change.field, value)).or_insert(&change.key);
            if *owner != change.key {
                let (field, key, other) = (change.field.to_owned(), change.key.clone(), owner.clone());
                return Some(Taken { field, key, other });
            }
        }
        None
    }
}

/// A value of a unique field that two documents would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The field.
    pub field: String,
    /// The document that was to get the value.
    pub key: String,
    /// The document that has it.
    pub other: String,
}

/// A place in the order of a field: documents are ordered by value, and those of one value by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FieldPlace {
    /// The value.
    pub value: FieldValue,
    /// The key; the empty text stands before all keys.
    pub key: String,
}

/// Documents between two places of a field, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldScan {
    /// The field's name.
    pub field: &'static str,
    /// What its values are.
    pub kind: FieldKind,
    /// The place after which the documents stand.
    pub after: FieldPlace,
    /// The place before which they stand.
    pub before: FieldPlace,
    /// Whether the last of them comes first.
    pub is_descending: bool,
}

/// A document that was found by a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDocument {
    /// Its place.
    pub place: FieldPlace,
    /// Its content.
    pub document: Bytes,
}

/// What is stored under a key: a document, and the values by which it is found.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StoredDocument {
    /// Its content; `None` where no document is stored.
    pub document: Option<Bytes>,
    /// The values that are stored, by the names of their fields.
    pub fields: BTreeMap<String, FieldValue>,
}

impl fmt::Debug for StoredDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Documents may be large, or hold personal data; and so may values.
        write!(
            f,
            "{}, {}",
            counted(self.document.as_ref().map_or(0, Bytes::len), "byte"),
            counted(self.fields.len(), "field")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> FieldValue {
        FieldValue { number: 0, text: text.to_owned() }
    }

    #[test]
    fn what_stands_beside_a_value_is_a_value_that_every_store_can_compare() {
        assert_eq!((text("a").edge(false), text("a").edge(true)), (text("a"), text("a\u{1}")));
        // Nothing that is stored lies between them.
        assert_eq!((text("a\0b").edge(false), text("a\0b").edge(true)), (text("a\u{1}"), text("a\u{1}")));
    }

    #[test]
    fn what_a_store_cannot_keep_is_refused() {
        assert_eq!(text(&"a".repeat(MAX_FIELD_BYTES)).check(), Ok(()));
        let long = text(&"a".repeat(MAX_FIELD_BYTES + 1)).check();
        assert_eq!(long, Err(InvalidFieldValue::TooLong(MAX_FIELD_BYTES + 1)));
        assert_eq!(text("a\0").check(), Err(InvalidFieldValue::Nul));
    }

    #[test]
    fn a_value_that_two_documents_get_at_once_is_found() {
        let change = |key: &str, field, is_unique, value: Option<&str>| FieldChange {
            key: key.to_owned(),
            field,
            is_unique,
            value: value.map(text),
            passed: Vec::new(),
        };
        let fine = [
            change("a", "mail", true, Some("x")),
            change("a", "name", true, Some("x")),
            change("b", "mail", true, Some("y")),
            change("c", "mail", true, None),
            change("d", "mail", true, None),
            change("a", "town", false, Some("z")),
            change("b", "town", false, Some("z")),
        ];
        assert_eq!(FieldChange::taken_twice(&fine), None);
        let twice = [&fine[..], &[change("e", "mail", true, Some("y"))]].concat();
        let taken = Taken { field: "mail".into(), key: "e".into(), other: "b".into() };
        assert_eq!(FieldChange::taken_twice(&twice), Some(taken));
    }
}
