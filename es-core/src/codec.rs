//! Values as JSON and back: a value is written only if what was written is read as an equal one.
//!
//! JSON has no infinity and no `Some(None)`, and a type may leave fields out. So whatever is to be kept (events,
//! documents, states) is read back at once and compared (R14). Which field it was is looked for only then.

mod diagnosis;
mod misfit;
mod place;
pub(crate) mod text;
#[cfg(test)]
mod tests;
mod tree;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::misfit::Misfit;
use crate::error::BoxError;

/// How deep the JSON of an event, a document or a state may be nested. Any decoder reads it, within an envelope too.
pub const MAX_NESTING: usize = 100;

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

/// The JSON of `value`, if it is read as an equal value.
pub(crate) fn encode<T>(what: &'static str, value: &T) -> Result<Bytes, EncodeError>
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    encode_as(what, value, value, |text| decode(text))
}

/// The JSON that `form` writes for `value`, if `read` makes an equal value of it.
pub(crate) fn encode_as<T, E>(
    what: &'static str,
    value: &T,
    form: &impl Serialize,
    read: impl FnOnce(&[u8]) -> Result<T, E>,
) -> Result<Bytes, EncodeError>
where
    T: PartialEq,
    E: Unread,
{
    let mut text = Vec::with_capacity(128);
    let (field, reason) = if serde_json::to_writer(&mut text, form).is_err() {
        (None, Unencodable::Refused)
    } else if text::check_nesting(&text).is_err() {
        return Err(EncodeError { what, field: None, reason: Unencodable::TooDeep });
    } else {
        match read(&text) {
            Ok(same) if same == *value => return Ok(text.into()),
            Ok(_) => (None, Unencodable::Different),
            Err(error) => (error.field().map(str::to_owned), Unencodable::Unreadable(error.into())),
        }
    };
    let suspects = !matches!(reason, Unencodable::Different);
    let found = diagnosis::find(form, false).or_else(|| diagnosis::find(form, true).filter(|_| suspects));
    Err(match found {
        Some((place, reason)) => EncodeError { what, field: place.text(), reason },
        None => EncodeError { what, field, reason },
    })
}

/// Why a text that was just written was not read.
pub(crate) trait Unread: Into<BoxError> {
    /// The field that does not fit.
    fn field(&self) -> Option<&str>;
}

impl Unread for Misfit {
    fn field(&self) -> Option<&str> {
        self.field()
    }
}

/// The value that `text` is the JSON of.
///
/// # Errors
/// [`Misfit`] says in which field it does not fit, and nothing of what is there.
pub fn decode<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, Misfit> {
    serde_json::from_slice(text).map_err(|error| Misfit::of::<T>(text, &error))
}
