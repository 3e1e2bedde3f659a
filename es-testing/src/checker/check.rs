//! Checks a history against the log.

use super::{
    attempts::Attempt,
    check_appends, check_conditions, check_log, check_outcomes, check_reads,
    evidence::Evidence,
    finding::{Finding, Promise},
    history::{History, Outcome, Record, Seen},
    log::{Log, Write},
    moments::Moments,
    plan::Fault,
};

/// The promises that were broken, according to a history and the whole log at its end; empty when all were kept.
///
/// Each call took effect at one moment between its line and the line of its return, and the order of the log is the order
/// in which appends took effect. Every answer must fit such a moment.
pub fn check(history: &History, log: &[Seen]) -> Vec<Finding> {
    let attempts = Attempt::all(&history.records);
    let writes = Write::all(&attempts);
    let index = Log::new(log, &writes);
    let moments = Moments::new(&history.records, &index, &writes);
    let seed = history.seed().unwrap_or_default();
    let mut evidence = Evidence { log: index, attempts, writes, moments, seed, findings: Vec::new() };
    lost_lines(history, &mut evidence);
    if !alarms(&mut evidence) {
        check_log::check(&mut evidence);
        check_appends::check(&mut evidence);
        check_conditions::check(&mut evidence);
        check_outcomes::check(&mut evidence);
        check_reads::check(&mut evidence);
    }
    evidence.findings
}

/// Only a killed process leaves an incomplete line.
fn lost_lines(history: &History, evidence: &mut Evidence<'_>) {
    let kills = history.records.iter().filter(|record| matches!(record, Record::Injected(Fault::Process(_)))).count();
    if history.torn > kills {
        let what = format!("{} lines of the history are torn, {kills} processes were killed", history.torn);
        evidence.find(Promise::Port, what, &[]);
    }
}

/// A store that checks the order itself reports damage as an error. Then there is no whole log to compare with.
fn alarms(evidence: &mut Evidence<'_>) -> bool {
    let alarmed: Vec<Attempt<'_>> = evidence
        .attempts
        .iter()
        .filter(|attempt| matches!(attempt.outcome, Some(Outcome::Alarm { .. })))
        .copied()
        .collect();
    for attempt in &alarmed {
        evidence.find(Promise::R3, "a read returned that the log is damaged".to_owned(), &[attempt]);
    }
    !alarmed.is_empty()
}
