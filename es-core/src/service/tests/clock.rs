//! A service whose clock is the test's.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    backoff::Backoff,
    event::Recorded,
    read::{
        failure::FailurePolicy,
        projection::{FoldResult, Keys, Projection},
    },
    service::Service,
    stream::Position,
    testing::{
        TestClock,
        account::{Account, AccountCommand, AccountEvent},
    },
    write::store::EventStore,
};

const FAILURES: u32 = 10;

/// Fails so many times, and succeeds then.
struct Flaky(AtomicU32);

impl Projection for Flaky {
    const NAME: &'static str = "flaky";
    type Event = AccountEvent;
    type Document = DateTime<Utc>;

    fn keys(&self, event: &Recorded<AccountEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, document: &mut Option<DateTime<Utc>>, event: &Recorded<AccountEvent>) -> FoldResult {
        if self.0.fetch_add(1, Ordering::Relaxed) < FAILURES {
            return Err("as the test wants it".into());
        }
        *document = Some(event.recorded_at);
        Ok(())
    }
}

/// Pauses of up to a minute, of which ten together are never short.
#[tokio::test(start_paused = true)]
async fn pauses_between_attempts_take_no_time_where_the_clock_is_the_tests() {
    let (began, start) = (std::time::Instant::now(), "2026-01-31T12:00:00Z".parse().expect("a time"));
    let clock = TestClock::running(start);
    let minute = Duration::from_mins(1);
    let retries = FailurePolicy::retry(Backoff::new(minute, minute), FAILURES).then_stop();
    let builder = Service::builder("accounts", clock.store()).aggregate::<Account>();
    let service = builder.projection(Flaky(AtomicU32::new(0))).on_failure(retries).start().await.expect("it starts");
    let accounts = service.repository::<Account>();
    accounts.execute("a", AccountCommand::Deposit(1)).await.expect("executed");
    service.settled(minute * 60).await.expect("it is tried again");
    let late = clock.now() - start;
    assert!(late > TimeDelta::seconds(30), "{late}");
    accounts.execute("a", AccountCommand::Deposit(1)).await.expect("executed");
    let events = service.store().read_log(Position::ZERO, 10).await.expect("read");
    assert!(events[1].recorded_at - events[0].recorded_at >= late, "what is recorded follows the same clock");
    service.shutdown(minute).await.expect("in time");
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
