//! Whether the documents of a read model are the fold of the log.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::{Bound, RangeBounds},
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{Place, Refold, RefoldError};
use crate::{
    codec,
    counted::counted,
    read::{
        engine_error::EngineError,
        panics::{Panicked, caught},
        projection::Projection,
        projector,
        read_model::{
            Amendment, Exceptions, Extent, Generation, KeyRange, Progress, ReadModelStore, StoredDocument, Treatment,
        },
    },
    stream::Position,
};

/// How many documents are compared at a time.
pub(super) const DOCUMENTS: usize = 100;

/// What a verification has compared.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// The generation that serves.
    pub generation: Generation,
    /// The position up to which the log was folded.
    pub position: Position,
    /// How many keys were compared.
    pub compared: u64,
    /// Under how many of them the documents differ.
    pub differing: u64,
    /// The keys that wait: they are parked, or the reader has stopped. Each is compared as of its first event that waits, except one
    /// that went on meanwhile.
    pub waiting: BTreeSet<String>,
    /// What operators have decided about events up to the position, and the reader has done: the documents are the fold with these.
    pub amended: Vec<Amendment>,
    /// How many documents were written as they follow from the log.
    pub mended: u64,
}

/// A document that is not the fold of the log.
#[derive(Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its key.
    pub key: String,
    /// What the store has; `None` if it has no document.
    pub stored: Option<Bytes>,
    /// What the fold has; `None` if there should be no document.
    pub folded: Option<Bytes>,
    /// The declared fields by whose values it is not found as it should be: other values are stored than those of the stored document.
    pub fields: Vec<&'static str>,
}

impl fmt::Debug for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Documents may be large, or hold personal data.
        let word = |document: &Option<Bytes>| document.as_ref().map_or(0, Bytes::len);
        write!(f, "{:?}: {} stored, {} folded", self.key, counted(word(&self.stored), "byte"), word(&self.folded))?;
        if self.fields.is_empty() { Ok(()) } else { write!(f, ", other values of {:?}", self.fields) }
    }
}

/// Compares the documents of the generation that serves with a fold of the log, while its projector goes on. The fold treats each
/// event as the projector does: what was skipped, edited or discarded, and what waits. Each document that differs is told to `report`.
/// So is each one whose declared fields have other stored values than the document itself.
///
/// If the log makes more documents than are kept in memory, it is read again for the next ones.
///
/// A page of documents is of one moment, and its position lies between those that the generation had reached before and after it
/// was read. So a document is right if it is equal to the fold at one of these positions. Up to the former position each shard has
/// all events, and all is known that its projector has not folded as the log has it.
pub(crate) async fn verify<P: Projection>(
    projection: &P,
    Place { log, store, share, limit }: Place<'_>,
    report: &mut (dyn FnMut(Difference) + Send),
) -> Result<Verified, RefoldError> {
    let serving = store.generations(P::NAME).await?.serving.ok_or(RefoldError::NotServing)?;
    let generation = serving.generation;
    if generation.version != P::VERSION {
        return Err(RefoldError::OtherVersion { serving: generation.version, ours: P::VERSION });
    }
    let is_sampled = move |key: &str| share >= 1.0 || place(key) < share;
    let mut refold = Refold::new(projection, log, is_sampled).within(limit);
    let (position, waiting) = (Position::ZERO, BTreeSet::new());
    let mut verified =
        Verified { generation, position, compared: 0, differing: 0, waiting, amended: Vec::new(), mended: 0 };
    let mut after: Option<String> = None;
    loop {
        let before = progress(store, &verified.generation).await?.reached;
        refold.go_to(before, store, &verified.generation.reader).await?;
        let range =
            KeyRange { after: after.clone(), generation: Some(verified.generation.reader.id), ..KeyRange::default() };
        let page = store.scan(P::NAME, range, DOCUMENTS).await?;
        let page = page.filter(|page| page.generation == verified.generation).ok_or(RefoldError::Replaced)?.found;
        let furthest = progress(store, &verified.generation).await?.furthest;
        let end = if page.len() < DOCUMENTS { None } else { page.last().map(|(key, _)| key.clone()) };
        let end = refold.cut(end);

        // What the store has under each key of the page, and under those that only the fold has.
        let mut stored: BTreeMap<String, Option<Bytes>> = page
            .into_iter()
            .filter(|(key, _)| refold.keeps(key))
            .map(|(key, document)| (key, Some(document)))
            .collect();
        for key in refold.keys_between(after.as_deref(), end.as_deref()) {
            stored.entry(key).or_insert(None);
        }
        let keys: Vec<String> = stored.keys().cloned().collect();
        let mut drifted = drifted_fields::<P>(store, &verified.generation, &keys).await?;
        stored.retain(|key, stored| !is_same::<P>(stored.as_deref(), refold.document(key)));
        verified.compared += keys.len() as u64;
        let exceptions = if stored.is_empty() {
            Exceptions::default()
        } else {
            store.exceptions(&verified.generation.reader).await?
        };
        while !stored.is_empty() {
            // Few at a time, since they are copied.
            let rest = stored.keys().nth(DOCUMENTS).cloned().map(|next| stored.split_off(&next)).unwrap_or_default();
            let mut aside = refold.aside(stored.keys().cloned().collect(), &exceptions);
            aside
                .advance(furthest, &mut |key, folded| {
                    if stored.get(key).is_some_and(|stored| is_same::<P>(stored.as_deref(), folded)) {
                        stored.remove(key);
                    }
                })
                .await?;
            for (key, stored) in stored {
                if aside.is_settled(&key) {
                    verified.differing += 1;
                    let folded = aside.encoded(&key)?;
                    let fields = drifted.remove(&key).map(|(fields, _)| fields).unwrap_or_default();
                    report(Difference { key, stored, folded, fields });
                } else {
                    verified.compared -= 1;
                }
            }
            stored = rest;
        }
        for (key, (fields, document)) in drifted {
            verified.differing += 1;
            report(Difference { key, stored: document.clone(), folded: document, fields });
        }
        verified.position = verified.position.max(before);
        verified.waiting.extend(refold.waiting_between(after.as_deref(), end.as_deref()));
        refold.forget(end.as_deref());
        if end.is_some() && end == refold.until {
            refold.begin_again();
        }
        let Some(end) = end else {
            verified.amended = refold.amended();
            return Ok(verified);
        };
        after = Some(end);
    }
}

