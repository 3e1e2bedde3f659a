//! What a reader does when it cannot handle an event.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    backoff::Backoff,
    error::with_causes,
    read::{engine_error::EngineError, worker::BACKOFF},
    stream::Position,
};

/// What a reader does when it cannot handle an event.
///
/// An event fails when a fold, or what names its keys, returns an error or panics; when a reaction returns a permanent error or
/// panics; when the event cannot be decoded; when its documents cannot be written; and when it takes longer than the reader's time
/// limit. A transient error of a store or a source is no failure of an event: the reader tries again until it works. A stored
/// document that does not fit the code always stops the projector, since this is no fault of the event. An event of a name or
/// schema version that only newer code knows fails when the reader has stood by for
/// [`standby_limit`](crate::Projector::standby_limit).
///
/// - [`stop`](Self::stop), the default: the reader stops at the event (R11).
/// - [`retry`](Self::retry): it tries the event again after pauses, and meanwhile handles nothing else; then it stops or parks.
/// - [`park`](Self::park): the event goes to the dead letters under the key that failed, and so do all later events of that key, in
///   order. Other keys continue (R19). Operators retry, edit or discard the letters
///   ([`DeadLetters`](crate::DeadLetters)).
/// - [`forward`](Self::forward): the reader hands the event to its source, which keeps it beside the others, and goes on with the next
///   one, also of the same key: only where order does not matter. Sources that are topics of other systems can do that.
///
/// The key of a projection is a document's key: an event that touches two documents is parked only for the one that failed. The key
/// of a policy is the stream. Where the keys of an event are not known, because it cannot be decoded, a projection in
/// [per-stream order](crate::EventOrder::PerStream) parks the stream. A projection in log order stops with
/// [`EngineError::Unparkable`], since it cannot know which documents must wait.
///
/// ```
/// use std::time::Duration;
///
/// use es_core::{Backoff, FailurePolicy};
///
/// let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
/// let policy = FailurePolicy::retry(backoff, 5).then_park();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailurePolicy {
    backoff: Backoff,
    retries: u32,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Stop,
    Park,
    Forward,
}

/// Attempts before a [`FailurePolicy`] stops, parks or forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "say what follows: `then_stop`, `then_park` or `then_forward`"]
pub struct Retries {
    backoff: Backoff,
    retries: u32,
}

impl Retries {
    /// Stops the reader if no attempt succeeds.
    pub const fn then_stop(self) -> FailurePolicy {
        FailurePolicy { backoff: self.backoff, retries: self.retries, then: Then::Stop }
    }

    /// Parks the keys that failed if no attempt succeeds.
    pub const fn then_park(self) -> FailurePolicy {
        FailurePolicy { backoff: self.backoff, retries: self.retries, then: Then::Park }
    }

    /// Forwards the event if no attempt succeeds ([`FailurePolicy::forward`]).
    pub const fn then_forward(self) -> FailurePolicy {
        FailurePolicy { backoff: self.backoff, retries: self.retries, then: Then::Forward }
    }
}

impl FailurePolicy {
    /// The most dead letters of one reader by default.
    pub const DEFAULT_MOST_LETTERS: usize = 1_000;

    /// Stops the reader at the first failure.
    pub const fn stop() -> Self {
        Self::retry(Backoff::new(Duration::ZERO, Duration::ZERO), 0).then_stop()
    }

    /// Parks the keys of an event at its first failure. The event is handled once more for that, to learn which of its keys fail: a
    /// reaction may run twice.
    pub const fn park() -> Self {
        Self::retry(Backoff::new(Duration::ZERO, Duration::ZERO), 0).then_park()
    }

    /// Tries an event three times, with pauses of up to 100 ms and 200 ms. Then the reader hands it to its source and goes on: a topic
    /// of another system has retry topics, if they are declared, and a dead-letter topic. Later events of the key do not wait for it, so
    /// this is for readers to which order does not matter. A reader whose source cannot forward ends when it is started
    /// ([`SourceError::CannotForward`](crate::backend::SourceError::CannotForward)).
    ///
    /// What no attempt can change is forwarded at the first one, to where only an operator takes it from: an event that cannot be read or
    /// decoded.
    pub const fn forward() -> Self {
        Self::retry(Backoff::new(Duration::from_millis(100), Duration::from_secs(5)), 2).then_forward()
    }

    /// Tries an event again up to `times` times, with the pauses of `backoff`.
    pub const fn retry(backoff: Backoff, times: u32) -> Retries {
        Retries { backoff, retries: times }
    }
}

impl FailurePolicy {
    /// Whether it parks keys in the end.
    pub(crate) fn parks(&self) -> bool {
        self.then == Then::Park
    }

