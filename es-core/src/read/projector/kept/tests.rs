use std::time::Duration;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    event::{Recorded, RecordedEvent},
    read::{
        projection::{FoldResult, Keys, Projection},
        projector::Projector,
        read_model::{Checkpoint, GenerationState, Generations, Lease, Reader, Shard},
        scripted::Watched,
        source::LogSource,
        worker::{Course, Events, Handler},
    },
    stream::Position,
    testing::{account::AccountEvent, recorded},
};

/// How many events an account has. At two it is closed, and has no document.
struct Counts;

impl Projection for Counts {
    const NAME: &'static str = "counts";
    type Event = AccountEvent;
    type Document = u64;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, count: &mut Option<u64>, event: &Recorded<AccountEvent>) -> FoldResult {
        if event.stream.id() == "refused" {
            return Err("it is refused".into());
        }
        *count = if *count == Some(1) { None } else { Some(count.unwrap_or(0) + 1) };
        Ok(())
    }
}

struct Fixture {
    projector: Projector<Counts>,
    store: Watched,
    reader: Reader,
}

impl Fixture {
    async fn new(document_bytes: usize) -> Self {
        let store = Watched::default();
        let state = GenerationState::Serving;
        let generation = store.ensure_generation("counts", 1, state, "projection", &[]).await.expect("made");
        let projector = Projector::new(Counts, LogSource::new(store.memory.clone()), store.clone());
        Self { projector: projector.document_bytes(document_bytes), store, reader: generation.reader }
    }

    /// Handles `events`, which nothing commits. Returns what they would write, and how many loads that took.
    async fn handle(&self, events: Events<'_>) -> (Vec<(String, Option<String>)>, usize) {
        let before = self.store.asked();
        let handled = self.projector.handle(&self.reader, events, &CancellationToken::new()).await;
        assert_eq!((handled.done, handled.failure.is_none()), (events.list.len(), true));
        let text = |document: bytes::Bytes| String::from_utf8(document.to_vec()).expect("JSON");
        let upserts = handled.upserts.into_iter().map(|(key, document)| (key, Some(text(document))));
        let written = upserts.chain(handled.deletes.into_iter().map(|key| (key, None))).collect();
        (written, self.store.asked() - before)
    }
}

