//! Payloads that are in object storage.

use es_core::Position;
use serde::Serialize;

use super::{compare::At, error::ReconcileError, violation::Violation};
use crate::{
    claim::Claim,
    claim_check::{ClaimCheck, ClaimError},
    payloads::Payloads,
    record::place_of,
};

/// How many payloads are in object storage, among the events that were compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ComparedObjects {
    /// Those whose objects were read, and are what the relay has put there.
    pub equal: u64,
    /// Those whose objects were not looked at, since no [claim check](crate::RelayConfig::claim_check) is declared. Their records are right.
    pub unknown: u64,
}

/// Looks at objects, one by one.
#[derive(Debug)]
pub(super) struct Objects {
    payloads: Payloads,
    pub(super) compared: ComparedObjects,
}

impl Objects {
    pub(super) fn new(declared: Option<&ClaimCheck>) -> Self {
        Self { payloads: Payloads::new(declared), compared: ComparedObjects::default() }
    }

    /// Whether the object is the one that is claimed. What is claimed was compared with the log.
    pub(super) fn look(
        &mut self,
        claim: &Claim,
        position: Position,
        at: At,
    ) -> Result<Option<Violation>, ReconcileError> {
        let At { topic, partition, offset } = at;
        let (object, found) = match self.payloads.get(claim, &place_of(&topic, partition, offset)) {
            Ok(_) => {
                self.compared.equal += 1;
                return Ok(None);
            }
            Err(ClaimError::Undeclared { .. }) => {
                self.compared.unknown += 1;
                return Ok(None);
            }
            Err(ClaimError::Missing { object, .. }) => (object, "it is not there".to_owned()),
            Err(ClaimError::Changed { object, found, .. }) => (object, found),
            Err(error) => return Err(ReconcileError::ObjectStorage(error)),
        };
        Ok(Some(Violation::Object { position, object, found, topic, partition, offset }))
    }
}
