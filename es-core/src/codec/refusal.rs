//! Why a value is not written.

use crate::{error::BoxError, limits::MAX_NESTING};

/// A value that would not be read as it was written, and was refused for that (R14). It holds nothing of the value.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be written{}", of_field(self.field.as_deref()))]
#[non_exhaustive]
pub struct EncodeError {
    /// The event's wire name, or the projection's name.
    pub what: &'static str,
    /// The field, for example `lines[2].price`, as far as it can be told; a key of a map is written as `{}`.
    pub field: Option<String>,
    /// Why.
    #[source]
    pub reason: Unencodable,
}

fn of_field(field: Option<&str>) -> String {
    field.map(|field| format!(" because of {field}")).unwrap_or_default()
}

/// Why a value would not be read as it was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unencodable {
    /// A number is infinite or not a number.
    #[error("JSON has no number that is not finite")]
    NotFinite,
    /// `Some` holds what is written as null too, for example `Some(None)`.
    #[error("`Some` of what is written as null is read as `None`")]
    SomeNull,
    /// The keys of a map are not texts, in a place where these cannot be read.
    #[error("the keys of a map here have to be texts")]
    MapKey,
    /// An integer has 128 bits, in a place where these cannot be read.
    #[error("an integer here has 64 bits at most")]
    WideInteger,
    /// It is nested deeper than [`MAX_NESTING`].
    #[error("it is nested deeper than {MAX_NESTING} levels")]
    TooDeep,
    /// Its type refuses to be written.
    #[error("its type refuses to be written")]
    Refused,
    /// What its type writes its type does not read.
    #[error("its type does not read what it writes")]
    Unreadable(#[source] BoxError),
    /// What its type writes is read as another value: a field is left out, say, or loses digits.
    #[error("it is read as another value than was written")]
    Different,
}
