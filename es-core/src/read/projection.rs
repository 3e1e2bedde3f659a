//! Read models as pure folds.

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    error::BoxError,
    event::{EventSet, Recorded},
    read::field::Fields,
};

/// A fold of events into documents with keys.
///
/// Both functions are pure, so one definition serves catch-up, Kafka, rebuild, and tests without
/// a database ([`testing::project`](crate::testing::project)).
///
/// # Delivery
/// Each document is the fold of exactly the events that touch it, each once, in the declared
/// [`EventOrder`] (R9).
pub trait Projection: Send + Sync + 'static {
    /// Its stable name: 1 to 64 bytes of `a-z`, `0-9` and `-`. With another one `cargo build` fails (`cargo check` does not
    /// notice):
    ///
    /// ```compile_fail,E0080
    /// # use es_core::{testing::account::AccountEvent, Keys, MemoryStore, Projection, ReadModel, Recorded, FoldResult};
    /// struct Total;
    ///
    /// impl Projection for Total {
    ///     const NAME: &'static str = "Total of all";
    ///     type Event = AccountEvent;
    ///     type Document = u64;
    ///     // …
    /// #   fn keys(&self, _: &Recorded<AccountEvent>) -> Keys { Keys::none() }
    /// #   fn fold(&self, _: &mut Option<u64>, _: &Recorded<AccountEvent>) -> FoldResult { Ok(()) }
    /// }
    ///
    /// ReadModel::<Total>::new(MemoryStore::new());
    /// ```
    ///
    /// No two projections or policies may have the same name. The second one is refused when it starts, since it would continue
    /// with the documents of the first.
    const NAME: &'static str;

    /// Increase it whenever [`keys`](Self::keys), [`fold`](Self::fold), the type's name, the categories, the order, the document's
    /// form, or the fields or their functions change. A new generation is then built while the old one serves.
    const VERSION: u32 = 1;

    /// The oldest version whose documents this program can read. As long as a generation of a version
    /// from this one to [`VERSION`](Self::VERSION) serves, queries are answered from it.
    ///
    /// Until a new version is promoted, the old documents serve. By default queries then fail with
    /// [`QueryError::OtherVersion`](crate::QueryError::OtherVersion). If this program can read the older documents too, set
    /// it to the older version: then a new version interrupts no reads. If no process of the old version runs any more, the
    /// old documents do not change until then, and waiting for a write may end as
    /// [`Lagging`](crate::QueryError::Lagging).
    const READS_SINCE: u32 = Self::VERSION;

    /// The oldest version that gives to each event the [keys](Self::keys) that this one gives. While an older one serves, a
    /// [watch](crate::ReadModel::watch) does not begin in this program, since it would look for changes under other keys than the
    /// generation has. By default that is every older version.
    const KEYS_SINCE: u32 = Self::VERSION;

    /// The order in which a document must see its events. The default is always right.
    const ORDER: EventOrder = EventOrder::PerKey;

    /// What its documents are found by beside their keys ([`ReadModel::find`](crate::ReadModel::find)): nothing else by default,
    /// which costs nothing.
    const FIELDS: Fields<Self::Document> = &[];

    /// The events that it folds.
    type Event: EventSet;

    /// What it keeps under a key. A document that would be read back from JSON as another one stops the projector before it is
    /// committed (R14). Documents are checked when they are written, not after each event. If a document is unreadable only
    /// between two events, the projector stops if it writes the document between them, which depends on batches and time. The
    /// unreadable document is never committed.
    type Document: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The keys of the documents that `event` touches (1 to [`MAX_KEY_BYTES`](crate::limits::MAX_KEY_BYTES) bytes, no control
    /// characters). They depend on the event alone. Each document sees the event once, also if its key is named twice.
    fn keys(&self, event: &Recorded<Self::Event>) -> Keys;

    /// Folds `event` into a document that it touches; `None` is one that does not exist.
    ///
    /// # Errors
    /// Any error, when the event contradicts the document: the projector stops before the event (R11) with this error as the
    /// cause. A text is an error too: `Err("the order was never placed".into())`, `.ok_or("the order was never placed")?`.
    fn fold(&self, document: &mut Option<Self::Document>, event: &Recorded<Self::Event>) -> FoldResult;

    /// Folds `event` into the document under `key`. Implement it if an event changes one of its documents in another way than
    /// the others; by default it calls [`fold`](Self::fold).
    ///
    /// # Errors
    /// As [`fold`](Self::fold).
    fn fold_keyed(
        &self,
        key: &str,
        document: &mut Option<Self::Document>,
        event: &Recorded<Self::Event>,
    ) -> FoldResult {
        let _ = key;
        self.fold(document, event)
    }
}

/// The result of a fold. `?` converts any error.
pub type FoldResult = Result<(), BoxError>;

/// The order in which a document must see its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventOrder {
    /// Each document is fed by one stream: its key is the stream's id, and the projection listens
    /// to one category. Shards and Kafka partitions may be folded by different workers; the projector checks the keys.
    PerStream,
    /// A document may gather several streams and sees all their events in log order. From Kafka
    /// such a projection reads through a merge of all partitions.
    PerKey,
}

/// The keys of the documents that an event touches.
///
/// ```
/// use es_core::Keys;
///
/// let (payer, payee) = ("ada", "bob");
/// assert_eq!(Keys::many([payer, payee]).as_slice(), ["ada", "bob"]);
/// assert_eq!(Keys::one("all").as_slice(), ["all"]);
/// assert!(Keys::none().as_slice().is_empty());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys(Vec<String>);

impl Keys {
    /// The event touches no document.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// It touches the document under `key`.
    pub fn one(key: impl Into<String>) -> Self {
        Self(vec![key.into()])
    }

    /// It touches the document under each of `keys`.
    pub fn many<K: Into<String>>(keys: impl IntoIterator<Item = K>) -> Self {
        Self(keys.into_iter().map(Into::into).collect())
    }

    /// The keys as the projection gave them.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    pub(crate) fn into_vec(self) -> Vec<String> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn keys_are_kept_as_they_were_given() {
        assert_eq!(Keys::many(["b", "a", "b"]).as_slice(), ["b", "a", "b"]);
        assert_eq!(Keys::one("a").as_slice(), ["a"]);
        assert!(Keys::none().as_slice().is_empty());
    }
}