    /// Whether it hands events to the source in the end.
    pub(crate) fn forwards(&self) -> bool {
        self.then == Then::Forward
    }
}

impl Default for FailurePolicy {
    fn default() -> Self {
        Self::stop()
    }
}

/// The most bytes of the cause of a failure that is kept.
const MOST_CAUSE_BYTES: usize = 16 * 1024;

/// The text of `failure` with all its causes, as it is kept for operators. The application's part of it may hold any characters and
/// be of any length; every store can keep this one.
pub(crate) fn cause_of(failure: &EngineError) -> String {
    let mut text = with_causes(failure).replace('\0', "\u{fffd}");
    if text.len() > MOST_CAUSE_BYTES {
        let end = (0..=MOST_CAUSE_BYTES).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The settings of an engine for failures, and the events that it has given up.
#[derive(Debug)]
pub(crate) struct FailureSettings {
    pub(crate) policy: FailurePolicy,
    pub(crate) most_letters: usize,
    pub(crate) time_limit: Duration,
    /// Events that this program does not know and that no newer code has passed in time.
    unknown: Mutex<HashSet<Uuid>>,
}

impl Default for FailureSettings {
    fn default() -> Self {
        let (policy, most_letters) = (FailurePolicy::stop(), FailurePolicy::DEFAULT_MOST_LETTERS);
        Self { policy, most_letters, time_limit: Duration::MAX, unknown: Mutex::default() }
    }
}

impl FailureSettings {
    /// No newer code has passed the event in time. Returns whether the policy parks or forwards it.
    pub(crate) fn give_up_unknown(&self, event_id: Uuid) -> bool {
        let goes_on = self.policy.then != Then::Stop;
        if goes_on {
            self.unknown.lock().unwrap_or_else(PoisonError::into_inner).insert(event_id);
        }
        goes_on
    }

    fn is_given_up(&self, failure: &EngineError) -> bool {
        let EngineError::Decode(reason) = failure else { return false };
        self.unknown.lock().unwrap_or_else(PoisonError::into_inner).contains(&reason.event_id)
    }

    /// Whether an event that has failed `attempts` times is forwarded because of `failure`. `at_once`: also the first time, if only newer
    /// code knows it.
    pub(crate) fn forwards(&self, attempts: u32, failure: &EngineError, at_once: bool) -> bool {
        if !self.policy.forwards() || !failure.is_of_event() {
            return false;
        }
        if failure.awaits_newer_code() {
            return at_once || self.is_given_up(failure);
        }
        failure.is_lasting() || attempts > self.policy.retries
    }

    /// What to do about the event at `position`, which has just failed. A reaction that fails for now is tried again until it does not.
    pub(crate) fn decide(&self, attempts: &mut Attempts, position: Position, failure: &EngineError) -> Decision {
        if attempts.position != Some(position) {
            *attempts = Attempts { position: Some(position), ..Attempts::default() };
        }
        if failure.is_transient() {
            attempts.waits = attempts.waits.saturating_add(1);
            let pause = BACKOFF.pause(attempts.waits);
            attempts.due = Instant::now().checked_add(pause);
            return Decision::Retry(pause);
        }
        let is_unknown = failure.awaits_newer_code();
        if attempts.parks || !failure.is_of_event() || (is_unknown && !self.is_given_up(failure)) {
            return Decision::Stop;
        }
        attempts.failed = attempts.failed.saturating_add(1);
        // More attempts do not make an unknown event known.
        if attempts.failed <= self.policy.retries && !is_unknown {
            let pause = self.policy.backoff.pause(attempts.failed);
            attempts.due = Instant::now().checked_add(pause);
            return Decision::Retry(pause);
        }
        attempts.due = None;
        attempts.parks = self.policy.then == Then::Park;
        if attempts.parks { Decision::Park } else { Decision::Stop }
    }
}

/// What to do about an event that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    Stop,
    /// Try it again after this pause.
    Retry(Duration),
    Park,
}

/// The attempts at the next event of a shard.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    position: Option<Position>,
    failed: u32,
    /// How often it could not be handled for now, which is no failure of the event.
    waits: u32,
    due: Option<Instant>,
    parks: bool,
}