fn of<const N: usize>(accounts: [&'static str; N]) -> Vec<RecordedEvent> {
    recorded(accounts.map(|account| (account, AccountEvent::Deposited { amount: 1 })))
}

fn written<const N: usize>(documents: [(&str, Option<&str>); N]) -> Vec<(String, Option<String>)> {
    documents.map(|(key, document)| (key.to_owned(), document.map(str::to_owned))).to_vec()
}

#[tokio::test]
async fn documents_of_the_last_commits_are_not_loaded_again() {
    let (fixture, events) = (Fixture::new(1 << 20).await, of(["a", "b", "a", "c", "a"]));
    assert_eq!(fixture.handle(Events::of_log(&events[..2])).await, (written([("a", Some("1")), ("b", Some("1"))]), 1));
    assert_eq!(fixture.handle(Events::of_log(&events[2..3])).await, (written([("a", None)]), 0));
    // The log had events in between that the projection does not read.
    let later = Events { after: Position::new(9), ..Events::of_log(&events[3..]) };
    assert_eq!(
        fixture.handle(later).await,
        (written([("a", Some("1")), ("c", Some("1"))]), 1),
        "of c is nothing known"
    );
}

/// Otherwise an event would be folded twice.
#[tokio::test]
async fn r9_documents_that_were_not_committed_or_may_have_changed_are_loaded() {
    let events = of(["a", "a", "a"]);
    let [first, second, third] = [0, 1, 2].map(|nth| Events::of_log(&events[nth..=nth]));
    let lease = |id, token| {
        let (reader, shard) = (Reader { id, name: "counts".to_owned() }, Shard::whole("log"));
        Lease::new(reader, shard, Uuid::nil(), token, Duration::ZERO, Checkpoint::default())
    };
    let (other_reader, other_token) = (lease(2, 1), lease(1, 2));
    let reads_again = [
        ("its commit was refused", first),
        ("another worker may have written", Events { lease: &other_token, ..second }),
        ("another generation", Events { lease: &other_reader, ..second }),
        ("the letters of one key are tried again", Events { course: Course::only("a"), ..second }),
    ];
    for (reason, events) in reads_again {
        let fixture = Fixture::new(1 << 20).await;
        fixture.handle(first).await;
        assert_eq!(fixture.handle(events).await, (written([("a", Some("1"))]), 1), "{reason}");
    }
    let fixture = Fixture::new(1 << 20).await;
    fixture.handle(first).await;
    fixture.handle(Events { course: Course::only("a"), ..second }).await;
    assert_eq!(fixture.handle(second).await.1, 1, "letters were handled");
    fixture.projector.forget(second.shard);
    assert_eq!(fixture.handle(third).await.1, 1, "the shard was given back");
}

#[tokio::test]
async fn r17_no_more_documents_are_kept_than_fit() {
    let events = of(["a", "b", "c", "d", "a", "e", "f", "g", "h", "a"]);
    // Each takes 258 bytes.
    let fixture = Fixture::new(2_000).await;
    let mut loads = Vec::new();
    for part in [0..4, 4..5, 5..9, 9..10] {
        loads.push(fixture.handle(Events::of_log(&events[part])).await.1);
    }
    assert_eq!(loads, [1, 0, 1, 1], "eight of them do not fit");
}

/// Seen to fail where they are loaded from the store, which does not have the first event yet.
#[tokio::test]
async fn r9_while_a_commit_is_on_its_way_only_what_is_kept_is_folded() {
    let events = of(["a", "a", "a"]);
    let fixture = Fixture::new(1_000_000).await;
    let nothing_is_kept = Events { is_ahead: true, after: Position::new(1), ..Events::of_log(&events[1..]) };
    let stop = CancellationToken::new();
    assert_eq!(fixture.projector.handle(&fixture.reader, nothing_is_kept, &stop).await.done, 0);
    let first = fixture.projector.handle(&fixture.reader, Events::of_log(&events[..1]), &stop).await;
    assert!(first.goes_on && first.done == 1, "{first:?}");
    let ahead = Events { is_ahead: true, ..Events::of_log(&events[1..]) };
    assert_eq!(fixture.handle(ahead).await, (written([("a", Some("1"))]), 0));
}

/// All is loaded again after an event that fails. (Seen to fail where that is done before the commit.)
#[tokio::test]
async fn r9_an_event_that_fails_while_a_commit_is_on_its_way_is_handled_again_after_it() {
    let fixture = Fixture::new(1_000_000).await;
    let events = of(["a", "b", "refused"]);
    let stop = CancellationToken::new();
    let first = fixture.projector.handle(&fixture.reader, Events::of_log(&events[..1]), &stop).await;
    assert!(first.goes_on && first.done == 1, "{first:?}");
    let ahead = Events { is_ahead: true, ..Events::of_log(&events[1..]) };
    let handled = fixture.projector.handle(&fixture.reader, ahead, &stop).await;
    assert!(handled.done == 0 && handled.failure.is_none(), "{handled:?}");
    let after = Events { is_ahead: false, ..ahead };
    let handled = fixture.projector.handle(&fixture.reader, after, &stop).await;
    assert!(handled.done == 1 && handled.failure.is_some(), "{handled:?}");
}

#[tokio::test]
async fn a_projector_goes_on_only_with_documents_that_stay() {
    let (events, stop) = (of(["a", "b"]), CancellationToken::new());
    for (bytes, goes_on) in [(1_000_000, true), (1, false)] {
        let fixture = Fixture::new(bytes).await;
        let handled = fixture.projector.handle(&fixture.reader, Events::of_log(&events[..1]), &stop).await;
        assert_eq!(handled.goes_on, goes_on, "{bytes}");
    }
}

/// A document takes some 258 bytes: two shards have room for one each, three have not.
#[tokio::test]
async fn r17_the_shards_of_a_worker_share_the_memory_for_what_is_kept() {
    let (fixture, events) = (Fixture::new(600).await, of(["a", "a"]));
    let shards = [0, 1, 2].map(|number| Shard::partition("topic", number));
    for (shard, loads) in shards.iter().zip([0, 0, 1]) {
        fixture.handle(Events { shard, ..Events::of_log(&events[..1]) }).await;
        assert_eq!(fixture.handle(Events { shard, ..Events::of_log(&events[1..]) }).await.1, loads, "{shard}");
    }
}