/// Of those of `keys` whose declared fields have other stored values than their documents: these fields, and the document.
async fn drifted_fields<P: Projection>(
    store: &dyn ReadModelStore,
    generation: &Generation,
    keys: &[String],
) -> Result<BTreeMap<String, (Vec<&'static str>, Option<Bytes>)>, RefoldError> {
    let mut drifted = BTreeMap::new();
    if P::FIELDS.is_empty() {
        return Ok(drifted);
    }
    for keys in keys.chunks(DOCUMENTS) {
        for (key, stored) in keys.iter().zip(store.stored(&generation.reader, keys).await?) {
            let fields = drifted_in::<P>(key, &stored)?;
            if !fields.is_empty() {
                drifted.insert(key.clone(), (fields, stored.document));
            }
        }
        tokio::task::yield_now().await;
    }
    if !drifted.is_empty() {
        // What a generation had that was replaced meanwhile may have been deleted in part.
        progress(store, generation).await?;
    }
    Ok(drifted)
}

/// The declared fields of which `stored` has another value than its document has. A document that cannot be read is not the fold.
pub(super) fn drifted_in<P: Projection>(key: &str, stored: &StoredDocument) -> Result<Vec<&'static str>, EngineError> {
    let compare = || -> Result<_, EngineError> {
        let Ok(document) = stored.document.as_deref().map(codec::decode::<P::Document>).transpose() else {
            return Ok(Vec::new());
        };
        let values = projector::fields::<P>(key, document.as_ref())?;
        let differing = values.into_iter().filter(|change| stored.fields.get(change.field) != change.value.as_ref());
        Ok(differing.map(|change| change.field).collect())
    };
    // A field that cannot be told of the stored document was told of it when it was stored: it has drifted in the code.
    caught(compare).unwrap_or_else(|Panicked| Ok(P::FIELDS.iter().map(|field| field.name()).collect()))
}

pub(super) async fn progress(store: &dyn ReadModelStore, generation: &Generation) -> Result<Progress, RefoldError> {
    let serving = store.generations(&generation.reader.name).await?.serving;
    serving.filter(|serving| serving.generation == *generation).ok_or(RefoldError::Replaced)
}

/// Whether what is stored is read as what was folded.
pub(super) fn is_same<P: Projection>(stored: Option<&[u8]>, folded: Option<&P::Document>) -> bool {
    match (stored, folded) {
        (None, None) => true,
        (Some(stored), Some(folded)) => codec::decode::<P::Document>(stored).is_ok_and(|stored| stored == *folded),
        _ => false,
    }
}

fn between<'a>(after: Option<&'a str>, end: Option<&'a str>) -> (Bound<&'a str>, Bound<&'a str>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), end.map_or(Bound::Unbounded, Bound::Included))
}

/// The place of `key` among all keys, from 0 to 1: keys that look alike are far from each other.
fn place(key: &str) -> f64 {
    let hash = Sha256::digest(key.as_bytes());
    f64::from(u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])) / 4_294_967_296.0
}

