//! Engines stand by for newer code, and continue when that code is gone.

use std::{collections::HashMap, ops::ControlFlow, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::read::{
    engine_error::EngineError,
    failure::FailureSettings,
    read_model::Pause,
    worker::{self, Pending, Step, Worker},
    worker_state::{STANDBY_LIMIT, STANDBY_RETRY, StateReport, WorkerState},
};

/// How often a paused engine looks whether it is resumed.
const PAUSED_RETRY: Duration = Duration::from_secs(1);

/// The settings with which an engine stands by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standby {
    /// How often it tries again.
    pub(crate) retry: Duration,
    /// How long it waits for newer code at one event.
    pub(crate) limit: Duration,
}

impl Default for Standby {
    fn default() -> Self {
        Self { retry: STANDBY_RETRY, limit: STANDBY_LIMIT }
    }
}

impl Standby {
    /// Whether a worker that was opened `since` so long and has made `step` goes on, so that it stands by no more. Not earlier: its
    /// next event may be one that only newer code knows.
    pub(crate) fn is_over(&self, step: Step, since: Duration) -> bool {
        matches!(step, Step::AtEnd(_)) || since > self.retry
    }

    /// Lets `worker` make its steps until the shutdown, and reports when it stands by no more.
    pub(crate) async fn work(
        self,
        worker: Worker<'_>,
        name: &'static str,
        report: &StateReport,
        shutdown: &CancellationToken,
    ) -> Result<Option<()>, EngineError> {
        let opened = Instant::now();
        let steps = worker.run(shutdown, |step| {
            Box::pin(async move {
                if self.is_over(step, opened.elapsed()) {
                    report.set(name, WorkerState::Working);
                }
                Ok(ControlFlow::Continue(()))
            })
        });
        steps.await
    }

    /// Makes attempts until the shutdown or a permanent error. When only newer code can do the work, it stands by and tries
    /// again. While the reader is paused, each attempt finds that at its start.
    pub(crate) async fn run<'a>(
        self,
        name: &'static str,
        report: &StateReport,
        failures: &FailureSettings,
        shutdown: &CancellationToken,
        attempt: impl Fn() -> Pending<'a, Option<()>>,
    ) -> Result<(), EngineError> {
        let mut unknown = Unknown::default();
        loop {
            let Err(error) = worker::persist(name, report, shutdown, &attempt).await else { return Ok(()) };
            let error = match error {
                EngineError::Paused(pause) => {
                    report.set(name, WorkerState::Paused(pause));
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(()),
                        () = tokio::time::sleep(PAUSED_RETRY) => continue,
                    }
                }
                EngineError::Decode(reason) if reason.reason.is_of_newer_code() => {
                    match unknown.waited(reason.event_id, Instant::now(), self.limit) {
                        waited if waited < self.limit => EngineError::Decode(reason),
                        _ if failures.give_up_unknown(reason.event_id) => continue,
                        waited => EngineError::NeverKnown { waited, reason: Box::new(reason) },
                    }
                }
                error => error,
            };
            if !error.awaits_newer_code() {
                report.set(name, WorkerState::stopped(&error));
                return Err(error);
            }
            report.set(name, WorkerState::standing_by(&error));
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(self.retry) => {}
            }
        }
    }
}

/// Makes attempts until one ends otherwise than by a pause: a rebuild waits until its reader is resumed. Each attempt finds the
/// pause when it has taken a lease.
pub(crate) async fn waits_while_paused<'a, T>(
    name: &'static str,
    shutdown: &CancellationToken,
    attempt: impl Fn() -> Pending<'a, Option<T>>,
) -> Result<Option<T>, EngineError> {
    loop {
        match attempt().await {
            Err(EngineError::Paused(Pause { actor, reason, .. })) => {
                tracing::info!(name, actor, reason, "the rebuild waits while its reader is paused");
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(None),
                    () = tokio::time::sleep(PAUSED_RETRY) => {}
                }
            }
            ended => return ended,
        }
    }
}

/// Events that this program does not know, each with the time at which the engine first stopped at it.
///
/// Each event has its own time, and is known by its id: records of several partitions have the same position. The shards of one engine may stop at different events in turn, and in a long deploy newer code
/// passes one after the other.
#[derive(Default)]
struct Unknown(HashMap<Uuid, Instant>);

