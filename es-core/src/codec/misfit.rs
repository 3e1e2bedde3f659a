//! Why a text is not a value of its type, without quoting the text: it may hold a megabyte, or personal data.

use std::fmt::{self, Display};

use super::{misread::Misread, tree::Tree};

/// A JSON text is not a value of its type: the place, and the reason. It holds no values of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit(Box<Where>);

/// Boxed, since errors are moved more often than they are read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Where {
    field: Option<String>,
    reason: String,
    line: usize,
    column: usize,
}

impl Misfit {
    /// The field that does not fit, for example `lines[2].price`; a key of a map is written as `{}`.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The part of serde's message about `text` that comes from code. It reads the text again to find the place.
    pub(super) fn of<'de, T: serde::Deserialize<'de>>(text: &'de [u8], error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let (field, reason) = if error.is_data() {
            match Tree::read(text).and_then(|tree| tree.misfit::<T>()) {
                Some(Misread { place, reason }) => (place.text(), reason),
                None => (None, "it has another form".to_owned()),
            }
        } else {
            // For a text that is no JSON, the parser's messages are fixed.
            let message = error.to_string();
            let fixed = message.rsplit_once(" at line ").map_or(message.as_str(), |(fixed, _)| fixed);
            (None, fixed.to_owned())
        };
        Self(Box::new(Where { field, reason, line, column }))
    }
}

impl Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Where { field, reason, line, column } = &*self.0;
        if let Some(field) = field {
            write!(f, "{field}: ")?;
        }
        f.write_str(reason)?;
        match line {
            0 => Ok(()),
            line => write!(f, " at line {line} column {column}"),
        }
    }
}

impl std::error::Error for Misfit {}
