//! The possible lengths of the log at each moment of the history.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    history::{Outcome, Record},
    log::{Log, Write},
};

/// If a probe takes longer than this, the server is too busy for stores as well.
const LONG_MS: u64 = 3_000;

/// Bounds for the length of the log at each line of the history.
///
/// Every answer that names an event proves that the log had reached it. And since positions equal commit order (R3), the
/// log had not reached an event whose append had not been called yet.
#[derive(Debug)]
pub(super) struct Moments {
    /// The length that was proven before each line.
    proven: Vec<u64>,
    /// For each rank, the line before which the log cannot have been that long.
    earliest: Vec<usize>,
    /// The lines between which calls may fail.
    trouble: Vec<(usize, usize)>,
}

impl Moments {
    pub(super) fn new(records: &[Record], log: &Log<'_>, writes: &[Write<'_>]) -> Self {
        let mut proven = vec![0];
        let mut length = 0;
        for record in records {
            if let Record::Returned { outcome, .. } = record {
                length = length.max(proof(outcome)).min(log.len());
            }
            proven.push(length);
        }
        let begun: HashMap<Uuid, usize> =
            writes.iter().flat_map(|write| write.sent.events.iter().map(|event| (event.id, write.begun()))).collect();
        let earliest = log.events.iter().scan(0, |latest, event| {
            *latest = begun.get(&event.id).copied().unwrap_or(0).max(*latest);
            Some(*latest)
        });
        Self { proven, earliest: earliest.collect(), trouble: trouble(records) }
    }

    /// The log had at least this length before `line`.
    pub(super) fn at_least(&self, line: usize) -> u64 {
        self.proven[line.min(self.proven.len() - 1)]
    }

    /// The log had at most this length at `line`.
    pub(super) fn at_most(&self, line: usize) -> u64 {
        self.earliest.partition_point(|begun| *begun <= line) as u64
    }

    /// Whether a fault was active between the two lines.
    pub(super) fn is_troubled(&self, from: usize, to: usize) -> bool {
        self.trouble.iter().any(|(begin, end)| *begin < to && from < *end)
    }
}

fn proof(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Appended { position, .. } | Outcome::ConditionFailed { position } | Outcome::Head(position) => {
            *position
        }
        Outcome::Together(all) => all.iter().map(proof).max().unwrap_or(0),
        Outcome::Command(Some(found)) => found.position,
        Outcome::Events(page) => page.last().map_or(0, |event| event.position),
        _ => 0,
    }
}

/// Calls may fail between a fault and its end, and while the server does not answer a probe either: then the machine is
/// overloaded, and stores give up what takes too long, as they promise.
fn trouble(records: &[Record]) -> Vec<(usize, usize)> {
    let (mut trouble, mut stalls, mut asked) = (Vec::new(), Vec::new(), 0);
    for (line, record) in records.iter().enumerate() {
        match record {
            Record::Asked => asked = line,
            Record::Answered { after_ms } if *after_ms >= LONG_MS => stalls.push((asked, line)),
            Record::Injected(fault) if fault.affects_all() => trouble.push((line, usize::MAX)),
            // Faults do not overlap.
            Record::Recovered(fault) if fault.affects_all() => {
                if let Some((_, end)) = trouble.last_mut() {
                    *end = line;
                }
            }
            _ => {}
        }
    }
    trouble.extend(stalls);
    trouble
}