impl Attempts {
    /// How long to wait before the next attempt.
    pub(crate) fn wait(&self) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(Instant::now()))
    }

    /// The event that has failed last, and how often it has.
    pub(crate) fn tried(&self) -> Option<(Position, u32)> {
        self.position.map(|position| (position, self.failed))
    }

    /// The event whose failing keys are to be parked.
    pub(crate) fn parks(&self) -> Option<Position> {
        self.position.filter(|_| self.parks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::RecordedEvent,
        read::engine_error::Location,
        testing::{account::AccountEvent, recorded},
    };

    fn panicked(position: u64) -> EngineError {
        EngineError::Panicked { event: Location { position: Position::new(position), event: "account-a@1".to_owned() } }
    }

    #[test]
    fn each_event_has_its_attempts_and_then_the_policy_decides() {
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
        for (policy, last) in [
            (FailurePolicy::retry(backoff, 2).then_stop(), Decision::Stop),
            (FailurePolicy::retry(backoff, 2).then_park(), Decision::Park),
        ] {
            let (failures, mut attempts) =
                (FailureSettings { policy, ..FailureSettings::default() }, Attempts::default());
            let mut decide = |position| failures.decide(&mut attempts, Position::new(position), &panicked(position));
            for position in [7, 8] {
                assert!(matches!(decide(position), Decision::Retry(_)));
                assert!(matches!(decide(position), Decision::Retry(_)));
                assert_eq!(decide(position), last);
            }
            assert_eq!(decide(8), Decision::Stop, "what cannot be parked stops the reader");
        }
    }

    /// Postgres refuses a text with this character: the reader could neither park the event nor pass it.
    #[test]
    fn r19_every_store_can_keep_the_cause_of_a_failure() {
        let cause = |reason: String| {
            let event = Location { position: Position::new(1), event: "account-a@1".to_owned() };
            cause_of(&EngineError::Unfoldable { key: "a".to_owned(), event, reason: reason.into() })
        };
        assert!(cause("no \0 there".to_owned()).ends_with("no \u{fffd} there"));
        let long = cause("ü".repeat(MOST_CAUSE_BYTES));
        assert!(long.ends_with("ü…") && long.len() <= MOST_CAUSE_BYTES + '…'.len_utf8(), "{}", long.len());
        let longest = MOST_CAUSE_BYTES - cause(String::new()).len();
        assert!(cause("x".repeat(longest)).ends_with('x'), "it is kept as it is");
        assert_eq!(MOST_CAUSE_BYTES, 16_384);
    }

    #[test]
    fn what_is_no_fault_of_the_event_stops_the_reader() {
        let failures = FailureSettings { policy: FailurePolicy::park(), ..FailureSettings::default() };
        let decided = failures.decide(&mut Attempts::default(), Position::new(1), &EngineError::NotPerStream);
        assert_eq!(decided, Decision::Stop);
    }

    #[test]
    fn an_unknown_event_is_parked_only_when_it_is_given_up_and_is_not_tried_again() {
        let backoff = Backoff::new(Duration::from_hours(1), Duration::from_hours(1));
        let mut event = recorded([("a", AccountEvent::Deposited { amount: 1 })]).remove(0);
        event.data.name = "account.frozen".into();
        let (position, id) = (event.position, event.id);
        let unknown = EngineError::from(event.decode::<AccountEvent>().expect_err("no code knows it"));
        for (policy, parks) in [
            (FailurePolicy::retry(backoff, 2).then_park(), true),
            (FailurePolicy::retry(backoff, 2).then_stop(), false),
        ] {
            let failures = FailureSettings { policy, ..FailureSettings::default() };
            let decide = || failures.decide(&mut Attempts::default(), position, &unknown);
            assert_eq!(decide(), Decision::Stop, "newer code may come");
            assert_eq!(failures.give_up_unknown(id), parks);
            assert_eq!(decide(), if parks { Decision::Park } else { Decision::Stop });
            // Another partition may have such an event at the same position.
            let elsewhere = RecordedEvent { id: Uuid::from_u128(99), ..event.clone() };
            let elsewhere = EngineError::from(elsewhere.decode::<AccountEvent>().expect_err("no code knows it"));
            assert_eq!(failures.decide(&mut Attempts::default(), position, &elsewhere), Decision::Stop);
        }
    }

    #[tokio::test]
    async fn the_next_attempt_waits_for_the_pause() {
        let hour = Duration::from_hours(1);
        let policy = FailurePolicy::retry(Backoff::new(hour, hour), 1).then_stop();
        let (failures, mut attempts) = (FailureSettings { policy, ..FailureSettings::default() }, Attempts::default());
        assert_eq!(attempts.wait(), Duration::ZERO);
        let Decision::Retry(pause) = failures.decide(&mut attempts, Position::new(7), &panicked(7)) else {
            panic!("expected another attempt")
        };
        assert!(attempts.wait() > pause / 2, "{:?} of {pause:?}", attempts.wait());
    }
}
