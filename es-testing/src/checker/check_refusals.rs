//! Whether each refusal of an append is true.

use super::{
    attempts::Attempt,
    evidence::Evidence,
    finding::{Promise, Wrong, wrong},
    remembered::{Keys, key_of},
    sent::Sent,
};
use es_core::{Expected, StreamId};

/// A conflict names one stream of those to which appends were to be made together.
pub(super) fn conflict(
    evidence: &Evidence<'_>,
    keys: &Keys<'_>,
    attempt: &Attempt<'_>,
    sent: &Sent,
    (stream, expected, actual): (&StreamId, &str, u64),
) -> Wrong {
    if !attempt.group().iter().any(|sent| sent.stream == *stream) {
        return wrong(Promise::R2, format!("a conflict is about {stream}, which was not asked for"));
    }
    let least = evidence.moments.at_least(attempt.called);
    if evidence.log.rank_of(sent).is_some_and(|rank| rank <= least) {
        return wrong(Promise::R6, "an append that was in the log already got a conflict");
    }
    if sent.stream != *stream {
        return None;
    }
    if *expected != Expected::from(sent.expected).to_string() || evidence.holds(sent, actual) {
        return wrong(Promise::R2, "a conflict does not contradict what was expected");
    }
    if key_of(keys, sent).is_some_and(|known| known.rank <= least) {
        return wrong(Promise::R6, "a command that was done already got a conflict");
    }
    let from = evidence.log.version(stream, least);
    let to = evidence.log.version(stream, evidence.moments.at_most(attempt.returned));
    let is_state = actual == 0 || evidence.log.last_of(stream, actual).is_some_and(|rank| evidence.log.is_last(rank));
    if !(from..=to).contains(&actual) || !is_state {
        let what = format!("a conflict tells version {actual}, which the stream did not have then ({from} to {to})");
        return wrong(Promise::R2, what);
    }
    None
}

/// A key is used when it was used for another content; and what was done without those that are to be made together
/// with it now is not done with them.
pub(super) fn key_reused(evidence: &Evidence<'_>, keys: &Keys<'_>, attempt: &Attempt<'_>) -> Wrong {
    let group = attempt.group();
    if group.iter().all(|sent| sent.key.is_none()) {
        return wrong(Promise::R6, "an append without a key was told that it is used");
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
        return wrong(Promise::R6, "a key was called used that was not used for another content");
    }
    let is_done = |sent: &Sent| {
        let known = key_of(keys, sent).map(|known| known.rank).or(evidence.log.rank_of(sent));
        known.is_some_and(|rank| rank <= least) && !of_another(sent)
    };
    if group.iter().all(is_done) {
        return wrong(Promise::R6, "a key was called used for what was done already");
    }
    None
}
