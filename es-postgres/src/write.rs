//! From an append to its position.

pub(crate) mod append;
pub(crate) mod request;
pub(crate) mod entry;
pub(crate) mod batch;
pub(crate) mod fate;
pub(crate) mod outcome;

pub(crate) mod parcel;
pub(crate) mod writer;
pub(crate) mod delivery;
pub(crate) mod blockers;

pub(crate) mod appender;
pub(crate) mod known;
pub(crate) mod plan;
pub(crate) mod statements;
pub(crate) mod columns;
pub(crate) mod inline;
pub(crate) mod append_in;

pub(crate) mod probe;
