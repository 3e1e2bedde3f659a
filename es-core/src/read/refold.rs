//! Folding again from the log, beside the projector: for documents as of a moment, and to verify a read model.

mod as_of;
mod heal;
#[cfg(test)]
mod tests;
mod verify;
mod what_if;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

pub(crate) use self::{as_of::as_of, heal::heal, verify::verify, what_if::what_if};
pub use self::{
    as_of::{DocumentAsOf, Moment},
    verify::{Difference, Verified},
    what_if::{Alternative, Alternatives, Hindered, WhatIf},
};
use crate::{
    counted::counted,
    event::RecordedEvent,
    read::{
        engine_error::{EngineError, Location},
        panics::{Panicked, caught},
        projection::{EventOrder, Projection},
        projector::{
            self,
            unique::{Owners, UniqueValues},
        },
        read_model::{Exceptions, GenerationSet, ReadModelError, ReadModelStore, Reader, Treatment},
        touch::touch_with,
    },
    stream::Position,
    write::store::{EventStore, ReadError},
};

/// How many events are read at a time.
const PAGE: usize = 1_000;

/// About how many bytes a document takes in memory beside what is written of it.
const ENTRY: usize = 128;

/// Each of so many first folds measures the size of its document, and later one of [`MEASURED`].
const MEASURED_FIRST: usize = 16;

/// A prime number, so that documents that take turns are measured in turn. Large documents are written for that, so it is seldom.
const MEASURED: usize = 1_021;

/// Called with each key whose document an event has changed, and with the document.
type Seen<'a, D> = &'a mut (dyn FnMut(&str, Option<&D>) + Send);

/// What the reader of `projection` does with events otherwise than to handle them as the log has them: the generation that serves if
/// it has this version, else the one that is being built.
async fn exceptions_of<P: Projection>(store: &dyn ReadModelStore) -> Result<Exceptions, ReadModelError> {
    let found: GenerationSet = store.generations(P::NAME).await?;
    match found.iter().find(|progress| progress.generation.version == P::VERSION) {
        Some(progress) => store.exceptions(&progress.generation.reader).await,
        None => Ok(Exceptions::default()),
    }
}

/// Which documents are compared, and with which log.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) log: &'a dyn EventStore,
    /// Where the documents are.
    pub(crate) store: &'a dyn ReadModelStore,
    /// The part of all keys that is compared, always the same ones.
    pub(crate) share: f64,
    /// About how many bytes of documents are kept in memory.
    pub(crate) limit: usize,
}

/// The fold of the log up to a position, of the documents under some keys, as a reader folds it.
pub(crate) struct Refold<'a, P: Projection> {
    projection: &'a P,
    log: &'a dyn EventStore,
    wanted: Box<dyn Fn(&str) -> bool + Send + Sync + 'a>,
    exceptions: Exceptions,
    /// Whether it goes on where the shards of some keys have not come. An event that cannot be folded there ends the fold of its key:
    /// perhaps the reader will park it.
    is_ahead: bool,
    /// The keys whose folds have ended so, each with the event and why. Their documents are those before the event.
    ended: BTreeMap<String, (Position, EngineError)>,
    /// The values of unique fields, if they are looked at. The fold of a key ends at an event that would give it the value of another
    /// one.
    owners: Option<Owners>,
    at: Position,
    /// The keys that wait, each with the first event that was not folded.
    waiting: BTreeMap<String, Position>,
    /// The documents up to this key are not needed any more.
    done: Option<String>,
    /// Those after this key did not fit into memory.
    until: Option<String>,
    documents: BTreeMap<String, Option<P::Document>>,
    /// About how many bytes they may have.
    limit: usize,
    /// The mean size of a document, of those measured last.
    mean: usize,
    folds: usize,
}

