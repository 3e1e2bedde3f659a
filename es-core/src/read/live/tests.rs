use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::*;
use crate::{
    Append, Event, Expected, MemoryStore, NewEvent, Repository, StreamId,
    event::Recorded,
    read::{
        projection::{FoldResult, Keys},
        source::SourceError,
    },
    stream::Version,
    tag::EventQuery,
    testing::{
        account::{Account, AccountCommand, AccountEvent, Histories},
        live_differences,
    },
};

/// A document of so many bytes for each account, and how often one was folded.
#[derive(Default)]
struct Notes {
    folds: Arc<AtomicUsize>,
}

impl Projection for Notes {
    const NAME: &'static str = "notes";
    type Event = AccountEvent;
    type Document = String;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, text: &mut Option<String>, event: &Recorded<AccountEvent>) -> FoldResult {
        self.folds.fetch_add(1, Ordering::Relaxed);
        let AccountEvent::Deposited { amount } = event.data else { panic!("no deposit") };
        text.get_or_insert_default().push_str(&"x".repeat(usize::try_from(amount)?));
        Ok(())
    }
}

impl LiveProjection for Notes {}

async fn deposit(store: &MemoryStore, id: &str, amount: u64) {
    let accounts = Repository::<Account>::new(store.clone());
    accounts.execute(id, AccountCommand::Deposit(amount)).await.expect("executed");
}

/// Seen to fail where each document counted the same.
#[tokio::test]
async fn r17_cached_documents_have_a_limit_in_bytes() {
    let store = MemoryStore::new();
    let live = Live::new(Notes::default(), store.clone()).cache_bytes(1_000_000);
    for number in 0..40 {
        let key = format!("account-{number}");
        deposit(&store, &key, 50_000).await;
        assert_eq!(live.get(&key).await.expect("folded").map(|text| text.len()), Some(50_000));
        // It grows while it is cached.
        deposit(&store, &key, 50_000).await;
        assert_eq!(live.get(&key).await.expect("folded").map(|text| text.len()), Some(100_000));
    }
    let cached = (0..40).filter_map(|number| live.cache.peek(&format!("account-{number}")));
    let held: usize = cached.filter_map(|folded| folded.document.as_ref().map(String::len)).sum();
    assert!((300_000..=1_000_000).contains(&held), "{held}");
    assert!((300_000..=1_000_000).contains(&live.cached_bytes()), "{}", live.cached_bytes());
}

/// Seen to fail where each of them folded the document.
#[tokio::test]
async fn of_several_first_reads_one_folds_the_document_and_later_ones_only_what_is_new() {
    let store = MemoryStore::new();
    for _ in 0..10 {
        deposit(&store, "a", 1).await;
    }
    let notes = Notes::default();
    let folds = notes.folds.clone();
    let live = Live::new(notes, store.clone());
    let mut reads = JoinSet::new();
    for _ in 0..20 {
        let live = live.clone();
        reads.spawn(async move { live.get("a").await.expect("folded") });
    }
    assert!(reads.join_all().await.into_iter().all(|text| text.is_some_and(|text| text.len() == 10)));
    assert_eq!(folds.load(Ordering::Relaxed), 10);
    deposit(&store, "a", 1).await;
    live.get("a").await.expect("folded");
    live.get("a").await.expect("folded");
    assert_eq!(folds.load(Ordering::Relaxed), 11);
}

#[tokio::test]
async fn a_panic_of_a_fold_is_the_error_of_the_read() {
    let store = MemoryStore::new();
    let live = Live::new(Notes::default(), store.clone());
    deposit(&store, "a", 1).await;
    live.get("a").await.expect("folded");
    let accounts = Repository::<Account>::new(store);
    accounts.execute("a", AccountCommand::Withdraw(1)).await.expect("executed");
    for _ in 0..2 {
        let failed = live.get("a").await;
        assert!(matches!(failed, Err(LiveError::Fold(EngineError::Panicked { .. }))), "{failed:?}");
    }
}

struct Unfound(fn() -> KeyEvents);

impl Projection for Unfound {
    const NAME: &'static str = "unfound";
    type Event = crate::EventData;
    type Document = u64;

    fn keys(&self, _: &Recorded<crate::EventData>) -> Keys {
        Keys::none()
    }

    fn fold(&self, _: &mut Option<u64>, _: &Recorded<crate::EventData>) -> FoldResult {
        Ok(())
    }
}

impl LiveProjection for Unfound {
    fn events_of(&self, _: &str) -> KeyEvents {
        self.0()
    }
}

struct All;

impl Projection for All {
    const NAME: &'static str = "all";
    type Event = crate::EventData;
    type Document = u64;

    fn keys(&self, _: &Recorded<crate::EventData>) -> Keys {
        Keys::one("all")
    }

    fn fold(&self, _: &mut Option<u64>, _: &Recorded<crate::EventData>) -> FoldResult {
        Ok(())
    }
}

impl LiveProjection for All {}

