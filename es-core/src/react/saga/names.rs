//! The names that follow from the name of a saga.

use std::marker::PhantomData;

use super::Saga;
use crate::read::definition;

/// The longest name of a saga: with a prefix it is the name of a reader, or of a category.
const MOST: usize = 50;

/// What the names of categories of instances begin with.
pub(super) const CATEGORY: &str = "saga_";
/// What the names of read models of instances begin with.
pub(super) const OVERVIEW: &str = "saga-";
/// What the names of performers begin with.
pub(super) const PERFORMER: &str = "perform-";

/// The names of what belongs to the saga `S`.
pub(super) struct Names<S>(PhantomData<S>);

struct Text {
    bytes: [u8; 64],
    len: usize,
}

impl Text {
    /// `prefix` and `name`, with `dash` for each `-` of the name.
    const fn of(prefix: &str, name: &str, dash: u8) -> Self {
        let (prefix, name) = (prefix.as_bytes(), name.as_bytes());
        let (mut bytes, mut len) = ([0; 64], 0);
        while len < prefix.len() {
            bytes[len] = prefix[len];
            len += 1;
        }
        let mut at = 0;
        while at < name.len() {
            bytes[len] = if name[at] == b'-' { dash } else { name[at] };
            (len, at) = (len + 1, at + 1);
        }
        Self { bytes, len }
    }

    const fn as_str(&self) -> &str {
        let (text, _) = self.bytes.split_at(self.len);
        match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(_) => panic!("names are ASCII"),
        }
    }
}

impl<S: Saga> Names<S> {
    const CHECKED: &'static str = {
        assert!(
            definition::is_name(S::NAME) && S::NAME.len() <= MOST,
            "Saga::NAME must be 1 to 50 bytes of a-z, 0-9 and '-'"
        );
        S::NAME
    };
    const CATEGORY_TEXT: &'static Text = &Text::of(CATEGORY, Self::CHECKED, b'_');
    const OVERVIEW_TEXT: &'static Text = &Text::of(OVERVIEW, Self::CHECKED, b'-');
    const PERFORMER_TEXT: &'static Text = &Text::of(PERFORMER, Self::CHECKED, b'-');

    /// The category of its streams.
    pub(super) const CATEGORY: &'static str = Self::CATEGORY_TEXT.as_str();
    /// The read model of its instances.
    pub(super) const OVERVIEW: &'static str = Self::OVERVIEW_TEXT.as_str();
    /// The reader that performs its actions.
    pub(super) const PERFORMER: &'static str = Self::PERFORMER_TEXT.as_str();
}
