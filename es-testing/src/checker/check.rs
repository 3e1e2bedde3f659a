//! The judge.

use super::{
    attempts::Attempt,
    check_appends, check_conditions, check_log, check_outcomes, check_reads,
    evidence::Evidence,
    finding::{Finding, Promise},
    history::{History, Outcome, Record, Seen},
    log::{Log, Write},
    moments::Moments,
    plan::Blow,
};

/// What a history and the whole log behind it tell of broken promises; nothing when all were kept.
///
/// It knows of each call that it was carried out at one moment between its line and the line of its return, and of the
/// log that its order is the order in which appends took place; every answer must fit some such moment.
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

/// Only the death of a process tears a line.
fn lost_lines(history: &History, evidence: &mut Evidence<'_>) {
    let kills = history.records.iter().filter(|record| matches!(record, Record::Struck(Blow::Process(_)))).count();
    if history.torn > kills {
        let what = format!("{} lines of the history are torn, {kills} processes were killed", history.torn);
        evidence.find(Promise::Port, what, &[]);
    }
}

/// Stores that check the order themselves say so. Then there is no whole log to compare with.
fn alarms(evidence: &mut Evidence<'_>) -> bool {
    let alarmed: Vec<Attempt<'_>> = evidence
        .attempts
        .iter()
        .filter(|attempt| matches!(attempt.outcome, Some(Outcome::Alarm { .. })))
        .copied()
        .collect();
    for attempt in &alarmed {
        evidence.find(Promise::R3, "a reader was told that the log is damaged".to_owned(), &[attempt]);
    }
    !alarmed.is_empty()
}
