//! A state and what it is recognised by, as one value of a column.

use bytes::Bytes;
use es_core::{
    StreamId, Version,
    backend::{Ending, Snapshot},
};

/// A state with what it is known by.
pub(crate) fn seal(snapshot: &Snapshot) -> Vec<u8> {
    [&snapshot.state_version.to_be_bytes(), &snapshot.checksum.to_be_bytes(), &snapshot.state[..]].concat()
}

/// The snapshot whose state was sealed; `None` where a row holds what no version of this crate writes, since a damaged
/// snapshot is none (R8).
pub(crate) fn open(stream: &StreamId, version: i64, last: Ending, sealed: &[u8]) -> Option<Snapshot> {
    let (state_version, sealed) = sealed.split_first_chunk()?;
    let (checksum, state) = sealed.split_first_chunk()?;
    Some(Snapshot {
        stream: stream.clone(),
        version: u64::try_from(version).ok().filter(|version| *version > 0).map(Version::new)?,
        last,
        state_version: u32::from_be_bytes(*state_version),
        checksum: u32::from_be_bytes(*checksum),
        state: Bytes::copy_from_slice(state),
    })
}
