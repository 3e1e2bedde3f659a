//! Why a value is not written.

use crate::{error::BoxError, limits::MAX_NESTING};

/// A value was refused because it would be read back as another one (R14). The error does not hold the value.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be written{}", of_field(self.field.as_deref()))]
#[non_exhaustive]
pub struct EncodeError {
    /// The event's wire name, or the projection's name.
    pub what: &'static str,
    /// The field, for example `lines[2].price`, as far as it is known; a key of a map is written as `{}`.
    pub field: Option<String>,
    /// The reason.
    #[source]
    pub reason: Unencodable,
}

fn of_field(field: Option<&str>) -> String {
    field.map(|field| format!(" because of {field}")).unwrap_or_default()
}

/// Why a value would be read back as another one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unencodable {
    /// A number is infinite or not a number.
    #[error("JSON has no number that is not finite")]
    NotFinite,
    /// `Some` holds a value that is written as null, for example `Some(None)`.
    #[error("`Some` of a value that is written as null is read as `None`")]
    SomeNull,
    /// The keys of a map are not texts, in a place where other keys cannot be read.
    #[error("the keys of a map here have to be texts")]
    MapKey,
    /// An integer has 128 bits, in a place where only 64 bits can be read.
    #[error("an integer here has 64 bits at most")]
    WideInteger,
    /// It is nested deeper than [`MAX_NESTING`].
    #[error("it is nested deeper than {MAX_NESTING} levels")]
    TooDeep,
    /// Its type refuses to be written.
    #[error("its type refuses to be written")]
    Refused,
    /// Its type cannot read its own JSON.
    #[error("its type cannot read its own JSON")]
    Unreadable(#[source] BoxError),
    /// Its JSON is read as another value: for example, a field is left out or loses digits.
    #[error("its JSON is read as another value")]
    Different,
}
