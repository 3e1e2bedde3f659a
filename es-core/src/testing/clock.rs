//! A clock that a test moves.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::memory::MemoryStore;

/// A clock that a test moves, and stores whose events are recorded at its time. Clones are the same clock.
///
/// It sets [`recorded_at`](crate::Recorded::recorded_at). All that a service waits for (pauses between attempts, standby, time limits,
/// leases of a store in memory) follows the clock of tokio. In a test with `#[tokio::test(start_paused = true)]` (tokio's feature
/// `test-util`) that one jumps to the next time for which anything waits, so an hour takes no time, and a clock that is
/// [`running`](Self::running) moves with it. Leases of a store on a server or file follow the clock of that.
///
/// ```
/// # use es_core::{Aggregate, Event, FoldResult, Keys, Projection, Recorded};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, PartialEq, Event)]
/// # #[event(category = "door")]
/// # enum DoorEvent { #[event(name = "door.opened")] Opened }
/// # #[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
/// # struct Door;
/// # struct Open;
/// # impl Aggregate for Door {
/// #     type Command = Open;
/// #     type Event = DoorEvent;
/// #     type Error = std::convert::Infallible;
/// #     fn handle(&self, _: &Open) -> Result<Vec<DoorEvent>, Self::Error> { Ok(vec![DoorEvent::Opened]) }
/// #     fn apply(&mut self, _: &DoorEvent) {}
/// # }
/// # /// How often doors were opened on each day.
/// # struct OpenedOn;
/// # impl Projection for OpenedOn {
/// #     const NAME: &'static str = "opened-on";
/// #     type Event = DoorEvent;
/// #     type Document = u32;
/// #     fn keys(&self, event: &Recorded<DoorEvent>) -> Keys { Keys::one(event.recorded_at.date_naive().to_string()) }
/// #     fn fold(&self, times: &mut Option<u32>, _: &Recorded<DoorEvent>) -> FoldResult {
/// #         *times.get_or_insert_default() += 1;
/// #         Ok(())
/// #     }
/// # }
/// use std::time::Duration;
///
/// use es_core::{Service, testing::TestClock};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let clock = TestClock::at("2026-01-31T23:30:00Z".parse()?);
/// let service = Service::builder("doors", clock.store()).aggregate::<Door>().projection(OpenedOn).start().await?;
/// let doors = service.repository::<Door>();
///
/// doors.execute("front", Open).await?;
/// clock.advance(Duration::from_hours(1));
/// doors.execute("front", Open).await?;
///
/// // Returns when read models and policies have followed; no test sleeps.
/// service.settled(Duration::from_secs(10)).await?;
/// let opened = service.read_model::<OpenedOn>();
/// assert_eq!(opened.get("2026-01-31").await?, Some(1));
/// assert_eq!(opened.get("2026-02-01").await?, Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct TestClock(Arc<Mutex<Shown>>);

#[derive(Debug)]
struct Shown {
    time: DateTime<Utc>,
    /// When it showed that; `None`: it stands still.
    since: Option<Instant>,
}

impl TestClock {
    /// A clock that shows `time`, and stands still until the test moves it.
    pub fn at(time: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(Shown { time, since: None })))
    }

    /// A clock that shows `time` and goes as fast as that of tokio.
    pub fn running(time: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(Shown { time, since: Some(Instant::now()) })))
    }

    /// An empty store whose events are recorded at the time of this clock.
    pub fn store(&self) -> MemoryStore {
        let clock = self.clone();
        MemoryStore::with_clock(move || clock.now())
    }

    /// The time that it shows.
    pub fn now(&self) -> DateTime<Utc> {
        let shown = self.lock();
        shown.time + shown.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Moves it forward by `time`.
    ///
    /// # Panics
    /// When the sum is later than the year 262142, the last one that `chrono` knows.
    pub fn advance(&self, time: Duration) {
        self.lock().time += time;
    }

    /// Moves it to `time`, which may be in its past: that happens to the clocks of servers too.
    pub fn set(&self, time: DateTime<Utc>) {
        let mut shown = self.lock();
        let since = shown.since.map(|_| Instant::now());
        *shown = Shown { time, since };
    }

    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
