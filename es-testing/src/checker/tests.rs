//! The checker finds nothing in the reference, and finds the broken promise in each history that breaks one.

mod resume;
mod together;

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Call, CallId, Expectation, Fault, Flaw, History, Key, NoFaults, Outcome, Plan, Promise, Record, Recorder, Seen,
    Sent, Size, Written, check, run,
};
use es_core::{Expected, MemoryStore, StreamId};

async fn run_in_memory(seed: u64, size: &Size) -> (History, Vec<Seen>) {
    let plan = Arc::new(Plan::new(seed, size));
    let recorder = Arc::new(Recorder::in_memory());
    let store = Arc::new(MemoryStore::new());
    let log = run(&plan, vec![store.clone(), store], &recorder, &NoFaults).await;
    (recorder.history().expect("it is in memory"), log)
}

/// How often each kind of outcome occurs depends on the interleaving, so the counts are sums of ten runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_keeps_every_promise() {
    let mut returned = Vec::new();
    for seed in 0..10 {
        let (history, log) = run_in_memory(seed, &Size::default()).await;
        let findings = check(&history, &log);
        assert!(findings.is_empty(), "{}", findings[0]);
        assert!(log.len() > 500, "there was something to check: {}", log.len());
        returned.extend(history.records.into_iter().filter_map(|record| match record {
            Record::Returned { outcome, .. } => Some(outcome),
            _ => None,
        }));
    }
    let occurs = |least: usize, wanted: fn(&Outcome) -> bool| {
        let times = returned.iter().filter(|outcome| wanted(outcome)).count();
        assert!(times >= least, "{times} times, not {least}");
    };
    occurs(100, |outcome| matches!(outcome, Outcome::Appended { repeated: true, .. }));
    occurs(100, |outcome| matches!(outcome, Outcome::Conflict { .. }));
    occurs(10, |outcome| matches!(outcome, Outcome::KeyReused));
    occurs(100, |outcome| matches!(outcome, Outcome::Invalid { .. }));
    occurs(10, |outcome| matches!(outcome, Outcome::Dropped));
    occurs(10, |outcome| matches!(outcome, Outcome::ConditionFailed { .. }));
    occurs(100, |outcome| is_together(outcome, false));
    occurs(10, |outcome| is_together(outcome, true));
}

fn is_together(outcome: &Outcome, again: bool) -> bool {
    let is_such = |one: &Outcome| matches!(one, Outcome::Appended { repeated, .. } if *repeated == again);
    matches!(outcome, Outcome::Together(all) if all.iter().all(is_such))
}

/// A history that is built line by line. Events are numbered; each is in the stream `checker-s`.
#[derive(Default)]
struct Story {
    history: History,
    log: Vec<Seen>,
}

fn stream() -> StreamId {
    StreamId::new("checker", "s").expect("a valid name")
}

fn sent(expected: Expectation, events: &[u128]) -> Sent {
    let events = events.iter().map(|id| Written { id: Uuid::from_u128(*id), content: 1, about: None }).collect();
    Sent { stream: stream(), expected, events, key: None, conditions: Vec::new(), flaw: None }
}

fn keyed(content: &str, events: &[u128]) -> Sent {
    Sent { key: Some(Key { key: "k".into(), content: content.into() }), ..sent(Expectation::Any, events) }
}

fn seen(position: u64, id: u128) -> Seen {
    Seen { position, stream: stream(), version: position, id: Uuid::from_u128(id), content: 1 }
}

fn appended(last: u64, repeated: bool) -> Outcome {
    Outcome::Appended { version: last, position: last, repeated }
}

impl Story {
    fn call(mut self, number: u32, call: Call) -> Self {
        let id = CallId { actor: number, number: 0, attempt: 0 };
        self.history.records.push(Record::Called { id, store: 0, call });
        self
    }

    fn answer(mut self, number: u32, outcome: Outcome) -> Self {
        let id = CallId { actor: number, number: 0, attempt: 0 };
        self.history.records.push(Record::Returned { id, outcome });
        self
    }

    /// An append that is answered before anything else happens.
    fn append(self, number: u32, sent: Sent, outcome: Outcome) -> Self {
        self.call(number, Call::Append(sent)).answer(number, outcome)
    }

    fn read(self, number: u32, call: Call, outcome: Outcome) -> Self {
        self.call(number, call).answer(number, outcome)
    }

    fn line(mut self, record: Record) -> Self {
        self.history.records.push(record);
        self
    }

    fn log(mut self, ids: &[u128]) -> Self {
        self.log = (1..).zip(ids).map(|(position, id)| seen(position, *id)).collect();
        self
    }

    #[track_caller]
    fn keeps_all(self) {
        assert_eq!(check(&self.history, &self.log), []);
    }

    #[track_caller]
    fn breaks(self, promise: Promise) {
        let findings = check(&self.history, &self.log);
        assert!(findings.iter().any(|finding| finding.promise == promise), "{promise} is not among {findings:#?}");
    }
}

use Expectation::{Any, Exact, NoStream};

