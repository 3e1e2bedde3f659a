//! The place between one page of found documents and the next.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::read::{
    cursor::InvalidCursor,
    read_model::{FieldPlace, FieldValue},
};

/// The last document of a page by its value and key, and the generation of the read model. As text it is given to clients. It holds
/// the value of that document's field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldCursor {
    pub(super) generation: i64,
    pub(super) field: String,
    pub(super) place: FieldPlace,
}

/// `3.customer.0.3.adaorder-7`: the length in bytes tells the text from the key.
impl fmt::Display for FieldCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, field, place: FieldPlace { value: FieldValue { number, text }, key } } = self;
        write!(f, "{generation}.{field}.{number}.{}.{text}{key}", text.len())
    }
}

impl FromStr for FieldCursor {
    type Err = InvalidCursor;

    fn from_str(cursor: &str) -> Result<Self, InvalidCursor> {
        let mut parts = cursor.splitn(5, '.');
        let mut part = || parts.next().ok_or(InvalidCursor);
        let generation = part()?.parse().map_err(|_| InvalidCursor)?;
        let field = part()?.to_owned();
        let number = part()?.parse().map_err(|_| InvalidCursor)?;
        let length = part()?.parse().map_err(|_| InvalidCursor)?;
        let (text, key) = part()?.split_at_checked(length).ok_or(InvalidCursor)?;
        if cursor.contains('\0') {
            // Not every store can compare it.
            return Err(InvalidCursor);
        }
        let value = FieldValue { number, text: text.to_owned() };
        Ok(Self { generation, field, place: FieldPlace { value, key: key.to_owned() } })
    }
}

impl Serialize for FieldCursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FieldCursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_travel_as_text() {
        for (number, text, key) in
            [(0, "ada.l", "order.7"), (-12, "", "a"), (i64::MAX, "", "ü"), (0, "", ""), (0, "ü", "")]
        {
            let value = FieldValue { number, text: text.to_owned() };
            let place = FieldPlace { value, key: key.to_owned() };
            let cursor = FieldCursor { generation: 12, field: "customer".to_owned(), place };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for text in
            ["", "3.a", "12.name.0.2.ü", "12.name.0.9.short", "x.name.0.1.a", "12.name.x.1.a", "12.name.0.1.a\0"]
        {
            assert_eq!(text.parse::<FieldCursor>().is_err(), text != "12.name.0.2.ü", "{text}");
        }
        assert_eq!("12.name.0.1.ü".parse::<FieldCursor>(), Err(InvalidCursor));
    }
}