impl Unknown {
    /// For how long the engine has waited at the event, where it stopped again `now`.
    fn waited(&mut self, event_id: Uuid, now: Instant, limit: Duration) -> Duration {
        // The engine does not stop again at events that were passed.
        let forget = limit.saturating_mul(2);
        self.0.retain(|known, since| *known == event_id || now.duration_since(*since) < forget);
        now.duration_since(*self.0.entry(event_id).or_insert(now))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::{
        read::failure::FailurePolicy,
        stream::Position,
        testing::{account::AccountEvent, recorded},
    };

    #[tokio::test]
    async fn an_event_that_no_code_can_read_is_not_waited_for() {
        let standby = Standby { retry: Duration::from_hours(1), limit: Duration::ZERO };
        let mut event = recorded([("a", AccountEvent::Deposited { amount: 1 })]).remove(0);
        event.data.payload = "{}".into();
        let attempt = || -> Pending<'_, Option<()>> {
            let read = event.decode::<AccountEvent>().map(|_| None).map_err(EngineError::from);
            Box::pin(async { read })
        };
        let ended = standby
            .run("test", &StateReport::default(), &FailureSettings::default(), &CancellationToken::new(), attempt)
            .await;
        assert!(matches!(ended, Err(EngineError::Decode(_))), "{ended:?}");
    }

    #[test]
    fn a_worker_goes_on_at_the_end_of_its_source_or_after_a_while() {
        let standby = Standby { retry: Duration::from_secs(5), ..Standby::default() };
        for (step, seconds, is_over) in [
            (Step::AtEnd(Position::new(7)), 0, true),
            (Step::AtEnd(Position::new(7)), 9, true),
            (Step::Worked, 0, false),
            (Step::Worked, 5, false),
            (Step::Worked, 6, true),
            (Step::Standby, 0, false),
        ] {
            assert_eq!(standby.is_over(step, Duration::from_secs(seconds)), is_over, "{step:?} after {seconds} s");
        }
    }

    #[test]
    fn each_event_is_waited_for_from_when_it_was_met_first() {
        let (mut unknown, start, limit) = (Unknown::default(), Instant::now(), Duration::from_mins(15));
        let mut waited = |position, minute| {
            let now = start + Duration::from_mins(minute);
            unknown.waited(Uuid::from_u64_pair(0, position), now, limit).as_secs() / 60
        };
        // Two shards in turn.
        for minute in [0, 2, 4, 14] {
            assert_eq!((waited(7, minute), waited(9, minute + 1)), (minute, minute));
        }
        assert_eq!(waited(7, 15), 15);
        // Newer code passes one after the other.
        for position in 10..20 {
            assert_eq!(waited(position, position + 10), 0);
        }
        assert_eq!(waited(10, 200), 180, "however rarely it is met");
        assert_eq!(unknown.0.len(), 1, "those that were passed are forgotten");
    }

    #[tokio::test]
    async fn r19_an_event_that_no_program_knows_in_time_is_parked_where_the_policy_parks() {
        let standby = Standby { retry: Duration::from_hours(1), limit: Duration::ZERO };
        let mut event = recorded([("a", AccountEvent::Deposited { amount: 1 })]).remove(0);
        event.data.name = "account.frozen".into();
        for (policy, ends_well) in [(FailurePolicy::park(), true), (FailurePolicy::stop(), false)] {
            let (mut failures, attempts) = (FailureSettings::default(), AtomicU32::new(0));
            failures.policy = policy;
            let attempt = || -> Pending<'_, Option<()>> {
                let is_first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
                let read = event.decode::<AccountEvent>().map(|_| None).map_err(EngineError::from);
                Box::pin(async move { if is_first { read } else { Ok(None) } })
            };
            let ended =
                standby.run("test", &StateReport::default(), &failures, &CancellationToken::new(), attempt).await;
            match ended {
                Ok(()) => assert!(ends_well && attempts.into_inner() == 2),
                Err(error) => assert!(!ends_well && matches!(error, EngineError::NeverKnown { .. }), "{error:?}"),
            }
        }
    }
}
