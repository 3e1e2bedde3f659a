//! The place between one page of documents and the next.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The last key of a page, and the generation of the read model. As text (`3.order-7`) it is given to clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The generation that served the page: the [id](crate::backend::Reader::id) of its reader.
    pub generation: i64,
    /// The last key of the page.
    pub key: String,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.key)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let (generation, key) = text.split_once('.').ok_or(InvalidCursor)?;
        if key.contains('\0') {
            // No key has it, and not every store can compare it.
            return Err(InvalidCursor);
        }
        Ok(Self { generation: generation.parse().map_err(|_| InvalidCursor)?, key: key.to_owned() })
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The text is not a cursor that a page returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of a read model")]
pub struct InvalidCursor;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_travel_as_text() {
        for key in ["a", "a.b/ü", ""] {
            let cursor = Cursor { generation: 12, key: key.to_owned() };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        // (With NUL it was a cursor: Postgres failed with an error that looked as if trying again could help.)
        for text in ["", "12", "x.a", "p7", "12.a\0"] {
            assert_eq!(text.parse::<Cursor>(), Err(InvalidCursor), "{text}");
        }
    }
}
