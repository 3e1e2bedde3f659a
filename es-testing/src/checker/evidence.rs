//! The evidence of a run: its history, its log, and what follows from both.

use std::fmt;

use chrono::DateTime;

use super::{
    attempts::Attempt,
    finding::{Finding, Promise},
    history::Outcome,
    log::{Log, Write},
    moments::Moments,
    sent::Sent,
};
use es_core::{Expected, Version, backend::Witness};

/// More findings of one kind would add no information.
const MOST_OF_A_PROMISE: usize = 5;

/// Everything that is known about a run.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) log: Log<'a>,
    pub(super) attempts: Vec<Attempt<'a>>,
    pub(super) writes: Vec<Write<'a>>,
    pub(super) moments: Moments,
    pub(super) seed: u64,
    pub(super) findings: Vec<Finding>,
}

impl Evidence<'_> {
    /// Records a broken promise.
    pub(super) fn find(&mut self, promise: Promise, what: String, calls: &[&dyn fmt::Display]) {
        if self.findings.iter().filter(|finding| finding.promise == promise).count() < MOST_OF_A_PROMISE {
            let calls = calls.iter().map(ToString::to_string).collect();
            self.findings.push(Finding { promise, what, calls, seed: self.seed });
        }
    }

    /// Whether the stream of `sent` was as it expects when it had `version`.
    pub(super) fn holds(&self, sent: &Sent, version: u64) -> bool {
        let last = self.log.last_of(&sent.stream, version).and_then(|rank| self.log.at(rank));
        // Clients of the checker expect no time.
        let last = last.map(|last| Witness { event_id: last.id, recorded_at: DateTime::UNIX_EPOCH });
        Expected::from(sent.expected).holds(Version::new(version), last)
    }

    /// Whether `attempt` may be the one that wrote.
    pub(super) fn may_have_written(&self, attempt: &Attempt<'_>) -> bool {
        let wrote = matches!(attempt.outcome, Some(Outcome::Appended { repeated: false, .. }));
        attempt.is_unknown() || wrote || self.may_repeat_itself(attempt)
    }

    /// Whether the append that `attempt` found in the log may be its own: a store that lost the answer sends the append
    /// again. It may notice the lost connection long after the fault, when it uses it again.
    pub(super) fn may_repeat_itself(&self, attempt: &Attempt<'_>) -> bool {
        matches!(attempt.outcome, Some(Outcome::Appended { repeated: true, .. }))
            && self.moments.is_troubled(0, attempt.returned)
    }
}
