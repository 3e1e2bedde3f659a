//! Where a watch begins.

use std::{fmt, str::FromStr};

use crate::{
    event::RecordedEvent,
    stream::{InvalidToken, Position, ReadToken},
};

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

/// Where a watch was. As text (`3.p17.9c01f2ab`) it is given to clients.
///
/// It names the generation: a client that holds documents of one that was replaced meanwhile must begin with the current state. And it
/// names the event at the position, so a client of another history, from before an older log was restored, must do so too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChangeToken {
    /// The id of the reader ([`Generation::reader`](crate::Generation::reader)) whose generation was watched.
    pub generation: i64,
    /// All changes up to this position were returned.
    pub position: Position,
    /// The last 32 bits of the id of the event there; `None` if the log had none.
    pub witness: Option<u32>,
}

/// What tells an event from others at the same position of other histories.
pub(super) fn witness(event: &RecordedEvent) -> u32 {
    let [.., a, b, c, d] = *event.id.as_bytes();
    u32::from_be_bytes([a, b, c, d])
}

impl fmt::Display for ChangeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, ReadToken(self.position))?;
        self.witness.map_or(Ok(()), |witness| write!(f, ".{witness:08x}"))
    }
}

impl FromStr for ChangeToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let (generation, token) = text.split_once('.').ok_or(InvalidToken)?;
        let generation = generation.parse().map_err(|_| InvalidToken)?;
        let (token, witness) = match token.split_once('.') {
            Some((token, witness)) => {
                // A number may begin with a plus.
                let is_written = witness.len() == 8 && witness.bytes().all(|byte| byte.is_ascii_hexdigit());
                let witness = u32::from_str_radix(witness, 16).ok().filter(|_| is_written);
                (token, Some(witness.ok_or(InvalidToken)?))
            }
            None => (token, None),
        };
        Ok(Self { generation, position: token.parse::<ReadToken>()?.0, witness })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_without_a_token_begins_now() {
        let token = ChangeToken { generation: 3, position: Position::new(17), witness: None };
        assert!(matches!(Since::from(Some(token)), Since::Change(same) if same == token));
        assert!(matches!(Since::from(None::<ChangeToken>), Since::Now));
    }

    #[test]
    fn a_witness_is_the_end_of_the_id_of_an_event() {
        let deposit = || ("a", crate::testing::account::AccountEvent::Deposited { amount: 1 });
        let event = crate::testing::recorded([deposit(), deposit()]).remove(1);
        assert!(event.id.simple().to_string().ends_with(&format!("{:08x}", witness(&event))));
    }

    #[test]
    fn a_token_is_read_from_its_text() {
        let token = ChangeToken { generation: 3, position: Position::new(17), witness: Some(0x0c01_f2ab) };
        let without = ChangeToken { witness: None, ..token };
        for (token, text) in [(token, "3.p17.0c01f2ab"), (without, "3.p17")] {
            assert_eq!(token.to_string(), text);
            assert_eq!(text.parse(), Ok(token));
        }
        for text in ["", "p17", "3.17", "x.p17", "3.p", "3.p17.", "3.p17.c01f2ab", "3.p17.+c01f2ab", "3.p17.0c01f2ab.1"]
        {
            assert_eq!(text.parse::<ChangeToken>(), Err(InvalidToken), "{text}");
        }
    }
}
