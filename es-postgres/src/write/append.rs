//! An append on its way, and what may become of it.

use es_core::{
    Append, AppendError, Appended, Position, Version,
    backend::{InvalidAppend, Remembered, Verdict},
};

use crate::error::Verdictless;

/// What an event weighs in queues and batches beside its bytes.
const EVENT_OVERHEAD_BYTES: usize = 256;

/// An append that has passed its checks, with all that is computed of it once.
pub(crate) struct Prepared {
    pub(crate) append: Append,
    pub(crate) remembered: Option<Remembered>,
    pub(crate) metadata: Vec<Option<Vec<u8>>>,
    /// What it weighs.
    pub(crate) bytes: usize,
}

impl Prepared {
    pub(crate) fn new(append: Append) -> Result<Self, InvalidAppend> {
        append.validate()?;
        Ok(Self::checked(append))
    }

    /// For an append that was checked together with others.
    pub(crate) fn checked(mut append: Append) -> Self {
        for event in &mut append.events {
            // The same tag twice is one tag.
            event.tags.sort_unstable();
            event.tags.dedup();
        }
        let remembered = append.remembered();
        let metadata: Vec<_> = append.events.iter().map(|event| event.metadata.encode()).collect();
        let payloads: usize = append.events.iter().map(|event| event.bytes() + EVENT_OVERHEAD_BYTES).sum();
        let bytes = payloads + metadata.iter().flatten().map(Vec::len).sum::<usize>();
        Self { append, remembered, metadata, bytes }
    }

    /// The verdict on this append where it is an entry of its own.
    pub(crate) fn verdict(&self, failure: Failed) -> Verdict {
        let Failed { status, version, position } = failure;
        match status {
            Failed::CONFLICT => Verdict::Refused(self.append.conflict(version).into()),
            Failed::REPEATED => Verdict::Repeated(Appended { version, position, repeated: true }),
            Failed::KEY_REUSED => Verdict::Refused(AppendError::KeyReused),
            Failed::CONDITION => Verdict::Refused(AppendError::ConditionFailed { position }),
            Failed::NOT_ALONE => Verdict::Possible,
            other => Verdict::Refused(AppendError::Store(Verdictless(other).into())),
        }
    }
}

/// What became of an entry of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// It was written behind this version of its stream and this position of the log.
    Written { version: Version, position: Position },
    /// It was not.
    Failed(Failed),
}

/// Why an entry was not written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Failed {
    pub(crate) status: i32,
    pub(crate) version: Version,
    pub(crate) position: Position,
}

impl Failed {
    pub(crate) const CONFLICT: i32 = 1;
    const REPEATED: i32 = 2;
    const KEY_REUSED: i32 = 3;
    const CONDITION: i32 = 4;
    /// It could have been, but not together with its group.
    const NOT_ALONE: i32 = 5;
    /// There was no row for it; the database never says so.
    pub(crate) const MISSING: i32 = -1;
}
