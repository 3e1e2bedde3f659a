//! Checks that each append is in the log as a whole, once, and at an allowed place.

use super::{
    attempts::Attempt,
    evidence::Evidence,
    finding::Promise,
    history::Outcome,
    log::{Log, Write},
    sent::Written,
};
use es_core::StreamId;

pub(super) fn check(evidence: &mut Evidence<'_>) {
    let mut found = Vec::new();
    for write in evidence.writes.iter().filter(|write| write.flaw().is_none()) {
        found.extend(whole(&evidence.log, write).map(|(promise, what)| (promise, what, write.attempts.clone())));
        found.extend(welcome(evidence, write).map(|what| (Promise::R2, what, write.attempts.clone())));
        found.extend(acknowledged_once(write));
    }
    keys(evidence, &mut found);
    for (promise, what, attempts) in found {
        let attempts: Vec<&dyn std::fmt::Display> = attempts.iter().map(|attempt| attempt as _).collect();
        evidence.find(promise, what, &attempts);
    }
}

/// R1, R7: all events of the append, and of those made together with it, are in the log one after the other, in order and
/// as they were sent; or none is.
fn whole(log: &Log<'_>, write: &Write<'_>) -> Option<(Promise, String)> {
    let events: Vec<(&StreamId, &Written)> =
        write.group.iter().flat_map(|sent| sent.events.iter().map(|event| (&sent.stream, event))).collect();
    let there = events.iter().filter(|(_, event)| log.rank(event.id).is_some()).count();
    if there == 0 || !write.leads() {
        return None;
    }
    let dropped = write.attempts.iter().any(|attempt| matches!(attempt.outcome, None | Some(Outcome::Dropped)));
    let promise = if dropped { Promise::R7 } else { Promise::R1 };
    let appends = if write.group.len() > 1 { "appends that were made together" } else { "an append" };
    if there < events.len() {
        return Some((promise, format!("of {appends}, with {} events, {there} are in the log", events.len())));
    }
    let first = log.rank(write.first())?;
    for (rank, (stream, event)) in (first..).zip(events) {
        let stored = log.at(rank).filter(|stored| stored.id == event.id);
        let Some(stored) = stored else {
            let what = format!("the events of {appends}, from position {first} on, are not consecutive and in order");
            return Some((promise, what));
        };
        if stored.stream != *stream || stored.content != event.content {
            return Some((promise, format!("the event at position {rank} is not what was appended")));
        }
    }
    None
}

/// R2: the stream was as the append expected, and not every caller that sent it got a refusal.
fn welcome(evidence: &Evidence<'_>, write: &Write<'_>) -> Option<String> {
    let rank = evidence.log.rank(write.first())?;
    let version = evidence.log.at(rank)?.version.saturating_sub(1);
    if !evidence.holds(write.sent, version) {
        return Some(format!(
            "an append was written after version {version}, at position {rank}, which it did not expect"
        ));
    }
    let refused = !write.attempts.iter().any(|attempt| evidence.may_have_written(attempt));
    refused.then(|| {
        format!("an append is in the log, at position {rank}, and each call of it was answered as refused or repeated")
    })
}

/// R6: at most one caller gets the answer that it wrote the append; for the others it is repeated.
fn acknowledged_once<'a>(write: &Write<'a>) -> Option<(Promise, String, Vec<Attempt<'a>>)> {
    let claims = |attempt: &&Attempt<'_>| matches!(attempt.outcome, Some(Outcome::Appended { repeated: false, .. }));
    let claimed: Vec<Attempt<'_>> = write.attempts.iter().filter(claims).copied().collect();
    let what = format!("{} callers got the answer that they wrote the same append", claimed.len());
    (claimed.len() > 1).then_some((Promise::R6, what, claimed))
}

/// R6: of all appends under one key, at most one is in the log.
fn keys<'a>(evidence: &Evidence<'a>, found: &mut Vec<(Promise, String, Vec<Attempt<'a>>)>) {
    let mut written = std::collections::HashMap::<_, Vec<&Write<'_>>>::new();
    for write in &evidence.writes {
        if let (Some((stream, key)), Some(_)) = (write.key(), evidence.log.rank(write.first())) {
            written.entry((stream, &key.key)).or_default().push(write);
        }
    }
    for ((stream, key), writes) in written {
        if writes.len() > 1 {
            let what = format!("{} appends under {key} are in {stream}", writes.len());
            found.push((Promise::R6, what, writes.iter().flat_map(|write| write.attempts.clone()).collect()));
        }
    }
}
