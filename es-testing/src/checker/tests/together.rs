//! The checker finds the broken promise in histories with chains, groups and conditions.

use uuid::Uuid;

use super::{
    super::{About, Given, Item, Query},
    *,
};

fn of(id: &str) -> StreamId {
    StreamId::new("checker", id).expect("a valid name")
}

fn to(stream: &str, events: &[u128]) -> Sent {
    Sent { stream: of(stream), ..sent(Any, events) }
}

fn ended(version: u64, position: u64, repeated: bool) -> Outcome {
    Outcome::Appended { version, position, repeated }
}

/// The log of these events, each with its stream.
fn log(events: &[(&str, u128)]) -> Vec<Seen> {
    let place = |(index, (stream, id)): (usize, &(&str, u128))| {
        let version = events[..=index].iter().filter(|(other, _)| other == stream).count() as u64;
        Seen { stream: of(stream), version, ..seen(index as u64 + 1, *id) }
    };
    events.iter().enumerate().map(place).collect()
}

impl Story {
    fn log_of(self, events: &[(&str, u128)]) -> Self {
        Self { log: log(events), ..self }
    }

    fn group(self, number: u32, group: &[Sent], outcome: Outcome) -> Self {
        self.call(number, Call::AppendTogether(group.to_vec())).answer(number, outcome)
    }
}

const LOG: [(&str, u128); 3] = [("a", 1), ("a", 2), ("b", 3)];

fn both() -> Vec<Sent> {
    vec![to("a", &[1, 2]), to("b", &[3])]
}

fn done(repeated: bool) -> Outcome {
    Outcome::Together(vec![ended(2, 2, repeated), ended(1, 3, repeated)])
}

fn group() -> Story {
    Story::default().group(1, &both(), done(false)).log_of(&LOG)
}

#[test]
fn r1_r7_appends_that_are_not_together_are_found() {
    group().keeps_all();
    group().log_of(&LOG[..2]).breaks(Promise::R1);
    group().log_of(&[("b", 3), ("a", 1), ("a", 2)]).breaks(Promise::R1);
    let between = group().call(2, Call::Append(to("c", &[9])));
    between.log_of(&[("a", 1), ("a", 2), ("c", 9), ("b", 3)]).breaks(Promise::R1);
    let dropped = || Story::default().group(1, &both(), Outcome::Dropped);
    dropped().keeps_all();
    dropped().log_of(&LOG).keeps_all();
    dropped().log_of(&LOG[2..]).breaks(Promise::R7);
    let stale = Outcome::Conflict { stream: of("b"), expected: "no stream".into(), actual: 1 };
    let first = || Story::default().append(1, to("b", &[9]), ended(1, 1, false));
    let refused = |log| first().group(2, &[both()[0].clone(), expecting(NoStream)], stale.clone()).log_of(log);
    refused(&[("b", 9)]).keeps_all();
    refused(&[("b", 9), ("a", 1), ("a", 2)]).breaks(Promise::R1);
}

fn expecting(expected: Expectation) -> Sent {
    Sent { expected, ..to("b", &[3]) }
}

#[test]
fn r3_readers_between_appends_that_were_made_together_are_found() {
    let read = |call, outcome| {
        let story = Story::default().call(1, Call::AppendTogether(both())).read(2, call, outcome);
        story.answer(1, done(false)).log_of(&LOG)
    };
    let page = |events: &[Seen]| Outcome::Events(events.to_vec());
    let whole = |limit| Call::ReadLog { after: 0, limit };
    read(whole(9), page(&[])).keeps_all();
    read(whole(9), page(&log(&LOG))).keeps_all();
    read(whole(2), page(&log(&LOG[..2]))).keeps_all();
    read(whole(9), page(&log(&LOG[..2]))).breaks(Promise::R3);
    read(Call::Head, Outcome::Head(2)).breaks(Promise::R3);
    let stream = || Call::ReadStream { stream: of("a"), after: 0, limit: 9 };
    read(stream(), page(&log(&LOG[..2]))).keeps_all();
    read(stream(), page(&log(&LOG[..1]))).breaks(Promise::R3);
}

#[test]
fn r2_r6_dishonest_answers_to_groups_are_found() {
    group().group(2, &both(), done(true)).keeps_all();
    group().group(2, &both(), done(false)).breaks(Promise::R6);
    let half = Outcome::Together(vec![ended(2, 2, true), ended(1, 3, false)]);
    group().group(2, &both(), half).breaks(Promise::R6);
    group().group(2, &both(), Outcome::Together(vec![ended(2, 2, true)])).breaks(Promise::Port);
    let conflict = |stream, actual| Outcome::Conflict { stream: of(stream), expected: "no stream".into(), actual };
    group().group(2, &both(), conflict("b", 1)).breaks(Promise::R6);
    let fresh = || vec![to("a", &[4]), Sent { expected: NoStream, ..to("b", &[5]) }];
    group().group(2, &fresh(), conflict("b", 1)).keeps_all();
    group().group(2, &fresh(), conflict("c", 1)).breaks(Promise::R2);
    group().group(2, &fresh(), conflict("a", 2)).breaks(Promise::R2);
    // A command that was done alone cannot be done again together with others. All that were done have their outcomes.
    let keyed = |events: &[u128]| Sent { stream: of("b"), ..keyed("x", events) };
    let alone = || Story::default().append(1, keyed(&[3]), ended(1, 1, false)).log_of(&[("b", 3)]);
    alone().group(2, &[to("a", &[1]), keyed(&[4])], Outcome::KeyReused).keeps_all();
    alone().group(2, &[to("a", &[1]), to("c", &[4])], Outcome::KeyReused).breaks(Promise::R6);
    let with = |outcome| {
        let first = [to("a", &[1]), keyed(&[3])];
        let done = Outcome::Together(vec![ended(1, 1, false), ended(1, 2, false)]);
        Story::default().group(1, &first, done).group(2, &first, outcome).log_of(&[("a", 1), ("b", 3)])
    };
    with(Outcome::KeyReused).breaks(Promise::R6);
}

