//! Why a text is not a value of its type, said without a word of the text: it may hold a megabyte, or personal data.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use super::{
    place::{Place, Step},
    tree::Tree,
};

/// A JSON text that is not a value of the type that was asked for: where, and in what way. It holds nothing of
/// the text's own values.
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

    /// What serde said about `text`, as far as it comes from code. It reads the text again to find the place.
    pub(super) fn of<'de, T: serde::Deserialize<'de>>(text: &'de [u8], error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let (field, reason) = if error.is_data() {
            match Tree::read(text).and_then(|tree| tree.misfit::<T>()) {
                Some(Misread { place, reason }) => (place.text(), reason),
                None => (None, "it has another form".to_owned()),
            }
        } else {
            // Of a text that is no JSON the parser's messages are fixed.
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

/// The error of the second reading: what serde is told about a value, without the value.
#[derive(Debug)]
pub(super) struct Misread {
    place: Place,
    reason: String,
}

impl Misread {
    fn new(reason: String) -> Self {
        Self { place: Place::default(), reason }
    }

    pub(super) fn within(mut self, step: Step) -> Self {
        self.place.within(step);
        self
    }
}

impl Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Misread {}

impl de::Error for Misread {
    /// An application's own words may repeat what they complain of.
    fn custom<T: Display>(_: T) -> Self {
        Self::new("its type refuses the value".to_owned())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("invalid type: {}, expected {expected}", kind(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("invalid value: {}, expected {expected}", kind(found)))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::new(format!("invalid length {length}, expected {expected}"))
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown variant, expected one of {}", list(expected)))
    }

    fn unknown_field(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("unknown field, expected one of {}", list(expected)))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("missing field `{field}`"))
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(format!("duplicate field `{field}`"))
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What kind of value it is, without the value.
fn kind(found: Unexpected<'_>) -> &'static str {
    match found {
        Unexpected::Bool(_) => "a boolean",
        Unexpected::Unsigned(_) | Unexpected::Signed(_) => "an integer",
        Unexpected::Float(_) => "a number",
        Unexpected::Char(_) | Unexpected::Str(_) => "a string",
        Unexpected::Bytes(_) => "bytes",
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a list",
        Unexpected::Map | Unexpected::NewtypeStruct => "an object",
        _ => "a value of an enum",
    }
}
