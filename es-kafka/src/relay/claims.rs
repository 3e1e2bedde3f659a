//! Large payloads are in object storage before the transaction begins that publishes their events.

use std::collections::{BTreeMap, VecDeque};

use es_core::{Position, RecordedEvent};
use futures_util::future::join_all;

use super::failure::{Failure, NotPut, RelayError};
use crate::{
    claim::Claim,
    claim_check::{ClaimCheck, remedy},
    config::RelayConfig,
    topics::Topics,
};

/// What the records of some events say of their payloads.
pub(crate) type Claims = BTreeMap<Position, Claim>;

/// How many payloads are put at once.
const AT_ONCE: usize = 8;

/// Puts the payloads of `batch` that are over the threshold into object storage. If that fails for one of them, this one and those after
/// it go back to `pending`.
///
/// # Errors
/// If it fails for the first event. Those before it were published.
pub(super) async fn put(
    batch: &mut Vec<RecordedEvent>,
    pending: &mut VecDeque<RecordedEvent>,
    config: &RelayConfig,
) -> Result<Claims, Failure> {
    let mut claims = Claims::new();
    let Some(check) = &config.claim_check else { return Ok(claims) };
    let topics = config.names();
    let goes = |event: &RecordedEvent| check.takes(event) && topics.publishes(event.stream.category());
    let large: Vec<_> = (0..batch.len()).filter(|index| goes(&batch[*index])).collect();
    for some in large.chunks(AT_ONCE) {
        let mut puts = Vec::with_capacity(some.len());
        for index in some {
            puts.push(put_one(check, &topics, &batch[*index]));
        }
        for (index, put) in some.iter().zip(join_all(puts).await) {
            match put {
                Ok(claim) => _ = claims.insert(batch[*index].position, claim),
                Err(failure) if *index == 0 => return Err(failure),
                Err(_) => {
                    for event in batch.drain(*index..).rev() {
                        pending.push_front(event);
                    }
                    return Ok(claims);
                }
            }
        }
    }
    Ok(claims)
}

async fn put_one(check: &ClaimCheck, topics: &Topics, event: &RecordedEvent) -> Result<Claim, Failure> {
    let topic = topics.events(event.stream.category());
    check.put(&topic, event).await.map_err(|error| {
        let (position, object) = (event.position, ClaimCheck::object(&topic, event));
        match remedy(&error) {
            Some(remedy) => {
                Failure::Final(RelayError::ObjectStorage { position, object, remedy, source: error.into() })
            }
            None => Failure::Transient(NotPut { position, object, source: error.into() }.into()),
        }
    })
}
