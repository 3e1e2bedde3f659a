//! The place between one page and the next.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// The cursor of the read model. It is written in hexadecimal digits, so that clients do not depend on its content.
pub(super) struct Cursor(pub(super) evenfold::Cursor);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.to_string().bytes().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(digits: &str) -> Result<Self, InvalidCursor> {
        let pairs = digits.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        });
        let text = pairs.collect::<Option<_>>().and_then(|bytes| String::from_utf8(bytes).ok());
        text.and_then(|text| text.parse().ok()).map(Self).ok_or(InvalidCursor)
    }
}

/// The text is not a cursor that a page returned.
#[derive(Debug, thiserror::Error)]
#[error("not a cursor of this service")]
pub(super) struct InvalidCursor;
