//! Checks the log itself: dense, in the order of real time, and only events that were appended.

use std::collections::HashMap;

use super::{evidence::Evidence, finding::Promise, history::Seen, sent::Flaw};

pub(super) fn check(evidence: &mut Evidence<'_>) {
    density(evidence);
    origin(evidence);
    real_time(evidence);
}

/// R3: positions and versions are dense. R6: no event is in the log twice.
fn density(evidence: &mut Evidence<'_>) {
    let mut versions = HashMap::new();
    let mut ids = HashMap::new();
    for (rank, event) in (1..).zip(evidence.log.events) {
        if event.position != rank {
            let what = format!("position {} is at place {rank} of the log", event.position);
            evidence.find(Promise::R3, what, &[]);
            // Everything after it would be reported too.
            break;
        }
        let version = versions.entry(&event.stream).or_insert(0);
        *version += 1;
        if event.version != *version {
            let what = format!("{} has version {}, its place in the stream is {version}", place(event), event.version);
            evidence.find(Promise::R3, what, &[]);
            *version = event.version;
        }
        if let Some(first) = ids.insert(event.id, event) {
            let what = format!("{} is in the log twice, first as {}", place(event), place(first));
            evidence.find(Promise::R6, what, &[]);
        }
    }
}

/// R1, R4, R15: every event belongs to an append that was sent and is not flawed.
fn origin(evidence: &mut Evidence<'_>) {
    let mut owners = HashMap::new();
    for (index, write) in evidence.writes.iter().enumerate() {
        owners.extend(write.sent.events.iter().map(|event| (event.id, index)));
    }
    for event in evidence.log.events {
        let Some(owner) = owners.get(&event.id) else {
            evidence.find(Promise::R1, format!("no client appended {}", place(event)), &[]);
            continue;
        };
        let write = &evidence.writes[*owner];
        if let (Some(flaw), Some(attempt)) = (write.flaw(), write.attempts.first().copied()) {
            let promise = if flaw == Flaw::Refused { Promise::R4 } else { Promise::R15 };
            evidence.find(promise, format!("{} is from an invalid append", place(event)), &[&attempt]);
        }
    }
}

/// R3: an append that was called after another one was known to be in the log is after it in the log.
fn real_time(evidence: &mut Evidence<'_>) {
    let mut late = Vec::new();
    for write in &evidence.writes {
        let Some(rank) = evidence.log.rank(write.first()) else { continue };
        let known = evidence.moments.at_least(write.begun());
        if rank <= known {
            late.push((write.attempts[0], rank, known));
        }
    }
    for (attempt, rank, known) in late {
        let what = format!("an append is at {rank}, but {known} was in the log before it was called");
        evidence.find(Promise::R3, what, &[&attempt]);
    }
}

/// The description of an event in a finding.
pub(super) fn place(event: &Seen) -> String {
    format!("event {} ({}@{}, position {})", event.id, event.stream, event.version, event.position)
}
