//! Checks each answer to an append.

use super::{
    attempts::Attempt,
    check_conditions, check_refusals,
    content::fingerprint,
    evidence::Evidence,
    finding::{Promise, Wrong, wrong},
    history::{Call, Found, Outcome},
    remembered::{Keys, key_of, keys},
    sent::{Flaw, Sent},
};

pub(super) fn check(evidence: &mut Evidence<'_>) {
    let keys = keys(evidence);
    let mut found = Vec::new();
    for attempt in &evidence.attempts {
        let wrong = match (attempt.sent(), attempt.outcome) {
            (Some(sent), Some(outcome)) => append(evidence, &keys, attempt, sent, outcome),
            (None, Some(Outcome::Command(answer))) => command(evidence, &keys, attempt, answer.as_ref()),
            _ => None,
        };
        found.extend(wrong.map(|(promise, what)| (promise, what, *attempt)));
    }
    for (promise, what, attempt) in found {
        evidence.find(promise, what, &[&attempt]);
    }
}

fn append(evidence: &Evidence<'_>, keys: &Keys<'_>, attempt: &Attempt<'_>, sent: &Sent, outcome: &Outcome) -> Wrong {
    match (outcome, attempt.flaw()) {
        (Outcome::Failed { .. }, _) if evidence.moments.is_troubled(attempt.called, attempt.returned) => None,
        (Outcome::Failed { .. }, _) => wrong(Promise::Port, "an append failed although nothing was disrupted"),
        (Outcome::Closed, _) => wrong(Promise::Port, "an open store answered that it is closed"),
        (Outcome::Stuck, _) => wrong(Promise::Port, "an append did not return in time"),
        (Outcome::Dropped, _) | (Outcome::Refused { .. }, Some(Flaw::Refused)) => None,
        (Outcome::Invalid { reason }, Some(flaw)) if flaw.reason().is_some_and(|name| reason.starts_with(name)) => None,
        (_, Some(Flaw::Refused)) => wrong(Promise::R4, "an append that the database refuses got another answer"),
        (_, Some(_)) => wrong(Promise::R15, "an invalid append did not get its error"),
        (Outcome::Invalid { .. }, None) => wrong(Promise::R15, "a valid append was called invalid"),
        (Outcome::Refused { .. }, None) => wrong(Promise::R4, "a valid append was refused"),
        (Outcome::Appended { version, position, repeated }, None) => {
            appended(evidence, keys, attempt, sent, (*version, *position), *repeated)
        }
        (Outcome::Conflict { stream, expected, actual }, None) => {
            check_refusals::conflict(evidence, keys, attempt, sent, (stream, expected, *actual))
        }
        (Outcome::ConditionFailed { position }, None) => {
            check_conditions::condition_failed(evidence, keys, attempt, *position)
        }
        (Outcome::KeyReused, None) => check_refusals::key_reused(evidence, keys, attempt),
        _ => wrong(Promise::Port, "an append got an answer of another kind of call"),
    }
}

fn appended(
    evidence: &Evidence<'_>,
    keys: &Keys<'_>,
    attempt: &Attempt<'_>,
    sent: &Sent,
    outcome: (u64, u64),
    repeated: bool,
) -> Wrong {
    let own = evidence.log.rank_of(sent).map(|rank| (rank, sent.events.len()));
    let remembered = key_of(keys, sent).map(|known| (known.rank, known.events));
    // The first append under a key may have had other events.
    let Some((rank, events)) = remembered.or(own) else {
        return wrong(Promise::R5, "an append that was acknowledged is not in the log");
    };
    if evidence.log.outcome(rank, events) != Some(outcome) {
        let what = format!("an append was acknowledged at another place than its own: its first event is at {rank}");
        return wrong(Promise::R5, what);
    }
    if key_of(keys, sent).is_some_and(|known| sent.key.as_ref().is_some_and(|key| key.content != known.key.content)) {
        return wrong(Promise::R6, "a key was used for two contents");
    }
    if !repeated && own.is_none() {
        return wrong(Promise::R6, "a command that another call had done was not answered as repeated");
    }
    if !repeated && rank <= evidence.moments.at_least(attempt.called) {
        return wrong(Promise::R6, "an append that was in the log before was not answered as repeated");
    }
    let same = |other: &Attempt<'_>| other.sent().is_some_and(|other| is_same(sent, other));
    let mut others = evidence.attempts.iter().filter(|other| other.id != attempt.id && same(other));
    let before = |other: &Attempt<'_>| other.called < attempt.returned && evidence.may_have_written(other);
    if repeated && !evidence.may_repeat_itself(attempt) && !others.any(before) {
        return wrong(Promise::R6, "an append was answered as repeated, and no call can have written it before");
    }
    None
}

/// Whether both are the same append, or the same command.
fn is_same(one: &Sent, other: &Sent) -> bool {
    let same_key = one.key.is_some() && one.key == other.key && one.stream == other.stream;
    same_key || one.events.first().map(|event| event.id) == other.events.first().map(|event| event.id)
}

fn command(evidence: &Evidence<'_>, keys: &Keys<'_>, attempt: &Attempt<'_>, answer: Option<&Found>) -> Wrong {
    let Call::FindCommand { stream, key } = attempt.call else {
        return wrong(Promise::Port, "a call got an answer of another kind of call");
    };
    let known = keys.get(&(stream, key.as_str()));
    match (answer, known) {
        (None, Some(known)) if known.rank <= evidence.moments.at_least(attempt.called) => {
            wrong(Promise::R6, "a command that was done is not recorded")
        }
        (None, _) => None,
        (Some(_), None) => wrong(Promise::R6, "a command is recorded, and its append is not in the log"),
        (Some(found), Some(known)) => {
            let place = evidence.log.outcome(known.rank, known.events);
            let is_right = place == Some((found.version, found.position))
                && found.fingerprint == format!("{:?}", fingerprint(&known.key.content))
                && known.rank <= evidence.moments.at_most(attempt.returned);
            if is_right { None } else { wrong(Promise::R6, "a command is recorded with another outcome") }
        }
    }
}
