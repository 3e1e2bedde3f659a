//! What becomes of an entry of a batch.

use es_core::{Append, AppendError, Appended, Position, Version, backend::Verdict};

use crate::error::UnexpectedAnswer;

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    /// It was written after this version of its stream and this position of the log.
    Written { version: Version, position: Position },
    /// It was not.
    Failed(Failed),
}

/// Why an entry was not written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Failed {
    /// Its stream is not as expected.
    Conflict { actual: Version },
    /// It was written before, with this outcome.
    Repeated { version: Version, position: Position },
    /// Its idempotency key was used by another command.
    KeyReused,
    /// This event matches its condition.
    Condition { matched: Position },
    /// It could have been written, but not together with its group.
    NotAlone,
}

impl Failed {
    /// As `append_batch()` says it.
    pub(crate) fn of_status(status: i32, version: i64, position: Option<i64>) -> Result<Self, UnexpectedAnswer> {
        let version = Version::from_i64(version);
        match (status, position.map(Position::from_i64)) {
            (1, _) => Ok(Self::Conflict { actual: version }),
            (2, Some(position)) => Ok(Self::Repeated { version, position }),
            (3, _) => Ok(Self::KeyReused),
            (4, Some(position)) => Ok(Self::Condition { matched: position }),
            (5, _) => Ok(Self::NotAlone),
            _ => Err(UnexpectedAnswer::Status(status)),
        }
    }

    /// The verdict on `append` where that is an entry of its own.
    pub(crate) fn verdict(self, append: &Append) -> Verdict {
        match self {
            Self::Conflict { actual } => Verdict::Refused(append.conflict(actual).into()),
            Self::Repeated { version, position } => Verdict::Repeated(Appended { version, position, repeated: true }),
            Self::KeyReused => Verdict::Refused(AppendError::KeyReused),
            Self::Condition { matched: position } => Verdict::Refused(AppendError::ConditionFailed { position }),
            Self::NotAlone => Verdict::Possible,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn r4_a_status_that_has_no_meaning_is_an_error() {
        assert_eq!(Failed::of_status(1, 7, None).unwrap(), Failed::Conflict { actual: Version::new(7) });
        let condition = Failed::of_status(4, 0, Some(9)).unwrap();
        assert_eq!(condition, Failed::Condition { matched: Position::new(9) });
        assert!(matches!(Failed::of_status(4, 0, None), Err(UnexpectedAnswer::Status(4))));
        for status in [-1, 0, 6] {
            assert!(matches!(Failed::of_status(status, 0, Some(1)), Err(UnexpectedAnswer::Status(_))));
        }
    }
}