/// Two events were appended by the first call.
fn two() -> Story {
    Story::default().append(1, sent(NoStream, &[1, 2]), appended(2, false)).log(&[1, 2])
}

#[test]
fn r1_halves_and_strangers_in_the_log_are_found() {
    two().keeps_all();
    two().log(&[1]).breaks(Promise::R1);
    two().log(&[1, 2, 9]).breaks(Promise::R1);
    two().log(&[2, 1]).breaks(Promise::R1);
    let mut changed = two();
    changed.log[1].content = 2;
    changed.breaks(Promise::R1);
    let between = two().call(2, Call::Append(sent(Any, &[3])));
    between.log(&[1, 3, 2]).breaks(Promise::R1);
}

#[test]
fn r2_false_welcomes_and_false_conflicts_are_found() {
    let conflict = |expected: &str, actual| Outcome::Conflict { stream: stream(), expected: expected.into(), actual };
    two().append(2, sent(Exact(1), &[3]), conflict("version 1", 2)).keeps_all();
    two().append(2, sent(Exact(1), &[3]), appended(3, false)).log(&[1, 2, 3]).breaks(Promise::R2);
    // Both expected the same version.
    two().append(2, sent(NoStream, &[3]), appended(3, false)).log(&[1, 2, 3]).breaks(Promise::R2);
    two().append(2, sent(Exact(2), &[3]), conflict("version 2", 2)).breaks(Promise::R2);
    two().append(2, sent(Exact(7), &[3]), conflict("version 7", 3)).breaks(Promise::R2);
    // The stream never had this version: the two events were written together.
    two().append(2, sent(Exact(7), &[3]), conflict("version 7", 1)).breaks(Promise::R2);
    // An old version, although the newer one was known before the call.
    two().append(2, sent(Exact(7), &[3]), conflict("version 7", 0)).breaks(Promise::R2);
    two().append(2, sent(Exact(1), &[3]), conflict("version 1", 2)).log(&[1, 2, 3]).breaks(Promise::R2);
}

#[test]
fn r3_gaps_inversions_and_blind_readers_are_found() {
    let mut gap = two();
    gap.log[1].position = 3;
    gap.breaks(Promise::R3);
    let mut version = two();
    version.log[1].version = 3;
    version.breaks(Promise::R3);
    // The second was called after the first had returned.
    let inverted = Story::default().append(1, sent(Any, &[1]), appended(2, false));
    inverted.append(2, sent(Any, &[2]), appended(1, false)).log(&[2, 1]).breaks(Promise::R3);
    let page = |events: &[Seen]| Outcome::Events(events.to_vec());
    let follow = || Call::ReadLog { after: 0, limit: 9 };
    two().read(2, follow(), page(&[seen(1, 1), seen(2, 2)])).keeps_all();
    two().read(2, follow(), page(&[seen(1, 1)])).breaks(Promise::R3);
    two().read(2, follow(), page(&[])).breaks(Promise::R3);
    two().read(2, follow(), page(&[seen(2, 2)])).breaks(Promise::R3);
    two().read(2, follow(), page(&[seen(1, 1), seen(1, 1)])).breaks(Promise::R3);
    two().read(2, follow(), page(&[seen(1, 1), seen(2, 2), seen(3, 3)])).breaks(Promise::R3);
    let tail = || Call::ReadStream { stream: stream(), after: 1, limit: 9 };
    two().read(2, tail(), page(&[seen(2, 2)])).keeps_all();
    two().read(2, tail(), page(&[seen(1, 1), seen(2, 2)])).breaks(Promise::R3);
    two().read(2, Call::Head, Outcome::Head(1)).breaks(Promise::R3);
    two().read(2, Call::WaitPast { after: 2 }, Outcome::Woken).breaks(Promise::R3);
    two().read(2, follow(), Outcome::Alarm { why: "a gap".into() }).breaks(Promise::R3);
}

#[test]
fn r4_r15_bad_appends_that_are_let_in_and_good_ones_that_are_not_are_found() {
    let bad = |flaw| Sent { flaw: Some(flaw), ..sent(Any, &[3]) };
    let invalid = |reason: &str| Outcome::Invalid { reason: reason.into() };
    let refused = || Outcome::Refused { why: "a constraint".into() };
    two().append(2, bad(Flaw::Nul), invalid("Nul { event: 0 }")).keeps_all();
    two().append(2, bad(Flaw::Nul), invalid("NotUtf8 { event: 0 }")).breaks(Promise::R15);
    two().append(2, bad(Flaw::Nul), appended(3, false)).log(&[1, 2, 3]).breaks(Promise::R15);
    two().append(2, bad(Flaw::Nul), invalid("Nul { event: 0 }")).log(&[1, 2, 3]).breaks(Promise::R15);
    two().append(2, sent(Any, &[3]), invalid("Nul { event: 0 }")).breaks(Promise::R15);
    two().append(2, bad(Flaw::Refused), refused()).keeps_all();
    two().append(2, bad(Flaw::Refused), refused()).log(&[1, 2, 3]).breaks(Promise::R4);
    two().append(2, sent(Any, &[3]), refused()).breaks(Promise::R4);
}

