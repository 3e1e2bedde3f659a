//! An append on its way.

use es_core::{
    Append,
    backend::{InvalidAppend, Remembered},
};

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
}
