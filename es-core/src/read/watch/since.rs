//! Where a watch begins.

use std::{fmt, str::FromStr};

use crate::stream::{InvalidToken, Position, ReadToken};

/// What the caller of a watch knows already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Since {
    /// Nothing: the current state comes first.
    #[default]
    Now,
    /// What it has written: only later changes come.
    Write(ReadToken),
    /// The changes up to this one, of an earlier watch of the same documents.
    Change(ChangeToken),
}

impl From<ReadToken> for Since {
    fn from(token: ReadToken) -> Self {
        Self::Write(token)
    }
}

impl From<ChangeToken> for Since {
    fn from(token: ChangeToken) -> Self {
        Self::Change(token)
    }
}

/// `None` is [`Since::Now`].
impl From<Option<ChangeToken>> for Since {
    fn from(token: Option<ChangeToken>) -> Self {
        token.map_or(Self::Now, Self::Change)
    }
}

/// Where a watch was. As text (`3.p17`) it is given to clients.
///
/// It names the generation: a client that holds documents of one that was replaced meanwhile must begin with the current state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChangeToken {
    /// The id of the reader ([`Generation::reader`](crate::Generation::reader)) whose generation was watched.
    pub generation: i64,
    /// All changes up to this position were returned.
    pub position: Position,
}

impl fmt::Display for ChangeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, ReadToken(self.position))
    }
}

impl FromStr for ChangeToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let (generation, token) = text.split_once('.').ok_or(InvalidToken)?;
        let generation = generation.parse().map_err(|_| InvalidToken)?;
        Ok(Self { generation, position: token.parse::<ReadToken>()?.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_without_a_token_begins_now() {
        let token = ChangeToken { generation: 3, position: Position::new(17) };
        assert!(matches!(Since::from(Some(token)), Since::Change(same) if same == token));
        assert!(matches!(Since::from(None::<ChangeToken>), Since::Now));
    }

    #[test]
    fn a_token_is_read_from_its_text() {
        let token = ChangeToken { generation: 3, position: Position::new(17) };
        assert_eq!(token.to_string(), "3.p17");
        assert_eq!("3.p17".parse(), Ok(token));
        for text in ["", "p17", "3.17", "x.p17", "3.p"] {
            assert_eq!(text.parse::<ChangeToken>(), Err(InvalidToken), "{text}");
        }
    }
}
