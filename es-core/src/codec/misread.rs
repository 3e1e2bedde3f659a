//! The error of the second reading, without the value.

use std::fmt::{self, Display};

use serde::de::{self, Expected, Unexpected};

use super::place::{Place, Step};

/// The error of the second reading: what serde reports about a value, without the value.
#[derive(Debug)]
pub(super) struct Misread {
    pub(super) place: Place,
    pub(super) reason: String,
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
    /// The message of an application may repeat the value.
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
        Unexpected::Unit | Unexpected::Option => "null",
        Unexpected::Seq => "a list",
        Unexpected::Map | Unexpected::NewtypeStruct => "an object",
        _ => "a value of an enum",
    }
}