impl<P: Projection> Refold<'_, P> {
    /// The keys of documents after `after` and up to `end`.
    fn keys_between(&self, after: Option<&str>, end: Option<&str>) -> Vec<String> {
        let documents = self.documents.range::<str, _>(between(after, end)).filter(|(_, document)| document.is_some());
        documents.map(|(key, _)| key.clone()).collect()
    }

    /// The keys that wait after `after` and up to `end`, also those of shards that have come further.
    fn waiting_between(&self, after: Option<&str>, end: Option<&str>) -> Vec<String> {
        let range = between(after, end);
        let is_between = |key: &&String| RangeBounds::<str>::contains(&range, key.as_str());
        let parked = self.exceptions.parked().filter(|key| self.keeps(key));
        self.waiting.keys().chain(parked).filter(is_between).cloned().collect()
    }

    /// What operators have decided about the events that are folded, for the keys that are compared; not what waits to be retried.
    fn amended(&self) -> Vec<Amendment> {
        let is_done = |amendment: &&Amendment| match &amendment.extent {
            Extent::Key(key) => (self.wanted)(key) && self.exceptions.of(key, amendment.position) != Treatment::Wait,
            Extent::Shard(_) => true,
        };
        let folded = self.exceptions.amendments().take_while(|amendment| amendment.position <= self.at);
        folded.filter(is_done).cloned().collect()
    }

    /// The key up to which can be compared, if the store's page ends with `end`.
    fn cut(&self, end: Option<String>) -> Option<String> {
        match (end, self.until.clone()) {
            (Some(end), Some(until)) => Some(end.min(until)),
            (end, until) => end.or(until),
        }
    }

    /// Begins at the first event, for the documents that were given up.
    fn begin_again(&mut self) {
        (self.at, self.until) = (Position::ZERO, None);
        self.documents.clear();
        self.waiting.clear();
    }

    /// Forgets the documents up to `end`, which were compared; all of them where it is `None`.
    fn forget(&mut self, end: Option<&str>) {
        match end {
            Some(end) => {
                let end = end.to_owned();
                self.documents = self.documents.split_off(&end);
                self.documents.remove(&end);
                self.done = Some(end);
            }
            None => self.documents.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::sync::CancellationToken;

    use crate::{
        Append, EventStore, Expected, LogSource, NewEvent, Projector, StreamId,
        memory::MemoryStore,
        read::{refold::tests::drifted, samples::Distinct},
        testing::{
            account::{AccountEvent, Histories},
            recorded,
        },
    };

    /// Seen to fail where the documents up to the key were folded again: they stayed in memory until the end.
    #[test]
    fn documents_that_were_compared_are_not_kept() {
        let (store, projection) = (MemoryStore::new(), Histories);
        let mut refold = Refold::new(&projection, &store, |_| true);
        let events = recorded(["a", "b", "c", "a", "b", "c"].map(|id| (id, AccountEvent::Deposited { amount: 1 })));
        for (round, events) in events.chunks(3).enumerate() {
            for event in events {
                refold.fold(event, &mut |_, _| {}).expect("folded");
            }
            assert_eq!(refold.documents.len(), if round == 0 { 3 } else { 1 });
            refold.forget(Some("b"));
            assert!(refold.documents.keys().eq(["c"]));
        }
        refold.forget(None);
        assert!(refold.documents.is_empty());
    }

    /// R17: of 200 documents only some fit, so the log is read several times. Each document is compared once.
    #[tokio::test]
    async fn r17_a_verification_keeps_to_its_memory() {
        let store = MemoryStore::new();
        for round in 0..3 {
            for n in 0..200_u64 {
                let stream = StreamId::new("account", &format!("{n:03}")).expect("a stream");
                let event = NewEvent::of(&AccountEvent::Deposited { amount: n + round }).expect("an event");
                store.append(Append::new(stream, Expected::Any, vec![event])).await.expect("appended");
            }
        }
        let projector = Projector::new(Histories, LogSource::new(store.clone()), store.clone());
        projector.rebuild(CancellationToken::new()).await.expect("rebuilt").expect("it serves");
        let verified = async |limit| {
            let mut found = Vec::new();
            let mut report = |difference: Difference| found.push(difference.key);
            let place = Place { log: &store, store: &store, share: 1.0, limit };
            let verified = verify(&Histories, place, &mut report).await.expect("verified");
            (verified.compared, verified.differing, found)
        };
        for limit in [usize::MAX, 10_000, 1_000, 1] {
            assert_eq!(verified(limit).await, (200, 0, Vec::new()), "{limit} bytes");
        }
        let mut refold = Refold::new(&Histories, &store, |_| true).within(10_000);
        let mut most = 0;
        for position in 1..=600 {
            refold.advance(Position::new(position), &mut |_, _| {}).await.expect("folded");
            most = most.max(refold.documents.len());
        }
        assert!((30..100).contains(&most) && refold.until.is_some(), "{most} documents of about 135 bytes each");
        assert!(refold.documents.values().all(|document| document.as_ref().is_some_and(|sums| sums.len() == 3)));
    }

    #[test]
    fn no_document_is_the_same_as_no_document() {
        let folded = vec![1];
        for (stored, folded, same) in [
            (None, None, true),
            (Some(&b"[1]"[..]), Some(&folded), true),
            (Some(b"[2]"), Some(&folded), false),
            (None, Some(&folded), false),
            (Some(b"[1]"), None, false),
        ] {
            assert_eq!(is_same::<Histories>(stored, folded), same);
        }
    }

    /// What it had may have been deleted in part.
    #[tokio::test]
    async fn fields_that_have_drifted_in_a_generation_that_does_not_serve_are_not_reported() {
        let (store, generation) = drifted().await;
        let drifted = drifted_fields::<Distinct>(&store, &generation, &["a".to_owned()]).await;
        assert!(matches!(drifted, Err(RefoldError::Replaced)), "{drifted:?}");
    }
}
