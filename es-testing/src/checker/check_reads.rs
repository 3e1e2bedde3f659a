//! Checks that each read saw the log as it was at one moment.

use std::ops::RangeInclusive;

use super::{
    attempts::Attempt,
    check_log::place,
    evidence::Evidence,
    finding::Promise,
    history::{Call, Outcome, Seen},
};

pub(super) fn check(evidence: &mut Evidence<'_>) {
    let mut found = Vec::new();
    for attempt in evidence.attempts.iter().filter(|attempt| attempt.sent().is_none()) {
        let wrong = match attempt.outcome {
            Some(Outcome::Failed { .. }) if !evidence.moments.is_troubled(attempt.called, attempt.returned) => {
                Some((Promise::Port, "a read failed although nothing was disrupted".to_owned()))
            }
            Some(Outcome::Stuck) => Some((Promise::Port, "a read did not return in time".to_owned())),
            Some(outcome) => read(evidence, attempt, outcome).map(|what| (Promise::R3, what)),
            None => None,
        };
        found.extend(wrong.map(|(promise, what)| (promise, what, *attempt)));
    }
    for (promise, what, attempt) in found {
        evidence.find(promise, what, &[&attempt]);
    }
}

fn read(evidence: &Evidence<'_>, attempt: &Attempt<'_>, outcome: &Outcome) -> Option<String> {
    let least = evidence.moments.at_least(attempt.called);
    let most = evidence.moments.at_most(attempt.returned);
    match (attempt.call, outcome) {
        (Call::ReadLog { after, limit }, Outcome::Events(page)) => {
            let ranks: Vec<u64> = (after + 1..=evidence.log.len()).collect();
            compare(evidence, page, &ranks, *limit, least..=most)
        }
        (Call::ReadStream { stream, after, limit }, Outcome::Events(page)) => {
            let skipped = usize::try_from(*after).unwrap_or(usize::MAX);
            let ranks = evidence.log.stream(stream).get(skipped..).unwrap_or_default();
            compare(evidence, page, ranks, *limit, least..=most)
        }
        (Call::ReadMatching { query, after, limit }, Outcome::Events(page)) => {
            let ranks = (after + 1..=evidence.log.len()).filter(|rank| evidence.log.matches(query, *rank));
            compare(evidence, page, &ranks.collect::<Vec<_>>(), *limit, least..=most)
        }
        (Call::Head, Outcome::Head(head)) if !(least..=most).contains(head) || !evidence.log.is_boundary(*head) => {
            Some(format!("the head is {head}, the log ended between {least} and {most}"))
        }
        (Call::WaitPast { after }, Outcome::Woken) if *after >= most => {
            Some(format!("a reader at {after} was woken, the log had {most} events at most"))
        }
        _ => None,
    }
}

/// Whether `page` is a correct answer: the first `limit` of the events at `ranks` that were in the log at one moment, when
/// its length was among `lengths`.
fn compare(
    evidence: &Evidence<'_>,
    page: &[Seen],
    ranks: &[u64],
    limit: usize,
    mut lengths: RangeInclusive<u64>,
) -> Option<String> {
    let mut expected = ranks.iter().filter_map(|rank| evidence.log.at(*rank));
    for event in page {
        match expected.next() {
            Some(stored) if stored == event => {}
            Some(stored) => {
                return Some(format!("a read returned {} where the log has {}", place(event), place(stored)));
            }
            None => return Some(format!("a read returned {}, which was not in the range", place(event))),
        }
    }
    let asked = |length: u64| ranks.partition_point(|rank| *rank <= length);
    let (count, least, most) = (page.len(), asked(*lengths.start()), asked(*lengths.end()));
    if count > limit || count > most {
        return Some(format!("a read with the limit {limit} returned {count} events, and there were at most {most}"));
    }
    if count < least.min(limit) {
        return Some(format!("a read with the limit {limit} returned {count} events, and there were at least {least}"));
    }
    let is_whole = count == limit || lengths.any(|length| asked(length) == count && evidence.log.is_boundary(length));
    (!is_whole).then(|| "a read returned a part of an append, or of appends that were made together".to_owned())
}
