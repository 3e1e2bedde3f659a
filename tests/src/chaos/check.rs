//! Looks for what was lost, repeated or reordered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use es_core::{
    Consumer, EventStore, KeyRange, LetterPage, Position, Projection, RecordedEvent, Service,
    error::with_causes,
    testing::{
        account::{AccountEvent, Histories, Turnover},
        project,
    },
};
use es_kafka::{Reconcile, Topics};

use super::{
    domain::{Bank, CLIENT, COPY, FOREIGN},
    ground::Ground,
    java::{self, Line},
    load::Known,
};

/// The whole log.
pub(crate) async fn log(service: &Service) -> Vec<RecordedEvent> {
    let mut log: Vec<RecordedEvent> = Vec::new();
    loop {
        let after = log.last().map_or(Position::ZERO, |event| event.position);
        let page = service.store().read_log(after, 10_000).await.expect("Postgres is up");
        if page.is_empty() {
            return log;
        }
        log.extend(page);
    }
}

/// What was found in the end, when nothing is disturbed any more and everything has settled.
pub(crate) async fn check(service: &Service, ground: &Ground, known: &Known) -> Vec<String> {
    let log = log(service).await;
    let mut findings = known.failed.clone();
    findings.extend(log_holds_what_was_acknowledged(&log, known));
    findings.extend(effects_happened_once(&log, known));
    findings.extend(garbage_is_in_the_dead_letters(service, known).await);
    findings.extend(read_model_equals_the_fold(Histories, service, &log).await);
    findings.extend(read_model_equals_the_fold(Turnover, service, &log).await);
    let reconciled = Reconcile::new(service.store(), ground.relay_config()).run(None, |_| ()).await;
    match reconciled {
        Ok(reconciled) => {
            findings.extend(reconciled.violation.map(|violation| format!("reconcile: {violation}")));
            if usize::try_from(reconciled.published.get()).ok() != Some(log.len()) {
                findings.push(format!("reconcile: {} of {} events are published", reconciled.published, log.len()));
            }
        }
        Err(error) => findings.push(format!("reconcile: {}", with_causes(&error))),
    }
    let topic = Topics::new(&ground.schema).events("account");
    match java::read_committed(&ground.brokers, &topic, log.len()).await {
        Ok(lines) => findings.extend(kafka_holds_the_log(&lines, &log)),
        Err(error) => findings.push(format!("the consumer in Java: {error}")),
    }
    findings
}

fn log_holds_what_was_acknowledged(log: &[RecordedEvent], known: &Known) -> Vec<String> {
    let mut findings = Vec::new();
    for acknowledged in &known.appended {
        let at = usize::try_from(acknowledged.position.get()).ok().and_then(|position| log.get(position - 1));
        let is_there =
            at.is_some_and(|event| event.stream.id() == acknowledged.account && event.version == acknowledged.version);
        if !is_there {
            findings.push(format!("the log does not hold what was acknowledged: {acknowledged:?}"));
        }
    }
    let distinct: BTreeSet<_> = known.appended.iter().map(|acknowledged| acknowledged.position).collect();
    let written = log.iter().filter(|event| event.stream.id().starts_with(CLIENT)).count();
    if written != distinct.len() && known.failed.is_empty() {
        findings.push(format!("clients know of {} events, and the log holds {written}", distinct.len()));
    }
    findings
}

/// What the policy and the consumer have brought about.
fn effects_happened_once(log: &[RecordedEvent], known: &Known) -> Vec<String> {
    let mut findings = Vec::new();
    let mut missing: BTreeSet<_> =
        log.iter().filter(|event| event.stream.id().starts_with(CLIENT)).map(|event| event.id).collect();
    let mut unhandled = known.confirmed.clone();
    let mut handled = BTreeSet::new();
    for event in log {
        let id = event.stream.id();
        if id.starts_with(COPY) {
            let cause = event.metadata.causation_id.unwrap_or_default();
            if !missing.remove(&cause) {
                findings.push(format!("the policy has reacted twice to {cause}, or to nothing"));
            }
        } else if id.starts_with(FOREIGN) {
            let Ok(Some(event)) = event.decode::<AccountEvent>() else { continue };
            let AccountEvent::Deposited { amount } = event.data else { continue };
            if !handled.insert(amount) || !known.sent.contains(&amount) {
                findings.push(format!("message {amount} was handled twice, or was never sent"));
            }
            unhandled.remove(&amount);
        }
    }
    if !missing.is_empty() {
        findings.push(format!("the policy has not reacted to {} events", missing.len()));
    }
    if !unhandled.is_empty() {
        findings.push(format!("messages that were not handled: {unhandled:?}"));
    }
    findings
}

