//! Whether conditions were kept: by each append that is in the log, and by each that is said to have failed one.

use super::{
    attempts::Attempt,
    evidence::Evidence,
    finding::{Promise, Wrong, wrong},
    log::Write,
    query::Given,
    remembered::{Keys, key_of},
    sent::Sent,
};

/// R2: between the position that its decision had seen and its own there is nothing that matches.
pub(super) fn check(evidence: &mut Evidence<'_>) {
    let mut found = Vec::new();
    for write in evidence.writes.iter().filter(|write| write.flaw().is_none()) {
        if let Some((place, missed)) = missed(evidence, write) {
            let what =
                format!("an append was written at position {place}, and did not know of {missed}, which matches");
            // Whoever has written what it did not know of.
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

/// Where it is, and the first event that it should have known of. (What is made together is decided at once.)
fn missed(evidence: &Evidence<'_>, write: &Write<'_>) -> Option<(u64, u64)> {
    evidence.log.rank_of(write.sent)?;
    let place = evidence.log.rank_of_any(write.group)?;
    let first = |given: &Given| (given.after + 1..place).find(|rank| evidence.log.matches(&given.query, *rank));
    let missed = write.sent.conditions.iter().find_map(first)?;
    Some((place, missed))
}

/// A condition is that of one of the appends that were to be made together, and the event that fails it is none of
/// theirs.
pub(super) fn condition_failed(
    evidence: &Evidence<'_>,
    keys: &Keys<'_>,
    attempt: &Attempt<'_>,
    position: u64,
) -> Wrong {
    let least = evidence.moments.at_least(attempt.called);
    if evidence.log.rank_of_any(attempt.group()).is_some_and(|rank| rank <= least.max(position)) {
        return wrong(Promise::R6, "a condition failed for an append that was in the log already");
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
        return wrong(Promise::R6, "a condition failed for a command that was done already");
    }
    None
}
