//! Why engines stop.

use std::{fmt, time::Duration};

use crate::{
    codec::{EncodeError, Misfit},
    counted::counted,
    error::BoxError,
    event::Recorded,
    read::{
        read_model::{CommitError, InvalidFieldValue, Pause, PromoteError, ReadModelError, Shard, Taken},
        source::SourceError,
        tables::store::CreateTablesError,
    },
    schema::DecodeError,
    stream::Position,
};

/// The event at which an engine stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// Its place in the log.
    pub position: Position,
    /// Its stream and version.
    pub event: String,
}

impl Location {
    pub(crate) fn of<D>(event: &Recorded<D>) -> Self {
        Self { position: event.position, event: format!("{}@{}", event.stream, event.version) }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at position {}", self.event, self.position)
    }
}

/// Why a projector, a rebuild or a policy stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The source cannot deliver.
    #[error("the source delivers no events")]
    Source(#[from] SourceError),
    /// The read model store failed.
    #[error(transparent)]
    Store(#[from] ReadModelError),
    /// Another worker has taken a shard.
    #[error("another worker has taken shard {0}")]
    Fenced(Shard),
    /// A dead letter was edited or discarded while it was handled again.
    #[error("a dead letter under the key {0:?} has changed while it was handled again")]
    Edited(String),
    /// The generation that it kept no longer serves.
    #[error("the generation was replaced by another one")]
    Replaced,
    /// The read model was fed by another source, or in another number of shards, and these shards have reached different positions.
    /// So there is no one position from which this source could continue. Run the former program until its shards have read the
    /// same, which takes a moment in which no client writes; or rebuild the read model, which may begin in any number of shards. (A
    /// policy cannot be rebuilt.)
    #[error(
        "the reader was fed by another source or in another number of shards, which have reached different positions, so \
         it cannot continue from {0:?}: let the former program run while no client writes, until all shards have read the same, \
         and then start this one; or, if it is a read model, `rebuild` it, which may begin from any source and number of shards"
    )]
    OtherSource(String),
    /// The read model was fed by another source, or in another number of shards, and some of its keys are parked. It is not known
    /// from which of the several shards of this source their events come. Retry or discard the dead letters first, or rebuild the
    /// read model.
    #[error(
        "the reader was fed by another source or in another number of shards and has parked keys, so it cannot continue \
         from {0:?}: retry or discard the dead letters first, or, if it is a read model, `rebuild` it"
    )]
    ParkedKeys(String),
    /// A newer version of the projection serves or is being built: this program is too old for it.
    /// [`Projector::rebuild`](crate::Projector::rebuild) makes this version serve again.
    #[error("version {newer} of the read model serves or is being built, this program folds version {ours}")]
    Outdated {
        /// The newer version.
        newer: u32,
        /// [`Projection::VERSION`](crate::Projection::VERSION) of this program.
        ours: u32,
    },
    /// An operator has replaced this version of the projection by an older one.
    /// [`Projector::rebuild`](crate::Projector::rebuild) makes this version serve again.
    #[error("version {serving} serves on purpose and version {ours} was withdrawn; a rebuild makes it serve again")]
    Withdrawn {
        /// The version that serves.
        serving: u32,
        /// [`Projection::VERSION`](crate::Projection::VERSION) of this program.
        ours: u32,
    },
    /// The generation that was being rebuilt is gone: an operator has cancelled the rebuild, or a later one has discarded or replaced
    /// it.
    #[error("an operator or a later rebuild has discarded the new generation, or a later rebuild has replaced it")]
    Discarded,
    /// What keeps the read model or checkpoint of this name was defined in another way: two
    /// projections or policies share the name, or the definition was changed.
    #[error(
        "{name:?} is kept by another definition, {stored:?}, than this program's, {ours:?}: give it another NAME or, if it \
         is the same projection and was changed, a higher VERSION"
    )]
    OtherDefinition {
        /// The name.
        name: &'static str,
        /// The other definition.
        stored: String,
        /// The definition in this program.
        ours: String,
    },
    /// Instances of a saga are under way under versions that this program neither runs nor migrates. Deploy code whose
    /// [`Saga::VERSIONS`](crate::Saga::VERSIONS) has them, or with a [`Saga::migrate`](crate::Saga::migrate) for them.
    #[error(
        "instances of the saga {saga} are under way under other versions than this program runs ({known:?}): {}",
        instances.join(", ")
    )]
    SagaVersions {
        /// The saga.
        saga: &'static str,
        /// The versions that this program runs.
        known: &'static [u32],
        /// The first of the instances, with their versions.
        instances: Vec<String>,
    },
    /// The projection declares [`EventOrder::PerStream`](crate::EventOrder::PerStream) and listens to more than one category.
    #[error("a projection in per-stream order listens to exactly one category")]
    NotPerStream,
    /// The projection has [unique](crate::Field::unique) fields and was to be folded in several shards. Each shard goes on by itself,
    /// so a document could get a value before another one has lost it.
    #[error("a read model with unique fields is folded in one shard")]
    UniqueInShards,
    /// An event cannot be read (R14).
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The record of another system cannot be read as it is declared.
    #[error("{event} cannot be read: {reason}")]
    Unreadable {
        /// The event that stands for the record.
        event: Location,
        /// Why, without values of the record.
        reason: String,
    },
    /// The engine stood by at an event that this program does not know, and no program passed it in time. Deploy the code that
    /// writes the event. If that code is lost, deploy code with an event of this name and schema version (or of a later version
    /// with an upcaster from it); its fold may do nothing.
    #[error(
        "{} v{} at position {} has kept the worker standing by for {} s and no program has passed it: deploy code that \
         knows this event, or a later version of it with an upcaster from this one",
        reason.name, reason.schema_version, reason.position, waited.as_secs()
    )]
    NeverKnown {
        /// How long it was waited for.
        waited: Duration,
        /// The event, and what this program does not know of it.
        #[source]
        reason: Box<DecodeError>,
    },
    /// A key breaks the rules of [`Projection::keys`](crate::Projection::keys), or, in per-stream order, is not the id of
    /// the event's stream.
    #[error("{event} names the key {key:?}, which is not valid for it")]
    Key {
        /// The key.
        key: String,
        /// The event.
        event: Location,
    },
    /// A dead letter names documents, and not the one under whose key it is parked, because it was edited or the projection was
    /// changed. Edit it again, or discard it: a rebuild folds the event into the documents that it names.
    #[error("{event} names other keys than {key:?}, under which it is parked: edit or discard the letter")]
    OtherKeys {
        /// The key under which it is parked.
        key: String,
        /// The event.
        event: Location,
    },
    /// An event contradicts its document.
    #[error("{event} cannot be folded into {key:?}")]
    Unfoldable {
        /// The document's key.
        key: String,
        /// The event.
        event: Location,
        /// The projection's own error.
        #[source]
        reason: BoxError,
    },
    /// A table projection cannot write an event.
    #[error("{event} cannot be written into the tables")]
    Unwritten {
        /// The event, or the first of several that were to be written together.
        event: Location,
        /// How many events were to be written.
        events: usize,
        /// The error of the projection, or of the database.
        #[source]
        reason: BoxError,
    },
    /// The tables of a table projection cannot be made. Nothing was changed.
    #[error("the tables cannot be made")]
    Tables(#[source] CreateTablesError),
    /// A stored document does not have the form that the code expects.
    #[error("the document {key:?} does not fit; was the projection's version increased when its form changed?")]
    Document {
        /// Its key.
        key: String,
        /// In what way.
        #[source]
        reason: Misfit,
    },
    /// A document would be read back as another value. The events before the one that caused it are committed.
    #[error("the document {key:?} of {projection} would not be read as it was written")]
    Unwritable {
        /// Of which projection.
        projection: &'static str,
        /// Its key.
        key: String,
        /// Which field, and why.
        #[source]
        reason: EncodeError,
    },
    /// A document would have a value of a field that no store can keep. The events before the one that caused it are committed.
    #[error("the document {key:?} of {projection} has no valid value of its field {field:?}")]
    FieldValue {
        /// Of which projection.
        projection: &'static str,
        /// Its key.
        key: String,
        /// The field's name.
        field: &'static str,
        /// Why.
        #[source]
        reason: InvalidFieldValue,
    },
    /// After the event two documents would have the same value of a [unique](crate::Field::unique) field.
    #[error(
        "{event} gives the document {:?} the value of the unique field {:?} that the document {:?} has",
        taken.key, taken.field, taken.other
    )]
    NotUnique {
        /// The event.
        event: Location,
        /// The documents, and the field.
        taken: Taken,
    },
    /// An event touches documents of more bytes than one commit may write. Spread what it changes over several
    /// events, keep less in a document, or raise
    /// [`Projector::document_bytes`](crate::Projector::document_bytes).
    #[error(
        "{event} touches {} of {} or more; one commit may write {limit}",
        counted(*documents, "document"), counted(*bytes, "byte")
    )]
    TooLarge {
        /// The event.
        event: Location,
        /// How many documents it touches.
        documents: usize,
        /// How many bytes of them were counted before the engine stopped.
        bytes: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The fold of an event, or the reaction to it, took longer than the reader's time limit. A fold is not interrupted: it was
    /// measured after it had returned.
    #[error("{event} took {} ms; the time limit is {} ms", took.as_millis(), limit.as_millis())]
    TooSlow {
        /// The event.
        event: Location,
        /// How long it took.
        took: Duration,
        /// The limit.
        limit: Duration,
    },
    /// An event that failed cannot be parked: its keys are not known, so neither is what must wait for it. Mend the code, or skip
    /// the event ([`Operations::skip`](crate::Operations::skip)).
    #[error("{event} cannot be parked, because its keys are not known: deploy code that handles it, or skip the event")]
    Unparkable {
        /// The event.
        event: Location,
        /// Why it failed.
        #[source]
        reason: Box<EngineError>,
    },
    /// An event that failed is not forwarded, since its source has not taken it. If that may pass, the event is tried again.
    #[error("{event} cannot be forwarded after it has failed ({}: {failure})", failure.class())]
    NotForwarded {
        /// The event.
        event: Location,
        /// Why it failed.
        failure: Box<EngineError>,
        /// Why the source has not taken it.
        #[source]
        reason: SourceError,
    },
    /// The reader has as many dead letters as it may have, and the event is another one.
    #[error("{event} is one dead letter too many: the reader may have {limit}")]
    TooManyLetters {
        /// The event.
        event: Location,
        /// How many there may be.
        limit: usize,
    },
    /// An operator has paused the reader.
    #[error("paused by {} since {}: {}", _0.actor, _0.at, _0.reason)]
    Paused(Pause),
    /// The application's code panicked: the projection, the policy, or what reads and writes their events and
    /// documents. The panic hook of the process has printed the message and the place.
    #[error("the code that handles {event} panicked")]
    Panicked {
        /// The event.
        event: Location,
    },
    /// The rebuilt generation could not be promoted.
    #[error("the new generation cannot be promoted")]
    Promote(#[source] PromoteError),
    /// A policy could not react.
    #[error("no reaction to {event}")]
    Reaction {
        /// The event.
        event: Location,
        /// Whether trying again may help, as the policy says.
        transient: bool,
        /// The error of the policy.
        #[source]
        reason: BoxError,
    },
}

impl EngineError {
    /// Whether only another program can continue: newer code, as in a rolling deploy, or the version that an operator has chosen.
    /// Workers stand by meanwhile.
    pub(crate) fn awaits_newer_code(&self) -> bool {
        match self {
            Self::Outdated { .. } | Self::Withdrawn { .. } => true,
            Self::Decode(error) => error.reason.is_of_newer_code(),
            _ => false,
        }
    }

    /// Whether it is the failure of one event, which the [`FailurePolicy`](crate::FailurePolicy) decides on.
    pub(crate) fn is_of_event(&self) -> bool {
        match self {
            Self::Decode(_)
            | Self::Unreadable { .. }
            | Self::Key { .. }
            | Self::OtherKeys { .. }
            | Self::Unfoldable { .. }
            | Self::Unwritten { .. }
            | Self::Unwritable { .. }
            | Self::FieldValue { .. }
            | Self::NotUnique { .. }
            | Self::TooLarge { .. }
            | Self::TooSlow { .. }
            | Self::Panicked { .. } => true,
            Self::Reaction { transient, .. } => !transient,
            _ => false,
        }
    }

    /// Whether no further attempt of this program can succeed, since it fails before the application's code is called.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self, Self::Decode(_) | Self::Unreadable { .. })
    }

    /// In one word, what kind of failure of an event it is: for headers and metrics.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Decode(error) if error.reason.is_of_newer_code() => "unknown-type",
            Self::Decode(_) => "undecodable",
            Self::Unreadable { .. } => "unreadable",
            Self::Reaction { .. } => "refused",
            Self::TooSlow { .. } => "too-slow",
            Self::Panicked { .. } => "panicked",
            _ => "other",
        }
    }

    /// The key of the document that failed, if it is that of one.
    pub(crate) fn key(&self) -> Option<&str> {
        match self {
            Self::Unfoldable { key, .. } | Self::Unwritable { key, .. } | Self::FieldValue { key, .. } => Some(key),
            Self::NotUnique { taken, .. } => Some(&taken.key),
            _ => None,
        }
    }

    /// Whether waiting and trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Source(error) | Self::NotForwarded { reason: error, .. } => error.is_transient(),
            Self::Store(error) => error.is_transient(),
            Self::Fenced(_) | Self::Edited(_) | Self::Replaced => true,
            Self::Promote(error) => error.is_transient(),
            Self::Reaction { transient, .. } => *transient,
            _ => false,
        }
    }
}

impl From<CommitError> for EngineError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Fenced(shard) => Self::Fenced(shard),
            CommitError::Edited(key) => Self::Edited(key),
            CommitError::Taken(taken) => {
                Self::NotUnique { event: Location { position: Position::ZERO, event: "a commit".to_owned() }, taken }
            }
            CommitError::Store(error) => Self::Store(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_failure_of_one_document_names_a_key() {
        let event = Location { position: Position::new(7), event: "account-a@1".to_owned() };
        let of_one = EngineError::Unfoldable { key: "a".to_owned(), event: event.clone(), reason: "no".into() };
        assert_eq!(of_one.key(), Some("a"));
        let taken = Taken { field: "email".to_owned(), key: "b".to_owned(), other: "c".to_owned() };
        assert_eq!(EngineError::NotUnique { event: event.clone(), taken }.key(), Some("b"));
        assert_eq!(EngineError::Panicked { event }.key(), None);
    }
}
