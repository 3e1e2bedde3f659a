//! Secondary fields of documents: what they are found by beside their keys.

use std::fmt;

use chrono::{DateTime, Utc};

use super::read_model::{FieldKind, FieldValue};

/// A value that a document is found by: a name, a type, and a pure function of the document.
///
/// A projection declares its fields in [`Projection::FIELDS`](crate::Projection::FIELDS). Their values are written in the commit
/// that writes the document. Queries name the field again:
///
/// ```
/// use chrono::{DateTime, Utc};
/// use es_core::{Field, Fields};
///
/// #[derive(Clone, PartialEq)]
/// struct Order {
///     number: u32,
///     customer: String,
///     placed_at: DateTime<Utc>,
///     shipped_to: Option<String>,
/// }
///
/// const NUMBER: Field<Order, i64> = Field::new("number", |order: &Order| Some(order.number.into())).unique();
/// const CUSTOMER: Field<Order, String> = Field::new("customer", |order: &Order| Some(order.customer.clone()));
/// const PLACED_AT: Field<Order, DateTime<Utc>> = Field::new("placed_at", |order: &Order| Some(order.placed_at));
/// /// Only orders that were shipped are found by it.
/// const SHIPPED_TO: Field<Order, String> = Field::new("shipped_to", |order: &Order| order.shipped_to.clone());
///
/// const FIELDS: Fields<Order> = &[&NUMBER, &CUSTOMER, &PLACED_AT, &SHIPPED_TO];
/// ```
///
/// A document for which the function returns `None` is not found by the field.
pub struct Field<D, T> {
    name: &'static str,
    of: fn(&D) -> Option<T>,
    is_unique: bool,
}

impl<D, T: FieldType> Field<D, T> {
    /// A field whose value in a document is what `of` returns.
    ///
    /// # Panics
    /// Where `name` is not 1 to 63 bytes of `a-z`, `0-9` and `_` that begin with a letter. In a constant `cargo build` fails.
    pub const fn new(name: &'static str, of: fn(&D) -> Option<T>) -> Self {
        assert!(
            is_name(name),
            "the name of a field must be 1 to 63 bytes of a-z, 0-9 and '_', and begin with a letter"
        );
        Self { name, of, is_unique: false }
    }

    /// No two documents may have the same value. An event after which two have it fails: its
    /// [`FailurePolicy`](crate::FailurePolicy) decides on it ([`EngineError::NotUnique`](crate::EngineError::NotUnique)).
    ///
    /// It is checked after each event, and by the database with each commit, also between workers of several processes. An event may
    /// exchange values between documents.
    #[must_use]
    pub const fn unique(self) -> Self {
        Self { name: self.name, of: self.of, is_unique: true }
    }
}

impl<D, T> Field<D, T> {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }
}

impl<D, T> Clone for Field<D, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D, T> Copy for Field<D, T> {}

impl<D, T> fmt::Debug for Field<D, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field").field("name", &self.name).field("is_unique", &self.is_unique).finish_non_exhaustive()
    }
}

/// The fields of a projection's documents.
pub type Fields<D> = &'static [&'static dyn DocumentField<D>];

/// A [`Field`] of any type.
pub trait DocumentField<D>: fmt::Debug + Send + Sync {
    /// Its name.
    fn name(&self) -> &'static str;
    /// What its values are.
    fn kind(&self) -> FieldKind;
    /// Whether no two documents may have the same value.
    fn is_unique(&self) -> bool;
    /// Its value in `document`.
    fn value(&self, document: &D) -> Option<FieldValue>;
}

impl<D, T: FieldType> DocumentField<D> for Field<D, T> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> FieldKind {
        T::KIND
    }

    fn is_unique(&self) -> bool {
        self.is_unique
    }

    fn value(&self, document: &D) -> Option<FieldValue> {
        (self.of)(document).map(T::into_value)
    }
}

/// A type that the values of a field can have: `String`, ordered by bytes; `i64`; `bool`, with `false` first; `DateTime<Utc>`, to the
/// microsecond. For amounts, count the smallest unit.
pub trait FieldType: sealed::Sealed + 'static {
    /// Its kind.
    const KIND: FieldKind;

    /// The value as stores keep and order it.
    fn into_value(self) -> FieldValue;
}

impl FieldType for String {
    const KIND: FieldKind = FieldKind::Text;

    fn into_value(self) -> FieldValue {
        FieldValue { number: 0, text: self }
    }
}

impl FieldType for i64 {
    const KIND: FieldKind = FieldKind::Integer;

    fn into_value(self) -> FieldValue {
        FieldValue { number: self, text: String::new() }
    }
}

impl FieldType for bool {
    const KIND: FieldKind = FieldKind::Boolean;

    fn into_value(self) -> FieldValue {
        FieldValue { number: self.into(), text: String::new() }
    }
}

impl FieldType for DateTime<Utc> {
    const KIND: FieldKind = FieldKind::Timestamp;

    fn into_value(self) -> FieldValue {
        FieldValue { number: self.timestamp_micros(), text: String::new() }
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for String {}
    impl Sealed for i64 {}
    impl Sealed for bool {}
    impl Sealed for chrono::DateTime<chrono::Utc> {}
}

/// Whether `name` may be that of a field: it becomes the name of a column.
const fn is_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        let may_begin = bytes[index].is_ascii_lowercase();
        if !may_begin && (index == 0 || !matches!(bytes[index], b'0'..=b'9' | b'_')) {
            return false;
        }
        index += 1;
    }
    !bytes.is_empty() && bytes.len() <= 63
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_follow_the_rule() {
        let longest = "a".repeat(63);
        for name in ["a", "placed_at", "line_2", &longest] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "Status", "placed-at", "2nd", "_a", "a.b", "a\"", "é", &format!("{longest}a")] {
            assert!(!is_name(name), "{name}");
        }
    }
}
