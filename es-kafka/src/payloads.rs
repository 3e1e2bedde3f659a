//! Events as they come from Kafka, with their payloads.

use bytes::Bytes;
use es_core::{RecordedEvent, backend::SourceError};
use rdkafka::Message;
use tokio::runtime::Handle;

use crate::{
    claim::Claim,
    claim_check::{ClaimCheck, ClaimError},
    record,
};

/// Gets the payloads that are in object storage, for threads that wait for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Payloads(Option<(ClaimCheck, Handle)>);

impl Payloads {
    /// Those of `declared`.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(crate) fn new(declared: Option<&ClaimCheck>) -> Self {
        Self(declared.map(|declared| (declared.clone(), Handle::current())))
    }

    /// The whole event that a record holds. It may wait for the object storage: not to be called by a task.
    ///
    /// # Errors
    /// [`SourceError::Damaged`]; what becomes of a [`ClaimError`].
    pub(crate) fn decode(&self, record: &impl Message) -> Result<RecordedEvent, SourceError> {
        let parsed = record::parse(record);
        let (mut event, claim) =
            parsed.map_err(|reason| SourceError::Damaged { place: record::place(record), reason })?;
        if let Some(claim) = claim {
            event.data.payload = self.get(&claim, &record::place(record))?;
        }
        Ok(event)
    }

    /// The payload of the record at `place`.
    pub(crate) fn get(&self, claim: &Claim, place: &str) -> Result<Bytes, ClaimError> {
        let Some((declared, runtime)) = &self.0 else {
            let (place, object) = (place.to_owned(), claim.reference.clone());
            return Err(ClaimError::Undeclared { place, object });
        };
        runtime.block_on(declared.get(claim, place))
    }
}

/// The event that a record holds, if all of it is in the record.
///
/// # Errors
/// [`SourceError::Damaged`] names topic, partition, offset and what is wrong. [`SourceError::Refused`] with
/// [`ClaimError::Undeclared`] if its payload is in object storage.
pub fn decode(record: &impl Message) -> Result<RecordedEvent, SourceError> {
    Payloads::default().decode(record)
}
