//! Payloads that are too large for a topic go to object storage, and the record says where they are.

mod error;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use es_core::{RecordedEvent, error::BoxError};
use object_store::{GetOptions, ObjectStore, PutOptions, path::Path};
use tokio::time::timeout;

pub use self::error::ClaimError;
pub(crate) use self::error::remedy;
use crate::claim::{self, Claim};

/// How long the object storage may take to take or give one object.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a topic is called at most, and what an object's name has beside it.
const NAME_BYTES: usize = 249 + 1 + 36 + 5;

/// Object storage for payloads that are over a threshold, for a relay and the readers of its topics.
///
/// The relay puts such a payload there before it publishes the event, as `<topic>/<id of the event>.json`. The record has an empty value
/// then, and headers that say where the payload is (the extension `dataref` of `CloudEvents`), how long it is, and its SHA-256. Readers
/// get the payload from there, and hand on the event as it was written.
///
/// Any [`ObjectStore`] will do: S3, GCS, Azure, a folder, or memory for tests. Each payload costs a round trip when it is written, and
/// one whenever it is read: so the threshold is meant for what topics should not hold, not for all events.
///
/// ```
/// use es_kafka::{ClaimCheck, KafkaRelay};
/// use object_store::memory::InMemory;
///
/// let payloads = ClaimCheck::new(InMemory::new()).over(100_000);
/// let relay = KafkaRelay::new("127.0.0.1:9092").claim_check(payloads);
/// ```
#[derive(Clone)]
pub struct ClaimCheck {
    store: Arc<dyn ObjectStore>,
    threshold: usize,
    uri: String,
}

impl fmt::Debug for ClaimCheck {
    /// Of the store only what it calls itself: its settings may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClaimCheck")
            .field("store", &self.store.to_string())
            .field("threshold", &self.threshold)
            .field("uri", &self.uri)
            .finish()
    }
}

impl ClaimCheck {
    /// Payloads of more than 256 KiB go to `store`.
    pub fn new(store: impl ObjectStore) -> Self {
        Self { store: Arc::new(store), threshold: 256 * 1024, uri: String::new() }
    }

    /// Payloads of more than `bytes` go there. Readers get all that are there, whatever is declared.
    pub fn over(self, bytes: usize) -> Self {
        Self { threshold: bytes, ..self }
    }

    /// What the references in records start with, for readers that are not Evenfold's: such as `s3://payloads/`, if that is the bucket.
    /// Without it they are names in the store. It may be changed later: readers go by the name, which is the end of each reference.
    pub fn known_as(self, uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), ..self }
    }

    /// Whether the payload of `event` goes there.
    pub(crate) fn takes(&self, event: &RecordedEvent) -> bool {
        event.data.payload.len() > self.threshold
    }

    /// What the headers of a record take at most that says where its payload is, beside what each header takes.
    pub(crate) fn header_bytes(&self) -> usize {
        claim::HEADER_BYTES + self.uri.len() + NAME_BYTES
    }

    /// The name of the object with the payload of `event`. It follows from the event: what is put there again is the same.
    pub(crate) fn object(topic: &str, event: &RecordedEvent) -> String {
        format!("{topic}/{}.json", event.id)
    }

    /// Puts the payload of `event`, which goes to `topic`, into the store.
    ///
    /// An object that is there already is written again: so its age, by which the storage may delete it, is that of the record.
    pub(crate) async fn put(&self, topic: &str, event: &RecordedEvent) -> Result<Claim, object_store::Error> {
        let object = Self::object(topic, event);
        let path = Path::parse(&object)?;
        let put = self.store.put_opts(&path, event.data.payload.clone().into(), PutOptions::default());
        timeout(PATIENCE, put).await.unwrap_or_else(|_| Err(Self::late()))?;
        Ok(Claim::of(event, format!("{}{object}", self.uri)))
    }

    /// Gets the payload of the record at `place`.
    pub(crate) async fn get(&self, claim: &Claim, place: &str) -> Result<Bytes, ClaimError> {
        let name = self.name(&claim.reference);
        let (place, object) = (place.to_owned(), claim.reference.clone());
        let got = timeout(PATIENCE, self.bytes(name, claim)).await.unwrap_or_else(|_| Err(Self::late()));
        match got {
            Ok(Ok(payload)) => Ok(payload),
            Ok(Err(found)) => Err(ClaimError::Changed { place, object, found }),
            Err(object_store::Error::NotFound { source, .. }) => Err(ClaimError::Missing { place, object, source }),
            Err(error) => Err(ClaimError::of(error, place, object)),
        }
    }

    /// The name of an object, `<topic>/<id>.json`, whatever its reference starts with: the hash proves that the object is the payload.
    fn name<'a>(&self, reference: &'a str) -> &'a str {
        // What is known as `s3://payloads` has no segment of its own.
        let known = reference.strip_prefix(&self.uri).filter(|name| name.matches('/').count() == 1);
        known.unwrap_or_else(|| reference.rmatch_indices('/').nth(1).map_or(reference, |(at, _)| &reference[at + 1..]))
    }

    /// The object, unless it is not the one that is claimed: then in what it differs. One of another length is not read.
    async fn bytes(&self, name: &str, claim: &Claim) -> Result<Result<Bytes, String>, object_store::Error> {
        let found = self.store.get_opts(&Path::parse(name)?, GetOptions::default()).await?;
        if u64::try_from(claim.length) != Ok(found.meta.size) {
            return Ok(Err(claim.other_length(found.meta.size)));
        }
        let payload = found.bytes().await?;
        Ok(claim.difference(&payload).map_or(Ok(payload), Err))
    }

    fn late() -> object_store::Error {
        let source: BoxError = format!("it has not answered for {} s", PATIENCE.as_secs()).into();
        object_store::Error::Generic { store: "object storage", source }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[test]
    fn an_object_is_found_by_its_name_whatever_the_storage_is_known_as() {
        let known = |uri: &str| ClaimCheck::new(InMemory::new()).known_as(uri);
        for reference in ["a/1.json", "s3://payloads/a/1.json", "s3://payloads/of/a/1.json"] {
            for uri in ["", "s3://", "s3://payloads/", "s3://payloads/of/", "gs://others/"] {
                assert_eq!(known(uri).name(reference), "a/1.json", "{reference} known as {uri:?}");
            }
        }
        assert_eq!(known("s3://payloads").name("s3://payloadsa/1.json"), "a/1.json");
        assert_eq!(known("").name("1.json"), "1.json");
    }
}