#[test]
fn r2_appends_after_another_event_than_they_name_are_found() {
    let after = |id| Expectation::Last { version: 2, event_id: Uuid::from_u128(id) };
    two().append(2, sent(after(2), &[3]), appended(3, false)).log(&[1, 2, 3]).keeps_all();
    two().append(2, sent(after(9), &[3]), appended(3, false)).log(&[1, 2, 3]).breaks(Promise::R2);
    let conflict =
        |id| Outcome::Conflict { stream: stream(), expected: Expected::from(after(id)).to_string(), actual: 2 };
    two().append(2, sent(after(9), &[3]), conflict(9)).keeps_all();
    two().append(2, sent(after(2), &[3]), conflict(2)).breaks(Promise::R2);
}

fn tagged(tag: &str, events: &[u128]) -> Sent {
    let mut sent = sent(Any, events);
    for event in &mut sent.events {
        event.about = Some(About { name: "n".into(), tags: vec![tag.into()] });
    }
    sent
}

fn query(names: &[&str]) -> Query {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Query { items: vec![Item { tags: vec!["t".into()], names }] }
}

fn given(after: u64, sent: Sent) -> Sent {
    Sent { conditions: vec![Given { query: query(&[]), after }], ..sent }
}

#[test]
fn r2_r6_broken_conditions_are_found() {
    // The events at 1 and 2 match.
    let two = || Story::default().append(1, tagged("t", &[1, 2]), appended(2, false)).log(&[1, 2]);
    let wrote = |sent| two().append(2, sent, appended(3, false)).log(&[1, 2, 3]);
    wrote(given(2, tagged("t", &[3]))).keeps_all();
    wrote(given(1, sent(Any, &[3]))).breaks(Promise::R2);
    wrote(given(0, sent(Any, &[3]))).breaks(Promise::R2);
    let failed =
        |after, position| two().append(2, given(after, sent(Any, &[3])), Outcome::ConditionFailed { position });
    failed(1, 2).keeps_all();
    failed(2, 2).breaks(Promise::R2);
    failed(1, 3).breaks(Promise::R2);
    failed(1, 3).append(3, sent(Any, &[4]), appended(3, false)).log(&[1, 2, 4]).breaks(Promise::R2);
    two().append(2, sent(Any, &[3]), Outcome::ConditionFailed { position: 2 }).breaks(Promise::R2);
    // Sent again, it would fail its own condition.
    let again = |outcome| wrote(given(2, tagged("t", &[3]))).append(3, given(2, tagged("t", &[3])), outcome);
    again(appended(3, true)).keeps_all();
    again(Outcome::ConditionFailed { position: 3 }).breaks(Promise::R6);
    // Each query has a position of its own.
    let both = |after, sent| {
        let all = Given { query: Query { items: vec![Item { tags: Vec::new(), names: Vec::new() }] }, after };
        Sent { conditions: [given(2, sent).conditions, vec![all]].concat(), ..self::sent(Any, &[3]) }
    };
    wrote(both(2, sent(Any, &[3]))).keeps_all();
    wrote(both(1, sent(Any, &[3]))).breaks(Promise::R2);
    // A condition of one is a condition of all.
    let apart = [Sent { stream: of("a"), ..sent(Any, &[3]) }, given(0, Sent { stream: of("b"), ..sent(Any, &[4]) })];
    two().group(2, &apart, Outcome::ConditionFailed { position: 1 }).keeps_all();
}

#[test]
fn r3_readers_that_miss_what_matches_are_found() {
    let story = || {
        let one = Story::default().append(1, tagged("t", &[1]), appended(1, false));
        let three = one.append(2, tagged("u", &[2]), appended(2, false));
        three.append(3, tagged("t", &[3]), appended(3, false)).log(&[1, 2, 3])
    };
    let read = |query, after, events: &[(u64, u128)]| {
        let page = events.iter().map(|(position, id)| seen(*position, *id)).collect();
        story().read(4, Call::ReadMatching { query, after, limit: 2 }, Outcome::Events(page))
    };
    read(query(&[]), 0, &[(1, 1), (3, 3)]).keeps_all();
    read(query(&["n", "m"]), 1, &[(3, 3)]).keeps_all();
    read(query(&["m"]), 0, &[]).keeps_all();
    read(query(&[]), 0, &[(1, 1), (2, 2)]).breaks(Promise::R3);
    read(query(&[]), 0, &[(1, 1)]).breaks(Promise::R3);
    read(query(&[]), 0, &[(3, 3)]).breaks(Promise::R3);
    read(query(&[]), 1, &[(1, 1), (3, 3)]).breaks(Promise::R3);
}
