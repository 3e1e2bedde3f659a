//! Data of `CloudEvents` that are in object storage, where a relay has put them.

use bytes::Bytes;
use es_core::backend::SourceError;

use super::record::Record;
use crate::{claim::Claim, claim_check::ClaimError, payloads::Payloads, record::place_of};

/// The data of `record`, if they are not in its value; within, why they cannot be had: then the record cannot be read.
///
/// # Errors
/// If the object storage does not answer, or refuses this reader.
pub(super) fn data(record: &Record<'_>, payloads: &Payloads) -> Result<Option<Result<Bytes, String>>, SourceError> {
    if record.value.is_some_and(|value| !value.is_empty()) {
        return Ok(None);
    }
    let claim = match Claim::read(|name| record.optional(name)) {
        Ok(Some(claim)) => claim,
        Ok(None) => return Ok(None),
        Err(reason) => return Ok(Some(Err(format!("its data are elsewhere, and {reason}")))),
    };
    let place = place_of(record.topic, record.partition, record.offset);
    // No reason repeats the header: another system has written it.
    let reason = match payloads.get(&claim, &place) {
        Ok(data) => return Ok(Some(Ok(data))),
        Err(ClaimError::Undeclared { .. }) => "its data are in object storage, and none is declared".to_owned(),
        Err(ClaimError::Missing { .. }) => "its data are in object storage, and the object is not there".to_owned(),
        Err(ClaimError::Changed { found, .. }) => {
            format!("its data are in object storage, and the object is another one: {found}")
        }
        Err(error) => return Err(error.into()),
    };
    Ok(Some(Err(reason)))
}
