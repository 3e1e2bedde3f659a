use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{
    Append, EventData, EventStore, Expected, MemoryStore, NewEvent, StreamId,
    read::{
        projection::{FoldResult, Keys, Projection},
        projector::Projector,
        source::LogSource,
    },
    schema::Undecodable,
    testing::{account::AccountEvent, recorded},
};

/// A set of which it is counted how often an event is decoded.
struct Counted;

static DECODED: AtomicUsize = AtomicUsize::new(0);

impl EventSet for Counted {
    fn categories() -> Categories {
        Categories::All
    }

    fn from_recorded(event: &RecordedEvent) -> Result<Option<Self>, Undecodable> {
        DECODED.fetch_add(1, Ordering::Relaxed);
        AccountEvent::from_recorded(event).map(|known| known.map(|_| Self))
    }
}

fn deposits(amounts: impl IntoIterator<Item = u64>) -> Vec<RecordedEvent> {
    recorded(amounts.into_iter().map(|amount| ("a", AccountEvent::Deposited { amount })))
}

fn all() -> Wanted {
    Wanted { categories: Categories::All, streams: Slice::ALL }
}

fn positions(events: &[RecordedEvent]) -> Vec<u64> {
    events.iter().map(|event| event.position.get()).collect()
}

#[tokio::test]
async fn contents_are_decoded_once_for_all_that_share_them() {
    let page = Page::new(deposits(1..=5), true);
    let (mut one, other) = (page.clone().part(0, &all()), page.part(2, &all()));
    one.pass(Position::new(1));
    assert_eq!((positions(&one), positions(&other)), (vec![2, 3, 4, 5], vec![3, 4, 5]));
    let (one, other) = tokio::join!(one.decoded::<AccountEvent>(), other.decoded::<AccountEvent>());
    let (one, other) = (one.expect("shared"), other.expect("shared"));
    assert!(Arc::ptr_eq(&one.all, &other.all));
    assert_eq!(one.get(0).map(|event| &event.data), Some(&AccountEvent::Deposited { amount: 2 }));
    assert_eq!(other.get(2).map(|event| &event.data), Some(&AccountEvent::Deposited { amount: 5 }));
    assert!(other.get(3).is_none());
}

#[tokio::test]
async fn a_reader_that_shares_with_no_other_decodes_each_event_when_it_comes_to_it() {
    assert!(BatchEvents::from(deposits([1])).decoded::<AccountEvent>().await.is_none());
    assert!(Page::new(deposits([1]), false).part(0, &all()).decoded::<AccountEvent>().await.is_none());
}

#[tokio::test]
async fn r17_large_events_are_not_kept_with_their_contents() {
    let mut events = deposits(1..=2);
    for (more, is_kept) in [(0, true), (1, false)] {
        let bytes = MOST_DECODED - events[0].data.payload.len() + more;
        events[1].data.payload = vec![b' '; bytes].into();
        let page = Page::new(events.clone(), true).part(0, &all());
        assert_eq!(page.decoded::<AccountEvent>().await.is_some(), is_kept);
    }
}

#[tokio::test]
async fn an_event_that_cannot_be_decoded_holds_up_no_other() {
    let mut events = deposits(1..=3);
    events[1].data.payload = "?".into();
    let decoded = Page::new(events, true).part(0, &all()).decoded::<AccountEvent>().await.expect("shared");
    assert_eq!([0, 1, 2].map(|nth| decoded.get(nth).is_some()), [true, false, true]);
}

#[test]
fn readers_that_want_the_same_part_of_a_page_share_it() {
    let events = recorded(["a", "b", "a", "b", "a"].map(|id| (id, AccountEvent::Deposited { amount: 1 })));
    let slice = (0..8).map(|number| crate::read::read_model::Shard::split("log", 8).remove(number).slice());
    let streams = slice.into_iter().find(|slice| slice.holds("a") && !slice.holds("b")).expect("they differ");
    let wanted = Wanted { streams, ..all() };
    let page = Page::new(events, true);
    let (one, other) = (page.clone().part(0, &wanted), page.clone().part(2, &wanted));
    assert_eq!((positions(&one), positions(&other)), (vec![1, 3, 5], vec![3, 5]));
    assert!(Arc::ptr_eq(&one.page, &other.page));
    for is_shared_with_a_shard in [true, false] {
        let page = Page::new(page.events.clone(), false);
        let _shard = is_shared_with_a_shard.then(|| page.clone());
        assert_eq!(positions(&page.part(2, &wanted)), [3, 5]);
    }
    let mut rest = one.clone();
    rest.pass(Position::new(2));
    rest.pass_first(1);
    assert_eq!((positions(&rest), positions(&one.first_of(2))), (vec![5], vec![1, 3]));
    rest.pass_first(9);
    assert!(rest.is_empty() && one.first_of(9).len() == 3);
}

/// How many events there were.
struct Count<const N: usize>;

impl<const N: usize> Projection for Count<N> {
    const NAME: &'static str = ["count", "count-1", "count-2"][N];
    type Event = Counted;
    type Document = usize;

    fn keys(&self, _: &Recorded<Counted>) -> Keys {
        Keys::one("all")
    }

    fn fold(&self, count: &mut Option<usize>, _: &Recorded<Counted>) -> FoldResult {
        *count.get_or_insert_default() += 1;
        Ok(())
    }
}

/// Those of the last page, and those that one reads before the others are there, may be decoded again. (Seen to fail where each
/// decoded for itself: 300.)
#[tokio::test]
async fn read_models_that_are_built_together_decode_each_event_once() {
    let log = MemoryStore::new();
    for _ in 0..100 {
        let event = NewEvent::new(EventData::of(&AccountEvent::Deposited { amount: 1 }).expect("an event"));
        let stream = StreamId::new("account", "a").expect("a stream");
        log.append(Append::new(stream, Expected::Any, vec![event])).await.expect("appended");
    }
    let source = LogSource::new(log.clone()).batch(10);
    let shutdown = tokio_util::sync::CancellationToken::new;
    let one = Projector::new(Count::<0>, source.clone(), log.clone());
    let other = Projector::new(Count::<1>, source.clone(), log.clone());
    let third = Projector::new(Count::<2>, source, log.clone());
    let built = tokio::join!(one.rebuild(shutdown()), other.rebuild(shutdown()), third.rebuild(shutdown()));
    for built in [built.0, built.1, built.2] {
        built.expect("built").expect("it serves");
    }
    let decoded = DECODED.load(Ordering::Relaxed);
    assert!((100..200).contains(&decoded), "{decoded}");
    let found = crate::ReadModel::<Count<0>>::new(log).get("all").await.expect("read");
    assert_eq!(found, Some(100));
}
