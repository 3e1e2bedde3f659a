//! Errors of reading stored events.

use uuid::Uuid;

use crate::{
    codec::{Misfit, Unread},
    stream::{Position, StreamId, Version},
};

/// An event that cannot be read: it names the event and the reason (R14).
#[derive(Debug, thiserror::Error)]
#[error("cannot decode {name} v{schema_version} at position {position} (stream {stream}, version {version})")]
pub struct DecodeError {
    /// The stream that holds it.
    pub stream: StreamId,
    /// Its version in the stream.
    pub version: Version,
    /// Its position in the log.
    pub position: Position,
    /// Its id.
    pub event_id: Uuid,
    /// Its stored wire name.
    pub name: String,
    /// Its stored schema version.
    pub schema_version: u32,
    /// The reason.
    #[source]
    pub reason: Undecodable,
}

/// Why stored bytes are not an event of the expected type.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Undecodable {
    /// No variant carries this wire name.
    #[error("no event of this type has the wire name {0:?}")]
    UnknownName(String),
    /// The schema version is newer than the code, or its upcaster is missing.
    #[error("schema version {found} has no upcaster (current: {current})")]
    UnknownVersion {
        /// The stored version.
        found: u32,
        /// The version that the code writes.
        current: u32,
    },
    /// The payload does not have the shape of its schema version.
    #[error("the payload does not fit")]
    Shape(#[source] Misfit),
    /// The stored metadata does not have the form that Evenfold writes.
    #[error("the metadata does not fit")]
    Metadata(#[source] Misfit),
}

impl Undecodable {
    /// Whether newer code may have written the event: it has a name or a schema version that this program does not know.
    pub(crate) fn is_of_newer_code(&self) -> bool {
        match self {
            Self::UnknownName(_) => true,
            Self::UnknownVersion { found, current } => found > current,
            _ => false,
        }
    }
}

impl Unread for Undecodable {
    fn field(&self) -> Option<&str> {
        match self {
            Self::Shape(misfit) | Self::Metadata(misfit) => misfit.field(),
            _ => None,
        }
    }
}