#[tokio::test]
async fn events_that_no_index_finds_are_refused() {
    let places: [fn() -> KeyEvents; 2] = [
        || KeyEvents::matching(EventQuery::named_only(["account.deposited"])),
        || KeyEvents::tagged("account:a").or(KeyEvents::matching(EventQuery::all())),
    ];
    for place in places {
        let refused = Live::new(Unfound(place), MemoryStore::new()).get("a").await;
        assert!(matches!(refused, Err(LiveError::NotIndexed { projection: "unfound" })), "{refused:?}");
    }
    // The default names the streams of the projection's categories, and this one listens to all.
    let refused = Live::new(All, MemoryStore::new()).get("all").await;
    assert!(matches!(refused, Err(LiveError::NotIndexed { projection: "all" })), "{refused:?}");
}

/// The default finds only the streams whose id is the key.
struct Total;

impl Projection for Total {
    const NAME: &'static str = "total";
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::many([event.stream.id(), "all"])
    }

    fn fold(&self, events: &mut Option<u64>, _: &Recorded<AccountEvent>) -> FoldResult {
        *events.get_or_insert_default() += 1;
        Ok(())
    }
}

impl LiveProjection for Total {}

#[tokio::test]
async fn a_key_whose_events_are_not_all_found_is_named() {
    let store = MemoryStore::new();
    for id in ["a", "b", "a"] {
        deposit(&store, id, 1).await;
    }
    let live = Live::new(Total, store.clone());
    assert_eq!(live_differences(&live, &store).await.expect("folded"), ["all"]);
}

/// Counts the deposits of each account; its keys leave out the small ones.
struct Large;

impl Projection for Large {
    const NAME: &'static str = "large";
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        match event.data {
            AccountEvent::Deposited { amount } if amount < 10 => Keys::none(),
            _ => Keys::one(event.stream.id()),
        }
    }

    fn fold(&self, count: &mut Option<u64>, _: &Recorded<AccountEvent>) -> FoldResult {
        *count.get_or_insert_default() += 1;
        Ok(())
    }
}

impl LiveProjection for Large {}

#[tokio::test]
async fn events_of_a_stream_that_do_not_touch_the_document_are_not_folded() {
    let store = MemoryStore::new();
    for amount in [1, 10, 2, 20] {
        deposit(&store, "a", amount).await;
    }
    assert_eq!(Live::new(Large, store).get("a").await.expect("folded"), Some(2));
}

#[tokio::test]
async fn a_key_that_no_stream_and_no_tag_can_be_has_no_document() {
    let long = "a".repeat(300);
    assert_eq!(Live::new(Histories, MemoryStore::new()).get(&long).await.expect("asked"), None);
    assert_eq!(KeyEvents::tagged(&long), KeyEvents::stream::<AccountEvent>(&long));
}

#[tokio::test]
async fn the_last_version_of_a_stream_is_one_of_its_versions() {
    let store = MemoryStore::new();
    for _ in 0..2 {
        deposit(&store, "a", 1).await;
    }
    let live = Live::new(Histories, store);
    let version = |number| Moment::Version(Version::new(number));
    assert_eq!(live.get_as_of("a", version(2)).await.expect("folded"), Some(vec![1, 2]));
    let refused = live.get_as_of("a", version(3)).await;
    assert!(matches!(refused, Err(LiveError::NoSuchVersion { found, .. }) if found == Version::new(2)), "{refused:?}");
}

#[test]
fn a_live_read_may_be_tried_again_where_its_store_may_answer_later() {
    let passing = |error| LiveError::from(EngineError::Source(SourceError::Unavailable(error)));
    assert!(passing("it is gone".into()).is_transient());
    assert!(!LiveError::NoVersions { projection: "a" }.is_transient());
}

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "letter")]
enum LetterEvent {
    #[event(name = "letter.sent", tag = "to:{to}")]
    Sent { to: String },
}

/// Counts the letters of each recipient, and its own folds.
#[derive(Default)]
struct Got(Arc<AtomicUsize>);

impl Projection for Got {
    const NAME: &'static str = "got";
    type Event = LetterEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<LetterEvent>) -> Keys {
        let LetterEvent::Sent { to } = &event.data;
        Keys::one(to)
    }

    fn fold(&self, count: &mut Option<u64>, _: &Recorded<LetterEvent>) -> FoldResult {
        self.0.fetch_add(1, Ordering::Relaxed);
        *count.get_or_insert_default() += 1;
        Ok(())
    }
}

impl LiveProjection for Got {
    fn events_of(&self, key: &str) -> KeyEvents {
        KeyEvents::tagged(format!("to:{key}"))
    }
}

#[tokio::test]
async fn of_a_cached_document_that_is_found_by_a_tag_only_new_events_are_folded() {
    let store = MemoryStore::new();
    let got = Got::default();
    let folds = got.0.clone();
    let live = Live::new(got, store.clone());
    for number in 1..=3 {
        let event = NewEvent::of(&LetterEvent::Sent { to: "ann".to_owned() }).expect("an event");
        let stream = StreamId::new("letter", &number.to_string()).expect("an id");
        store.append(Append::new(stream, Expected::Any, vec![event])).await.expect("appended");
        assert_eq!(live.get("ann").await.expect("folded"), Some(number));
    }
    assert_eq!(folds.load(Ordering::Relaxed), 3);
}
