use std::collections::VecDeque;

use uuid::Uuid;

use super::*;
use crate::{
    Append, EventOrder, Expected, MemoryStore, Position,
    event::{Categories, RecordedEvent},
    read::source::{Batch, LogSource, Split},
    testing::{account::AccountEvent, recorded},
    write::scripted::{Fate, Scripted},
};

const LIMIT: Duration = Duration::from_millis(5);

/// A source whose pages take 100 ms each to be read; after the last one comes the end.
#[derive(Debug)]
struct Slow(usize);

#[derive(Debug)]
struct SlowFeed(VecDeque<Batch>);

#[async_trait]
impl EventSource for Slow {
    async fn open(&self, _: &Subscription) -> Result<Box<dyn EventFeed>, SourceError> {
        let batch = |nth| Batch {
            shard: LogSource::shard(),
            events: events().into(),
            checkpoint: Checkpoint::default(),
            end: (nth == self.0).then_some(Position::new(1)),
        };
        Ok(Box::new(SlowFeed((1..=self.0).map(batch).collect())))
    }
}

#[async_trait]
impl EventFeed for SlowFeed {
    fn shards(&self) -> Vec<Shard> {
        vec![LogSource::shard()]
    }

    fn takeover(&self) -> Takeover {
        Takeover::WhenFree
    }

    async fn next(&mut self) -> Result<Delivery, SourceError> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(self.0.pop_front().map_or(Delivery::Idle, Delivery::Batch))
    }

    fn urgent(&mut self) -> Option<Delivery> {
        Some(Delivery::Idle)
    }

    async fn start(&mut self, _: &Shard, _: &Checkpoint) -> Result<(), SourceError> {
        Ok(())
    }
}

fn events() -> Vec<RecordedEvent> {
    recorded([("a", AccountEvent::Deposited { amount: 1 })])
}

fn subscription() -> Subscription {
    let (categories, order, split) = (Categories::All, EventOrder::PerKey, Split::NONE);
    Subscription { reader: "test".into(), store: Uuid::nil(), categories, order, split, forwards: false }
}

/// A feed of so many pages, at a quarter of the time.
async fn feed(pages: usize) -> Box<dyn EventFeed> {
    let throttle = Throttle::keeping(LIMIT, MemoryStore::new());
    let feed = Slow(pages).open(&subscription()).await.expect("opened");
    // Without probes, whose clock is not that of the test.
    Box::new(ThrottledFeed::new(feed, throttle.0, Arc::new(Probing)))
}

/// How many milliseconds it takes until the next delivery.
async fn next(feed: &mut Box<dyn EventFeed>) -> u128 {
    let asked = Instant::now();
    feed.next().await.expect("a delivery");
    asked.elapsed().as_millis()
}

async fn work(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_works_for_its_part_of_the_time() {
    let mut feed = feed(3).await;
    assert_eq!(next(&mut feed).await, 100);
    work(100).await;
    assert_eq!(next(&mut feed).await, 600 + 100, "reading and handling are a quarter of the time");
    assert_eq!(next(&mut feed).await, 300 + 100);
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_events_is_no_work() {
    let mut feed = feed(1).await;
    assert_eq!(next(&mut feed).await, 100);
    work(10).await;
    assert_eq!(next(&mut feed).await, 30 + 100, "only the handling counts at the end of the source");
    assert_eq!(next(&mut feed).await, 100);
}

#[tokio::test(start_paused = true)]
async fn a_long_pause_is_made_in_parts_between_pages() {
    let mut feed = feed(100).await;
    next(&mut feed).await;
    work(1_000).await;
    // 3.3 s, and 0.3 s more for each page.
    for page in 0..4 {
        assert_eq!(next(&mut feed).await, 1_000 + 100, "page {page}");
    }
    assert_eq!(next(&mut feed).await, 3_300 + 4 * 300 - 4_000 + 100);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_took_minutes_is_not_atoned_for_with_minutes() {
    let mut feed = feed(100).await;
    next(&mut feed).await;
    work(600_000).await;
    let began = Instant::now();
    let mut pages = 0;
    while next(&mut feed).await == 1_000 + 100 {
        pages += 1;
    }
    // 20 s, and 0.3 s more for each page.
    assert!((25..30).contains(&pages) && began.elapsed() < Duration::from_secs(35), "{pages}");
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_is_interrupted_is_continued() {
    let mut feed = feed(2).await;
    next(&mut feed).await;
    let interrupted = tokio::time::timeout(Duration::from_millis(200), feed.next()).await;
    assert!(interrupted.is_err());
    assert_eq!(next(&mut feed).await, 100 + 100, "of 300 ms");
}

#[tokio::test]
async fn a_throttled_source_is_the_source_but_for_its_pauses() {
    let sources: [(Box<dyn EventSource>, bool); 2] =
        [(Box::new(LogSource::new(MemoryStore::new())), true), (Box::new(Slow(1)), false)];
    for (source, is_of_log) in sources {
        let mut feed = source.open(&subscription()).await.expect("opened");
        feed.start(&LogSource::shard(), &Checkpoint::default()).await.expect("started");
        let throttle = Throttle::keeping(LIMIT, MemoryStore::new());
        let mut throttled = ThrottledFeed::new(feed, throttle.0, Arc::new(Probing));
        assert_eq!(throttled.shards(), [LogSource::shard()]);
        assert_eq!((throttled.stop(&LogSource::shard()), throttled.urgent().is_some()), (is_of_log, !is_of_log));
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_is_probed_until_the_last_feed_is_dropped() {
    let log = Arc::new(Scripted::new([Fate::Breaks]));
    let (throttle, kept) = (Throttle::keeping(LIMIT, log.clone()), Arc::new(Probing));
    let probing = tokio::spawn(probe(throttle.0.clone(), Arc::downgrade(&kept)));
    work(100 * 25).await;
    let state = throttle.state();
    assert!(state.share > 0.3 && state.append_p99.is_some_and(|p99| p99 < LIMIT) && state.limit == LIMIT, "{state:?}");

    let append = Append::new(events()[0].stream.clone(), Expected::Any, Vec::new());
    log.append(append).await.expect_err("it breaks");
    work(10_000).await;
    let state = throttle.state();
    assert!(state.share < 0.06, "a store that does not answer takes too long: {state:?}");

    drop(kept);
    probing.await.expect("it ends");
}

#[test]
fn feeds_share_their_probes() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let _entered = runtime.enter();
    let throttle = Throttle::keeping(LIMIT, MemoryStore::new()).0;
    let (first, second) = (throttle.probing(), throttle.probing());
    assert!(Arc::ptr_eq(&first, &second));
    drop((first, second));
    assert!(throttle.probing.lock().expect("nothing panics under it").upgrade().is_none());
}
