//! Read models of a service that are folded again from the log: as of a moment, and to verify them.

use super::{Service, engine::AnyProjector};
use crate::read::{
    live::LiveError,
    read_model::Act,
    refold::{Alternatives, Difference, DocumentAsOf, Moment, RefoldError, Verified, WhatIf},
};

impl Service {
    /// The document under `key` of the read model `name`, folded from the log up to `moment`; the stored documents are not touched.
    /// If each document is fed by one stream ([`EventOrder::PerStream`](crate::EventOrder::PerStream)), it reads that stream, and
    /// otherwise the log from its first event. Of a live read model it reads the events of the document.
    ///
    /// # Errors
    /// [`RefoldError`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn as_of_named(&self, name: &str, key: &str, moment: Moment) -> Result<DocumentAsOf, RefoldError> {
        match (self.projector_named(name), self.0.live.iter().find(|(live, _)| *live == name)) {
            (Ok(projector), _) => projector.as_of(&self.store(), key, moment).await,
            (Err(_), Some((_, live))) => live.as_of(key, moment).await.map_err(of_live),
            (Err(RefoldError::Unknown { name, mut known }), None) => {
                // A live read model may have the name of one that is stored.
                for (live, _) in &self.0.live {
                    if !known.iter().any(|stored| stored == live) {
                        known.push((*live).to_owned());
                    }
                }
                Err(RefoldError::Unknown { name, known })
            }
            (Err(error), None) => Err(error),
        }
    }

    /// The documents of the read model `name` that would be others if the history was changed: both are folded from the log, on the
    /// side; nothing is written. It reads the log twice, and keeps only documents in memory of which an event is changed; if the projection
    /// has [unique](crate::Field::unique) fields, all of them.
    ///
    /// An event that cannot be folded into a document after the change is no error: [`Alternatives::hindered`] tells the document, and what
    /// is compared is the document before the event. So is an event that would give a document the value of another one in a unique
    /// field.
    ///
    /// # Errors
    /// [`RefoldError`]; [`RefoldError::Fold`] and [`RefoldError::Added`] also when an event that is replaced or added cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn what_if_named(&self, name: &str, changes: &WhatIf) -> Result<Alternatives, RefoldError> {
        self.projector_named(name)?.what_if(&self.store(), changes).await
    }

    /// Folds the read model `name` again from the log, and tells `report` of each document that differs from what is stored. Its
    /// projector may go on meanwhile. `share` is the part of all keys that is compared, from 0 to 1: always the same ones, chosen
    /// by a hash.
    ///
    /// It reads the log once, and keeps the documents that are not compared yet in memory, up to eight times
    /// [`Projector::document_bytes`](crate::Projector::document_bytes). Of those that do not fit it reads the log again. With a share
    /// of 0.01 it keeps a hundredth of the read model.
    ///
    /// A document that is missing is noticed if one of its events is at or before the position that all shards of the read model have
    /// reached ([`Verified::position`]).
    ///
    /// # Errors
    /// [`RefoldError`].
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn verify_named(
        &self,
        name: &str,
        share: f64,
        report: &mut (dyn FnMut(Difference) + Send),
    ) -> Result<Verified, RefoldError> {
        self.projector_named(name)?.verify(&self.store(), share, report).await
    }

    /// As [`verify_named`](Self::verify_named), and then writes the documents that differ as they follow from the log, with a record
    /// `heal` of `act` for each of them in the same commit (R22). Without a difference nothing is written.
    ///
    /// What an operator has skipped, edited or discarded is heeded as the projector heeds it, and a parked key gets the document
    /// that it had before its first dead letter. The log is folded beside the workers, but for the last thousand events or two: for
    /// these a worker is fenced, one shard after the other, and continues afterwards. No event is lost or repeated (R9). A
    /// [watch](crate::ReadModel::watch) does not notice what is mended, and a table projection has no documents:
    /// [rebuild](Self::rebuild_by) it.
    ///
    /// If the service follows the partitions of Kafka, it is not known which documents each of them feeds, and all workers are fenced
    /// at a moment at which all partitions have reached the same position. It waits two seconds for such a moment, which comes when
    /// no client writes ([`RefoldError::Uneven`]).
    ///
    /// # Errors
    /// [`RefoldError`], among them [`RefoldError::TooManyDiffer`] for more than 1,000 documents. There is a commit for each shard
    /// of the log, and for each 32 MiB of documents; those before an error stay.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each commit undone or done. The leases that it holds expire within 5 s.
    pub async fn heal_named(
        &self,
        name: &str,
        share: f64,
        act: &Act,
        report: &mut (dyn FnMut(Difference) + Send),
    ) -> Result<Verified, RefoldError> {
        let store = self.store();
        self.projector_named(name)?.heal(&store, share, &store, act, report).await
    }

    fn projector_named(&self, name: &str) -> Result<&dyn AnyProjector, RefoldError> {
        let found = self.parts().iter().find(|part| part.name == name).and_then(|part| part.projector());
        found.ok_or_else(|| match self.live_named(name) {
            Some(name) => RefoldError::Live { name },
            None => RefoldError::Unknown { name: name.to_owned(), known: self.read_model_names() },
        })
    }

    /// The name of a live read model, if it has one of this name.
    pub(super) fn live_named(&self, name: &str) -> Option<&'static str> {
        self.0.live.iter().map(|(live, _)| *live).find(|live| *live == name)
    }

    /// The names of its read models, in the order of their registration.
    pub fn read_model_names(&self) -> Vec<String> {
        self.parts().iter().filter(|part| part.projector().is_some()).map(|part| part.name.clone()).collect()
    }
}

fn of_live(error: LiveError) -> RefoldError {
    match error {
        LiveError::Read(error) => error.into(),
        LiveError::Fold(error) => error.into(),
        LiveError::NotIndexed { projection } => RefoldError::NotIndexed { name: projection },
        LiveError::NoVersions { projection } => RefoldError::NoVersions { name: projection },
        LiveError::NoSuchVersion { key, wanted, found } => {
            RefoldError::NoSuchVersion { key, version: wanted.get(), found: found.get() }
        }
    }
}
