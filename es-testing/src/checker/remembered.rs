//! The commands with a key whose appends are in the log.

use std::collections::HashMap;

use super::{
    evidence::Evidence,
    sent::{Key, Sent},
};
use es_core::StreamId;

/// An append under a key that is in the log: the rank of its first event, and the number of its events.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remembered<'a> {
    pub(super) key: &'a Key,
    pub(super) rank: u64,
    pub(super) events: usize,
}

/// These commands by stream and key.
pub(super) type Keys<'a> = HashMap<(&'a StreamId, &'a str), Remembered<'a>>;

/// The commands of all appends that are in the log.
pub(super) fn keys<'a>(evidence: &Evidence<'a>) -> Keys<'a> {
    let mut keys = Keys::new();
    for write in &evidence.writes {
        if let (Some((stream, key)), Some(rank)) = (write.key(), evidence.log.rank(write.first())) {
            keys.insert((stream, &key.key), Remembered { key, rank, events: write.sent.events.len() });
        }
    }
    keys
}

/// The command that has the key of `sent`.
pub(super) fn key_of<'a>(keys: &Keys<'a>, sent: &Sent) -> Option<Remembered<'a>> {
    keys.get(&(&sent.stream, sent.key.as_ref()?.key.as_str())).copied()
}
