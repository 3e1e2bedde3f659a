//! Values as JSON and back: a value is written only if its JSON is read as an equal value.
//!
//! JSON has no infinity and no `Some(None)`, and a type may leave fields out. So what will be stored (events,
//! documents, states) is read back at once and compared (R14). Only if the values differ, the field is searched.

mod diagnosis;
mod misfit;
mod misread;
mod place;
mod refusal;
pub(crate) mod text;
#[cfg(test)]
mod tests;
mod tree;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::{
    misfit::Misfit,
    refusal::{EncodeError, Unencodable},
};
use crate::error::BoxError;

/// The JSON of `value`, if it is read as an equal value.
pub(crate) fn encode<T>(what: &'static str, value: &T) -> Result<Bytes, EncodeError>
where
    T: Serialize + DeserializeOwned + PartialEq,
{
    encode_as(what, value, value, |text| decode(text))
}

/// The JSON that `form` writes for `value`, if `read` returns an equal value for it.
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
            // What is kept takes no more than it needs.
            Ok(same) if same == *value => return Ok(text.into_boxed_slice().into()),
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

/// The value whose JSON is `text`.
///
/// # Errors
/// [`Misfit`] says which field does not fit. It holds no values.
pub fn decode<'de, T: Deserialize<'de>>(text: &'de [u8]) -> Result<T, Misfit> {
    serde_json::from_slice(text).map_err(|error| Misfit::of::<T>(text, &error))
}
