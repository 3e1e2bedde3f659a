//! Checks conditions: of each append in the log, and of each append that was answered with a failed condition.

use super::{
    attempts::Attempt,
    evidence::Evidence,
    finding::{Promise, Wrong, wrong},
    log::Write,
    query::Given,
    remembered::{Keys, key_of},
    sent::Sent,
};

/// R2: no event matches between the position that its decision had seen and its own.
pub(super) fn check(evidence: &mut Evidence<'_>) {
    let mut found = Vec::new();
    for write in evidence.writes.iter().filter(|write| write.flaw().is_none()) {
        if let Some((place, missed)) = missed(evidence, write) {
            let what = format!(
                "an append was written at position {place}, although {missed}, which its decision had not seen, matches its condition"
            );
            // The call that wrote the missed event does not matter.
            let missed = evidence.log.at(missed).map(|event| event.id);
            let by = |write: &&Write<'_>| write.sent.events.iter().any(|event| Some(event.id) == missed);
            let others = evidence.writes.iter().find(by).map(|write| write.attempts.clone());
            found.push((what, [write.attempts.clone(), others.unwrap_or_default()].concat()));
        }
    }
    for (what, attempts) in found {
        let attempts: Vec<&dyn std::fmt::Display> = attempts.iter().map(|attempt| attempt as _).collect();
        evidence.find(Promise::R2, what, &attempts);
    }
}

/// Its place, and the first matching event that it missed. (Appends that are made together are decided at one moment.)
fn missed(evidence: &Evidence<'_>, write: &Write<'_>) -> Option<(u64, u64)> {
    evidence.log.rank_of(write.sent)?;
    let place = evidence.log.rank_of_any(write.group)?;
    let first = |given: &Given| (given.after + 1..place).find(|rank| evidence.log.matches(&given.query, *rank));
    let missed = write.sent.conditions.iter().find_map(first)?;
    Some((place, missed))
}

/// The condition belongs to one of the appends that are made together, and the event that it fails on is not one of
/// theirs.
pub(super) fn condition_failed(
    evidence: &Evidence<'_>,
    keys: &Keys<'_>,
    attempt: &Attempt<'_>,
    position: u64,
) -> Wrong {
    let least = evidence.moments.at_least(attempt.called);
    if evidence.log.rank_of_any(attempt.group()).is_some_and(|rank| rank <= least.max(position)) {
        return wrong(Promise::R6, "a condition failed for an append that was already in the log");
    }
    if position > evidence.moments.at_most(attempt.returned) {
        return wrong(Promise::R2, format!("a condition failed by the event at {position}, which was not there yet"));
    }
    let fails = |sent: &&Sent| {
        let fails = |given: &Given| position > given.after && evidence.log.matches(&given.query, position);
        sent.conditions.iter().any(fails)
    };
    let mut failed = attempt.group().iter().filter(fails).peekable();
    if failed.peek().is_none() {
        return wrong(Promise::R2, format!("a condition failed by the event at {position}, which does not match it"));
    }
    let is_done = |sent: &Sent| key_of(keys, sent).is_some_and(|known| known.rank <= least);
    if failed.all(is_done) {
        return wrong(Promise::R6, "a condition failed for a command that was already done");
    }
    None
}
