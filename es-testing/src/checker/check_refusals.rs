//! Checks each refusal of an append.

use super::{
    attempts::Attempt,
    evidence::Evidence,
    finding::{Promise, Wrong, wrong},
    remembered::{Keys, key_of},
    sent::Sent,
};
use es_core::{Expected, StreamId};

/// A conflict names one of the streams of the appends that were made together.
pub(super) fn conflict(
    evidence: &Evidence<'_>,
    keys: &Keys<'_>,
    attempt: &Attempt<'_>,
    sent: &Sent,
    (stream, expected, actual): (&StreamId, &str, u64),
) -> Wrong {
    if !attempt.group().iter().any(|sent| sent.stream == *stream) {
        return wrong(Promise::R2, format!("a conflict is about {stream}, to which nothing was appended"));
    }
    let least = evidence.moments.at_least(attempt.called);
    if evidence.log.rank_of(sent).is_some_and(|rank| rank <= least) {
        return wrong(Promise::R6, "an append that was already in the log got a conflict");
    }
    if sent.stream != *stream {
        return None;
    }
    if *expected != Expected::from(sent.expected).to_string() || evidence.holds(sent, actual) {
        return wrong(Promise::R2, "a conflict does not contradict what was expected");
    }
    if key_of(keys, sent).is_some_and(|known| known.rank <= least) {
        return wrong(Promise::R6, "a command that was already done got a conflict");
    }
    let from = evidence.log.version(stream, least);
    let to = evidence.log.version(stream, evidence.moments.at_most(attempt.returned));
    let is_state = actual == 0 || evidence.log.last_of(stream, actual).is_some_and(|rank| evidence.log.is_last(rank));
    if !(from..=to).contains(&actual) || !is_state {
        let what =
            format!("a conflict names version {actual}, which the stream did not have at that time ({from} to {to})");
        return wrong(Promise::R2, what);
    }
    None
}

/// A key counts as reused if it was used for another content, or for an append that was made without those that are made
/// together with it now.
pub(super) fn key_reused(evidence: &Evidence<'_>, keys: &Keys<'_>, attempt: &Attempt<'_>) -> Wrong {
    let group = attempt.group();
    if group.iter().all(|sent| sent.key.is_none()) {
        return wrong(Promise::R6, "an append without a key got the answer that its key was reused");
    }
    let least = evidence.moments.at_least(attempt.called);
    let most = evidence.moments.at_most(attempt.returned);
    let of_another = |sent: &Sent| {
        key_of(keys, sent).is_some_and(|used| sent.key.as_ref().is_some_and(|key| key.content != used.key.content))
    };
    let is_used = |sent: &Sent| {
        let known = key_of(keys, sent).filter(|used| used.rank <= most);
        let apart = || group.len() > 1 && evidence.log.rank_of(sent).is_none();
        known.is_some() && (of_another(sent) || apart())
    };
    if !group.iter().any(is_used) {
        return wrong(Promise::R6, "a key that was not used for another content was answered as reused");
    }
    let is_done = |sent: &Sent| {
        let known = key_of(keys, sent).map(|known| known.rank).or(evidence.log.rank_of(sent));
        known.is_some_and(|rank| rank <= least) && !of_another(sent)
    };
    if group.iter().all(is_done) {
        return wrong(Promise::R6, "a key was answered as reused for an append that was already made");
    }
    None
}
