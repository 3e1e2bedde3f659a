//! Events that are too large for their topics are found before they are published.

use std::collections::VecDeque;

use es_core::{RecordedEvent, backend::MAX_METADATA_BYTES};

use super::{
    create::TopicMaker,
    failure::{RelayError, Suspect},
};
use crate::{config::RelayConfig, record};

/// What the client takes of a record, unless it is told otherwise.
pub(super) const CLIENT_LIMIT: u32 = 1_048_576;

/// The names of streams and events, and what a record says beside them and the payload, with what metadata grow by as headers.
const AROUND: usize = 4_096 + 2 * MAX_METADATA_BYTES;

/// The largest record that a relay's client takes, before it is compressed.
pub(super) fn client_limit(config: &RelayConfig) -> u64 {
    let told = config.settings.get("message.max.bytes").and_then(|bytes| bytes.parse().ok());
    let declared = config.routes.settings().chain([&config.topics]).filter_map(|settings| settings.max_message_bytes);
    told.unwrap_or_else(|| declared.fold(CLIENT_LIMIT, u32::max).into())
}

/// Leaves in `batch` what can be published together, and gives the rest back to `pending`.
///
/// An event that may be too large for its topic is alone in its transaction: then the brokers' answer is about it. Whether they take it
/// depends on how far it can be compressed.
///
/// # Errors
/// If the first event is larger than the relay's client accepts. Those before it were published.
pub(super) fn split(
    batch: &mut Vec<RecordedEvent>,
    pending: &mut VecDeque<RecordedEvent>,
    maker: &TopicMaker,
    config: &RelayConfig,
) -> Result<(), RelayError> {
    let client = client_limit(config);
    let topics = config.names();
    let is_large = |event: &RecordedEvent, limit: u64| {
        let rough = event.data.payload.len() + AROUND;
        exceeds(rough, limit)
            && topics.publishes(event.stream.category())
            && exceeds(record::size(event, &config.source, config.claim_check.as_ref()), limit)
    };
    let limit = |event: &RecordedEvent| maker.limit(event.stream.category()).map_or(client, |topic| topic.min(client));
    let Some(large) = batch.iter().position(|event| is_large(event, limit(event))) else { return Ok(()) };
    if large == 0 && is_large(&batch[0], client) {
        return Err(Suspect::of(&batch[0], maker, config).too_large_for_client());
    }
    for event in batch.drain(large.max(1)..).rev() {
        pending.push_front(event);
    }
    Ok(())
}

fn exceeds(bytes: usize, limit: u64) -> bool {
    u64::try_from(bytes).unwrap_or(u64::MAX) > limit
}