/// Each record that cannot be read is a dead letter of the consumer, and nothing else is.
async fn garbage_is_in_the_dead_letters(service: &Service, known: &Known) -> Vec<String> {
    let mut found = BTreeMap::<String, u32>::new();
    let mut page = LetterPage::first(1_000);
    loop {
        let letters = service.store().dead_letters(Bank::NAME, &page).await.expect("Postgres is up");
        let Some(last) = letters.last() else { break };
        page = page.after(last.id());
        for letter in letters {
            // The key of a record that cannot be read names its partition too.
            let key = letter.key.rsplit('/').next().unwrap_or_default().to_owned();
            *found.entry(key).or_default() += 1;
        }
    }
    let mut findings = Vec::new();
    let expected = |numbers: &BTreeSet<u64>| -> BTreeSet<String> {
        numbers.iter().map(|number| format!("bank-garbage-{number}")).collect()
    };
    let (sent, confirmed) = (expected(&known.garbage_sent), expected(&known.garbage_confirmed));
    findings
        .extend(confirmed.iter().filter(|key| !found.contains_key(*key)).map(|key| format!("{key} is no dead letter")));
    for (key, count) in found {
        if count > 1 || !sent.contains(&key) {
            findings.push(format!("{count} dead letters under {key}"));
        }
    }
    findings
}

/// The first difference between a read model and the fold of the log.
async fn read_model_equals_the_fold<P: Projection>(
    projection: P,
    service: &Service,
    log: &[RecordedEvent],
) -> Option<String>
where
    P::Document: PartialEq + Debug,
{
    let truth = match project(&projection, log) {
        Ok(truth) => truth,
        Err(error) => return Some(format!("{}: {}", P::NAME, with_causes(&error))),
    };
    let found = service.read_model::<P>().scan(KeyRange::default(), usize::from(u16::MAX)).await;
    let found: BTreeMap<_, _> = match found {
        Ok(page) => page.documents.into_iter().collect(),
        Err(error) => return Some(format!("{}: {}", P::NAME, with_causes(&error))),
    };
    let keys: BTreeSet<_> = truth.keys().chain(found.keys()).collect();
    let differs = keys.into_iter().find(|key| truth.get(*key) != found.get(*key))?;
    let short = |document: Option<&P::Document>| format!("{document:?}").chars().rev().take(200).collect::<Vec<_>>();
    let short = |document| short(document).into_iter().rev().collect::<String>();
    Some(format!(
        "{} under {differs}: the read model ends with {}, and the fold with {}",
        P::NAME,
        short(found.get(differs)),
        short(truth.get(differs))
    ))
}

/// Every position once, in the order of versions within a key, and nothing else.
fn kafka_holds_the_log(lines: &[Line], log: &[RecordedEvent]) -> Vec<String> {
    let mut findings = Vec::new();
    let mut versions = BTreeMap::<&str, u64>::new();
    let mut places = BTreeMap::<i32, i64>::new();
    let mut seen = BTreeSet::new();
    for line in lines {
        let version = versions.entry(&line.stream).or_default();
        if line.version != *version + 1 {
            findings
                .push(format!("the consumer in Java: version {} of {} follows {version}", line.version, line.stream));
        }
        *version = line.version;
        if places.insert(line.partition, line.offset).is_some_and(|before| before >= line.offset) {
            findings.push(format!("the consumer in Java: the offsets of partition {} go back", line.partition));
        }
        if !seen.insert(line.position) {
            findings.push(format!("the consumer in Java: position {} twice", line.position));
        }
        let logged = usize::try_from(line.position).ok().and_then(|position| log.get(position.checked_sub(1)?));
        let is_equal = logged.is_some_and(|event| {
            event.id.to_string() == line.id
                && event.stream.as_str() == line.stream
                && event.version.get() == line.version
        });
        if !is_equal {
            findings.push(format!("the consumer in Java: another event at position {}", line.position));
        }
    }
    if seen.len() != log.len() {
        findings.push(format!("the consumer in Java: {} of {} events", seen.len(), log.len()));
    }
    findings.truncate(20);
    findings
}