#[test]
fn r5_an_acknowledged_append_that_is_gone_or_elsewhere_is_found() {
    two().log(&[]).breaks(Promise::R5);
    let elsewhere = Story::default().append(1, sent(Any, &[1]), appended(2, false));
    elsewhere.call(2, Call::Append(sent(Any, &[2]))).log(&[1, 2]).breaks(Promise::R5);
}

#[test]
fn r6_second_writes_and_dishonest_answers_are_found() {
    let again = || sent(NoStream, &[1, 2]);
    two().append(2, again(), appended(2, true)).keeps_all();
    two().append(2, again(), appended(2, false)).breaks(Promise::R6);
    two().append(2, again(), appended(4, true)).log(&[1, 2, 1, 2]).breaks(Promise::R6);
    two()
        .append(2, again(), Outcome::Conflict { stream: stream(), expected: "no stream".into(), actual: 2 })
        .breaks(Promise::R6);
    Story::default().append(1, again(), appended(2, true)).log(&[1, 2]).breaks(Promise::R6);
    // A store whose connection was cut may take its own append for that of another caller, but never the reverse.
    let cut = |fault| Story::default().line(Record::Injected(fault)).line(Record::Recovered(fault)).log(&[1, 2]);
    cut(Fault::Sessions).append(1, again(), appended(2, true)).keeps_all();
    cut(Fault::Process(1)).append(1, again(), appended(2, true)).breaks(Promise::R6);
    let both = cut(Fault::Sessions).append(1, again(), appended(2, false));
    both.append(2, again(), appended(2, false)).breaks(Promise::R6);
    let first = || Story::default().append(1, keyed("x", &[1]), appended(1, false)).log(&[1]);
    first().append(2, keyed("x", &[2]), appended(1, true)).keeps_all();
    first().append(2, keyed("y", &[2]), Outcome::KeyReused).keeps_all();
    first().append(2, keyed("x", &[2]), Outcome::KeyReused).breaks(Promise::R6);
    first().append(2, keyed("y", &[2]), appended(1, true)).breaks(Promise::R6);
    first().append(2, keyed("x", &[2]), appended(2, false)).log(&[1, 2]).breaks(Promise::R6);
    let find = || Call::FindCommand { stream: stream(), key: "k".into() };
    first().read(2, find(), Outcome::Command(None)).breaks(Promise::R6);
    two().append(2, sent(Any, &[3]), Outcome::KeyReused).breaks(Promise::R6);
}

#[test]
fn r7_half_an_append_that_was_dropped_is_found() {
    let dropped = || two().append(2, sent(Any, &[3, 4]), Outcome::Dropped);
    dropped().keeps_all();
    dropped().log(&[1, 2, 3, 4]).keeps_all();
    dropped().log(&[1, 2, 3]).breaks(Promise::R7);
    // Its process was killed.
    let killed = || two().call(2, Call::Append(sent(Any, &[3, 4])));
    killed().log(&[1, 2, 3, 4]).keeps_all();
    killed().log(&[1, 2, 3]).breaks(Promise::R7);
}

#[test]
fn failures_are_allowed_while_something_is_disrupted_and_not_else() {
    let failed = || Outcome::Failed { why: "the store failed".into() };
    two().append(2, sent(Any, &[3]), failed()).breaks(Promise::Port);
    two().read(2, Call::Head, failed()).breaks(Promise::Port);
    two().read(2, Call::Head, Outcome::Stuck).breaks(Promise::Port);
    two().append(2, sent(Any, &[3]), Outcome::Closed).breaks(Promise::Port);
    let injected = |fault| two().line(Record::Injected(fault));
    injected(Fault::Server).append(2, sent(Any, &[3]), failed()).log(&[1, 2, 3]).keeps_all();
    injected(Fault::Sessions)
        .line(Record::Recovered(Fault::Sessions))
        .read(2, Call::Head, failed())
        .breaks(Promise::Port);
    // The server does not answer the probe either.
    let stalled = |after_ms| {
        let story = two().line(Record::Asked).call(2, Call::Head).answer(2, failed());
        story.line(Record::Answered { after_ms })
    };
    stalled(9_000).keeps_all();
    stalled(9).breaks(Promise::Port);
    // The end of one process must not affect another.
    injected(Fault::Process(1)).read(2, Call::Head, failed()).breaks(Promise::Port);
}

#[test]
fn a_history_survives_the_death_of_its_writer() {
    let story = two().line(Record::Injected(Fault::Process(1)));
    let lines: Vec<String> =
        story.history.records.iter().map(|record| serde_json::to_string(record).expect("JSON")).collect();
    // The second line is incomplete, and another process has written after it.
    let text = format!("\n{}\n\n{}\n{}\n", lines[0], &lines[1][..9], lines[2]);
    let history = History::parse(&text);
    assert_eq!(history.torn, 1);
    assert_eq!(history.records, [story.history.records[0].clone(), story.history.records[2].clone()]);
    assert_eq!(check(&history, &story.log), []);
    assert_eq!(check(&History { torn: 2, ..history }, &story.log)[0].promise, Promise::Port);
}
