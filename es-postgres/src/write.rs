//! From an append to its position.

pub(crate) mod append;
pub(crate) mod batch;
pub(crate) mod parcel;
pub(crate) mod writer;
pub(crate) mod delivery;
pub(crate) mod appender;
pub(crate) mod statements;
pub(crate) mod blockers;
pub(crate) mod append_in;