impl<'a, P: Projection> Refold<'a, P> {
    pub(crate) fn new(
        projection: &'a P,
        log: &'a dyn EventStore,
        wanted: impl Fn(&str) -> bool + Send + Sync + 'a,
    ) -> Self {
        Self {
            projection,
            log,
            wanted: Box::new(wanted),
            exceptions: Exceptions::default(),
            is_ahead: false,
            ended: BTreeMap::new(),
            owners: None,
            at: Position::ZERO,
            waiting: BTreeMap::new(),
            done: None,
            until: None,
            documents: BTreeMap::new(),
            limit: usize::MAX,
            mean: 0,
            folds: 0,
        }
    }

    /// Folds as the reader does that makes these `exceptions`.
    fn with(self, exceptions: Exceptions) -> Self {
        Self { exceptions, ..self }
    }

    /// Folds the documents under `keys` further, on the side and ahead, as a reader does that makes these `exceptions`.
    fn aside<'b>(&'b self, keys: BTreeSet<String>, exceptions: &Exceptions) -> Refold<'b, P> {
        let documents = keys.iter().filter_map(|key| self.documents.get_key_value(key));
        let documents = documents.map(|(key, document)| (key.clone(), document.clone())).collect();
        let waiting = self.waiting.iter().filter(|(key, _)| keys.contains(*key));
        let waiting = waiting.map(|(key, first)| (key.clone(), *first)).collect();
        let aside = Refold::new(self.projection, self.log, move |key| keys.contains(key)).with(exceptions.clone());
        Refold { is_ahead: true, at: self.at, documents, waiting, ..aside }
    }

    /// Whether the document under `key` may be compared: not if the key has waited, and no longer does.
    fn is_settled(&self, key: &str) -> bool {
        self.waiting.get(key).is_none_or(|first| self.exceptions.of(key, *first) == Treatment::Wait)
    }

    /// Keeps documents of about so many bytes: if there are more, those with the greatest keys are given up, see `until`.
    fn within(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Whether the document under `key` is one of those that are kept.
    fn keeps(&self, key: &str) -> bool {
        (self.wanted)(key)
            && self.done.as_ref().is_none_or(|done| key > done.as_str())
            && self.until.as_ref().is_none_or(|until| key <= until.as_str())
    }

    /// Folds all events up to position `until`.
    pub(crate) async fn advance(&mut self, until: Position, seen: Seen<'_, P::Document>) -> Result<(), RefoldError> {
        while self.at < until {
            let missing = usize::try_from(until.get() - self.at.get()).unwrap_or(usize::MAX);
            let events = self.log.read_log(self.at, missing.min(PAGE)).await?;
            let Some(last) = events.last() else {
                return Err(RefoldError::ShortLog { reached: until, head: self.at });
            };
            for event in &events {
                self.fold(event, seen)?;
            }
            self.at = last.position;
            // Other tasks of the runtime get a turn.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// As [`advance`](Self::advance), as `reader` does, which has reached `until`.
    async fn go_to(&mut self, until: Position, store: &dyn ReadModelStore, reader: &Reader) -> Result<(), RefoldError> {
        self.exceptions = store.exceptions(reader).await?;
        self.advance(until, &mut |_, _| {}).await
    }

    /// Folds one event, which is the next one of the log or of a stream.
    fn fold(&mut self, event: &RecordedEvent, seen: Seen<'_, P::Document>) -> Result<(), EngineError> {
        let touch = match touch_with(self.projection, event, &self.exceptions) {
            Ok(touch) => touch,
            // In the other order it has no keys, and each shard stops at it, which the exceptions tell of the one that is furthest.
            Err(error) if self.is_ahead && P::ORDER == EventOrder::PerStream => {
                self.end(event.stream.id(), event, error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        for key in &touch.waiting {
            if self.keeps(key) {
                self.waiting.entry(key.clone()).or_insert(event.position);
            }
        }
        let panicked = |_: Panicked| EngineError::Panicked { event: Location::of(event) };
        let mut changed = Vec::new();
        let folded = caught(|| {
            for (key, content) in touch.folds() {
                if !self.keeps(key) || self.ended.contains_key(key) {
                    continue;
                }
                let document = self.documents.entry(key.clone()).or_default();
                let before = self.is_ahead.then(|| document.clone());
                let folded = caught(|| projector::fold(self.projection, key, document, content));
                match (folded.map_err(panicked).flatten(), before) {
                    (Ok(()), Some(before)) => changed.push((key.clone(), before)),
                    (Ok(()), None) => {}
                    (Err(error), Some(before)) => {
                        *document = before;
                        self.end(key, event, error);
                        continue;
                    }
                    (Err(error), None) => return Err(error),
                }
                seen(key, document.as_ref());
                self.folds += 1;
                if self.folds <= MEASURED_FIRST || self.folds.is_multiple_of(MEASURED) {
                    let size = document.as_ref().map_or(0, |document| encoded_bytes::<P>(key, document));
                    self.mean = if self.folds == 1 { size } else { (self.mean * 15 + size) / 16 };
                }
                self.shrink();
            }
            Ok(())
        });
        folded.map_err(panicked).flatten()?;
        self.settle(event, changed)
    }

    /// The fold of `key` ends before `event`.
    fn end(&mut self, key: &str, event: &RecordedEvent, error: EngineError) {
        if self.keeps(key) {
            self.ended.entry(key.to_owned()).or_insert((event.position, error));
        }
    }

    /// Ends the folds of those of the documents that `event` has `changed`, here as they were before, that would have the value of another
    /// one in a unique field.
    fn settle(
        &mut self,
        event: &RecordedEvent,
        mut changed: Vec<(String, Option<P::Document>)>,
    ) -> Result<(), EngineError> {
        let Some(owners) = &mut self.owners else { return Ok(()) };
        let values = |key: &str| {
            let document = self.documents.get(key).and_then(Option::as_ref);
            UniqueValues::in_document::<P>(document)
        };
        let documents = caught(|| changed.iter().map(|(key, _)| (key.as_str(), values(key))).collect());
        let documents = documents.map_err(|_: Panicked| EngineError::Panicked { event: Location::of(event) })?;
        for taken in owners.settle(documents) {
            let key = taken.key.clone();
            if let Some(nth) = changed.iter().position(|(changed, _)| *changed == key) {
                self.documents.insert(key.clone(), changed.swap_remove(nth).1);
            }
            self.end(&key, event, EngineError::NotUnique { event: Location::of(event), taken });
        }
        Ok(())
    }

    /// Gives up half of the documents if they are too many, those with the greatest keys.
    fn shrink(&mut self) {
        let count = self.documents.len();
        if count > 1 && (self.mean + ENTRY).saturating_mul(count) > self.limit {
            let middle = self.documents.keys().nth(count / 2).cloned().unwrap_or_default();
            drop(self.documents.split_off(&middle));
            self.until = self.documents.keys().next_back().cloned();
        }
    }

    fn document(&self, key: &str) -> Option<&P::Document> {
        self.documents.get(key)?.as_ref()
    }

    /// The document under `key` as a store would keep it.
    fn encoded(&self, key: &str) -> Result<Option<Bytes>, EngineError> {
        self.document(key).map(|document| projector::encode::<P>(key, document)).transpose()
    }
}

/// How many bytes are written of a document under `key`; of one that cannot be written now the next event may change that.
fn encoded_bytes<P: Projection>(key: &str, document: &P::Document) -> usize {
    key.len() + serde_json::to_vec(document).map_or(0, |text| text.len())
}

/// Why a read model could not be folded again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefoldError {
    /// No projection of this name is registered.
    #[error("the service has no read model {name:?}; it has {known:?}")]
    Unknown {
        /// The name that was given.
        name: String,
        /// The names that are registered.
        known: Vec<String>,
    },
    /// The read model is [live](crate::ServiceBuilder::live): it has no documents that could differ from the log, and it is folded up to
    /// another moment by [`as_of_named`](crate::Service::as_of_named) alone.
    #[error("{name} is a live read model: it is folded from the log at each read, and nothing of it is stored")]
    Live {
        /// The name of the projection.
        name: &'static str,
    },
    /// A version was named, and a document of this read model gathers events of several streams: each has versions of its own.
    #[error(
        "the documents of {name} have no versions, since they gather events of several streams: name a position or a time"
    )]
    NoVersions {
        /// The name of the projection.
        name: &'static str,
    },
    /// The stream has no such version.
    #[error("the stream of {key:?} has {} and no version {version}", counted(*found, "event"))]
    NoSuchVersion {
        /// The key of the document, which is the id of the stream.
        key: String,
        /// The version that was named.
        version: u64,
        /// How many events the stream has.
        found: u64,
    },
    /// The read model is kept in tables, which have no documents.
    #[error("{name} is kept in tables: it has no documents to fold again")]
    NoDocuments {
        /// The name of the table projection.
        name: &'static str,
    },
    /// The log has no such event.
    #[error("the log has no position {position}: it ends at {head}")]
    NoSuchPosition {
        /// The position that was named.
        position: Position,
        /// The last position of the log.
        head: Position,
    },
    /// No generation of the read model serves.
    #[error("no generation of the read model serves yet")]
    NotServing,
    /// Another version of the projection serves.
    #[error("version {serving} of the read model serves, and this program folds version {ours}")]
    OtherVersion {
        /// The version that serves.
        serving: u32,
        /// The version of this program.
        ours: u32,
    },
    /// More documents are wrong than are mended one by one: rebuild the read model. Nothing was written.
    #[error("more than {most} documents differ: rebuild the read model")]
    TooManyDiffer {
        /// How many are mended at most.
        most: usize,
    },
    /// The partitions of its source have reached different positions, and it is not known which documents each of them feeds. They
    /// reach the same one in a moment in which no client writes: mend the documents then, or rebuild the read model. Nothing was
    /// written.
    #[error(
        "the partitions of its source have reached positions from {least} to {greatest}, and it is not known which documents \
         each of them feeds: they can be mended when all have reached the same one"
    )]
    Uneven {
        /// The position of the slowest partition.
        least: Position,
        /// The position of the fastest one.
        greatest: Position,
    },
    /// The worker handles events faster than they are folded again, so the documents were not mended: mend them when clients write
    /// less, or rebuild the read model. What was mended before, in other shards, stays.
    #[error("the worker of the read model handles events faster than they can be folded again")]
    TooFast,
    /// Another generation was promoted meanwhile.
    #[error("the generation was replaced meanwhile")]
    Replaced,
    /// The read model has reached a position that the log has not: the log was restored from an older copy.
    #[error(
        "the read model has reached position {reached}, and the log ends at {head}: it was restored from an older copy"
    )]
    ShortLog {
        /// The position of the read model.
        reached: Position,
        /// The last position of the log.
        head: Position,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] ReadError),
    /// The documents cannot be read.
    #[error(transparent)]
    ReadModel(#[from] ReadModelError),
    /// An event cannot be folded.
    #[error(transparent)]
    Fold(#[from] EngineError),
    /// An event that was added to the history, and that the log does not have, cannot be folded.
    #[error("the added event, {event}, cannot be folded")]
    Added {
        /// Its name, schema version and stream.
        event: String,
        /// Why; the version and the position of the event are those that it would have.
        #[source]
        cause: Box<EngineError>,
    },
    /// The live read model does not say how the events of a document are found by an index.
    #[error("the events of a document of the live read model {name} are found by no index")]
    NotIndexed {
        /// The name of the projection.
        name: &'static str,
    },
}

impl RefoldError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotServing | Self::Replaced | Self::Uneven { .. } | Self::TooFast => true,
            Self::Log(error) => error.is_transient(),
            Self::ReadModel(error) => error.is_transient(),
            Self::Fold(error) => error.is_transient(),
            Self::Added { cause, .. } => cause.is_transient(),
            _ => false,
        }
    }
}
