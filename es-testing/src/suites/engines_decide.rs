//! Decisions across streams, on every store.

use std::{collections::BTreeSet, sync::Arc};

use tokio::{sync::Barrier, task::JoinSet};

use crate::booking::{Booking, BookingCommand, BookingEvent, Nights};
use es_core::{
    AppendError, CommandContext, DecideError, Decision, Decisions, EventQuery, ExecuteError, Expected, IdempotencyKey,
    Metadata, Position, ReadToken, Receipt, Repository, StreamId, Tag, Version, backend::AggregateStore,
};

fn about(tag: &str) -> EventQuery {
    EventQuery::tagged([Tag::new(tag).expect("a valid tag")])
}

fn make(room: u32, night: u32, guest: &str) -> BookingCommand {
    BookingCommand::Make { room, night, guest: guest.to_owned() }
}

/// R2: the events of an aggregate are found by their tags.
pub async fn r2_events_of_a_repository_carry_their_own_tags<S: AggregateStore + Clone>(store: &S) {
    let bookings = Repository::<Booking>::new(store.clone());
    bookings.execute("b1", make(7, 1, "ada")).await.expect("executed");
    bookings.execute("b2", make(8, 1, "bob")).await.expect("executed");
    bookings.execute("b1", BookingCommand::Cancel).await.expect("executed");
    for (tag, expected) in [("room:7", vec![1, 3]), ("room:8", vec![2]), ("guest:ada", vec![1, 3]), ("room:9", vec![])]
    {
        let found = store.read_matching(&about(tag), Position::ZERO, 10).await.expect("a read");
        assert_eq!(found.iter().map(|event| event.position.get()).collect::<Vec<_>>(), expected, "{tag}");
    }
}

/// R15: an event whose tag could not be found later is not written.
pub async fn r15_an_event_with_an_invalid_tag_is_refused_and_named<S: AggregateStore + Clone>(store: &S) {
    let bookings = Repository::<Booking>::new(store.clone());
    match bookings.execute("b1", make(7, 1, "a\nsecret")).await {
        Err(ExecuteError::Tag(error)) => {
            assert_eq!((error.event, error.rule), ("booking.made", "guest:{guest}"));
            assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
        }
        other => panic!("expected a refusal of the tag, got {other:?}"),
    }
    assert_eq!(store.head().await.expect("a head"), Position::ZERO);
}

fn stream(id: &str) -> StreamId {
    StreamId::new("booking", id).expect("a valid name")
}

fn key(key: &str, content: &str) -> CommandContext {
    CommandContext::default().idempotent(IdempotencyKey::new(key).expect("a valid key"), content.as_bytes())
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the night is taken")]
struct Taken;

fn made(room: u32, night: u32) -> BookingEvent {
    BookingEvent::Made { room, night, guest: "ada".into() }
}

/// A booking of room 7 that is decided on the room's other bookings, without its own stream.
async fn book(
    decisions: &Decisions,
    id: &str,
    night: u32,
    context: CommandContext,
) -> Result<Receipt, DecideError<Taken>> {
    let stream = stream(id);
    let decision = decisions.decide_with(Nights::of("room:7"), context, |nights| {
        if nights.taken.contains(&night) {
            return Err(Taken);
        }
        Ok(Decision::append(stream.clone(), Expected::NoStream, [made(7, night)]))
    });
    decision.await
}

/// R2: the next decision sees the effect of a command on an aggregate.
pub async fn r2_decisions_see_what_repositories_write<S: AggregateStore + Clone>(store: &S) {
    let (decisions, bookings) = (Decisions::new(store.clone(), "book"), Repository::<Booking>::new(store.clone()));
    book(&decisions, "b1", 1, CommandContext::default()).await.expect("the night is free");
    let taken = book(&decisions, "b2", 1, CommandContext::default()).await;
    assert!(matches!(taken, Err(DecideError::Rejected(Taken))), "{taken:?}");
    bookings.execute("b1", BookingCommand::Cancel).await.expect("executed");
    book(&decisions, "b2", 1, CommandContext::default()).await.expect("the night is free again");
    assert!(bookings.load("b2").await.expect("loaded").state.made.is_some(), "the aggregate knows of the decision");
}

/// R6: a request that is repeated under its key is not refused because of its own first success.
pub async fn r6_a_repeated_decision_returns_its_first_receipt<S: AggregateStore + Clone>(store: &S) {
    let decisions = Decisions::new(store.clone(), "book");
    let first = book(&decisions, "b1", 1, key("k", "1")).await.expect("decided");
    book(&decisions, "b2", 2, CommandContext::default()).await.expect("decided");
    assert_eq!(
        (first.position, first.token, first.repeated),
        (Some(Position::new(1)), ReadToken(Position::new(1)), false)
    );
    // The decision may choose another stream: the key alone identifies the request.
    for (again, id) in [(&decisions, "b1"), (&Decisions::new(store.clone(), "book"), "another")] {
        assert_eq!(book(again, id, 1, key("k", "1")).await.expect("repeated"), Receipt { repeated: true, ..first });
    }
    let reused = book(&decisions, "b3", 3, key("k", "3")).await;
    assert!(matches!(reused, Err(DecideError::Append(AppendError::KeyReused))), "{reused:?}");
    // Keys are unique within the decisions of one name.
    let other = Decisions::new(store.clone(), "rebook");
    let taken = book(&other, "b1", 1, key("k", "1")).await;
    assert!(matches!(taken, Err(DecideError::Rejected(Taken))), "{taken:?}");
    assert!(!book(&other, "b3", 3, key("k", "3")).await.expect("decided").repeated);
    // Those about a subject are unique within name and subject. (Seen to fail with keys of the name: reused.)
    let (one, two) = (decisions.about("hotel:1"), decisions.about("hotel:2"));
    assert!(!book(&one, "b4", 4, key("k", "4")).await.expect("decided").repeated);
    assert!(!book(&two, "b5", 5, key("k", "5")).await.expect("decided").repeated);
    assert!(book(&one, "b4", 4, key("k", "4")).await.expect("repeated").repeated);
    assert_eq!(store.head().await.expect("a head"), Position::new(5));
}

/// R6: the same request a hundred times at once. (Seen to fail if the command is not looked up after a failed append.)
pub async fn r6_of_100_equal_decisions_at_once_one_is_written_and_all_get_its_receipt<S: AggregateStore + Clone>(
    store: &S,
) {
    for (round, same_stream) in [true, false].into_iter().enumerate() {
        let night = u32::try_from(round).expect("a small number");
        let (mut twins, start) = (JoinSet::new(), Arc::new(Barrier::new(100)));
        for twin in 0..100 {
            let (decisions, start) = (Decisions::new(store.clone(), "book"), start.clone());
            let id = if same_stream { "same".to_owned() } else { format!("twin-{twin}") };
            twins.spawn(async move {
                start.wait().await;
                book(&decisions, &id, night, key(&format!("k{round}"), "k")).await
            });
        }
        let receipts: Vec<_> = twins.join_all().await.into_iter().map(|receipt| receipt.expect("decided")).collect();
        assert!(receipts.iter().filter(|receipt| !receipt.repeated).count() <= 1);
        assert!(
            receipts.iter().all(|receipt| receipt.position == Some(Position::new(round as u64 + 1))),
            "{receipts:?}"
        );
        assert_eq!(store.head().await.expect("a head"), Position::new(round as u64 + 1));
    }
}

/// R2: different decisions on one boundary. (Seen to fail, `Contended`, where those of one process do not take turns.)
pub async fn r2_many_decisions_on_one_boundary_at_once_all_get_through<S: AggregateStore + Clone>(store: &S) {
    let (decisions, mut clients) = (Decisions::new(store.clone(), "book"), JoinSet::new());
    let start = Arc::new(Barrier::new(60));
    for night in 0..60 {
        let (decisions, start) = (decisions.clone(), start.clone());
        clients.spawn(async move {
            start.wait().await;
            book(&decisions, &night.to_string(), night, CommandContext::default()).await
        });
    }
    let outcomes = clients.join_all().await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(store.head().await.expect("a head"), Position::new(60));
}

/// R6: equal requests between which no condition fails.
pub async fn r6_equal_decisions_that_append_to_different_streams_write_once<S: AggregateStore + Clone>(store: &S) {
    let (mut twins, start) = (JoinSet::new(), Arc::new(Barrier::new(40)));
    for twin in 0..40 {
        let (decisions, start) = (Decisions::new(store.clone(), "open"), start.clone());
        twins.spawn(async move {
            start.wait().await;
            let decide =
                |_: &Nights| Ok::<_, Taken>(Decision::append(stream(&twin.to_string()), Expected::Any, [made(1, 1)]));
            decisions.decide_with(Nights::of("room:none"), key("k", "k"), decide).await
        });
    }
    let receipts: Vec<_> = twins.join_all().await.into_iter().map(|receipt| receipt.expect("decided")).collect();
    assert!(receipts.iter().all(|receipt| receipt.position == Some(Position::new(1))), "{receipts:?}");
    assert_eq!(store.head().await.expect("a head"), Position::new(1));
}

/// R2: two models, each with a condition of its own; only nights that both leave free are booked.
pub async fn r2_decisions_on_two_models_keep_both<S: AggregateStore + Clone>(store: &S) {
    let mut clients = JoinSet::new();
    for client in 0..16_u32 {
        let decisions = Decisions::new(store.clone(), "book").attempts(1_000);
        clients.spawn(async move {
            let (room, guest) = (client % 4, format!("g{}", client / 4));
            let mut made = 0;
            for night in 0..3 {
                let models = (Nights::of(&format!("room:{room}")), Nights::of(&format!("guest:{guest}")));
                let stream = stream(&format!("{client}-{night}"));
                let booked = decisions.decide(models, |(room_nights, guest_nights)| {
                    if room_nights.taken.contains(&night) || guest_nights.taken.contains(&night) {
                        return Err(Taken);
                    }
                    let event = BookingEvent::Made { room, night, guest: guest.clone() };
                    Ok(Decision::append(stream.clone(), Expected::NoStream, [event]))
                });
                match booked.await {
                    Ok(_) => made += 1,
                    Err(DecideError::Rejected(Taken)) => {}
                    Err(other) => panic!("{other:?}"),
                }
            }
            made
        });
    }
    let made: u64 = clients.join_all().await.into_iter().sum();
    assert_eq!(store.head().await.expect("a head").get(), made);
    for tag in (0..4).flat_map(|number| [format!("room:{number}"), format!("guest:g{number}")]) {
        let found = store.read_matching(&about(&tag), Position::ZERO, 100).await.expect("a read");
        assert!((1..=3).contains(&found.len()), "{tag}");
        let nights: BTreeSet<_> = found
            .iter()
            .map(|event| match event.decode::<BookingEvent>().expect("decoded").expect("a booking").data {
                BookingEvent::Made { night, .. } | BookingEvent::Cancelled { night, .. } => night,
            })
            .collect();
        assert_eq!(nights.len(), found.len(), "{tag} has a night twice");
    }
}

/// R1, R6: a decision may write to several streams, and its events carry the metadata of the request.
pub async fn r1_a_decision_on_several_streams_is_whole<S: AggregateStore + Clone>(store: &S) {
    let decisions = Decisions::new(store.clone(), "swap");
    let context =
        CommandContext { metadata: Metadata { actor: Some("ada".into()), ..Metadata::default() }, ..key("k", "k") };
    let swap = || {
        decisions.decide_with(Nights::of("room:7"), context.clone(), |nights| {
            let free = |night| if nights.taken.contains(&night) { Err(Taken) } else { Ok([made(7, night)]) };
            let one = Decision::append(stream("a"), Expected::NoStream, free(1)?);
            Ok::<_, Taken>(one.and(Decision::append(stream("b"), Expected::NoStream, free(2)?)))
        })
    };
    let first = swap().await.expect("decided");
    assert_eq!((first.position, first.version, first.repeated), (Some(Position::new(2)), Version::new(1), false));
    assert_eq!(swap().await.expect("repeated"), Receipt { repeated: true, ..first });
    let events = store.read_log(Position::ZERO, 9).await.expect("a read");
    assert_eq!(events.iter().map(|event| event.stream.id()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(events.iter().all(|event| event.metadata.actor.as_deref() == Some("ada")));
}

/// R2: a conflict that no model sees is reported and not retried without end.
pub async fn r2_a_conflict_that_no_model_sees_is_reported<S: AggregateStore + Clone>(store: &S) {
    let decisions = Decisions::new(store.clone(), "book").attempts(u32::MAX);
    Repository::<Booking>::new(store.clone()).execute("b1", make(8, 1, "bob")).await.expect("executed");
    match book(&decisions, "b1", 1, CommandContext::default()).await {
        Err(DecideError::Append(AppendError::Conflict(conflict))) => assert_eq!(conflict.actual, Version::new(1)),
        other => panic!("expected a conflict, got {other:?}"),
    }
    let nothing = decisions.decide(Nights::of("room:7"), |_| Ok::<_, Taken>(Decision::nothing())).await;
    assert_eq!(nothing.expect("decided").position, None);
    let seen = CommandContext { if_version: Some(Version::ZERO), ..CommandContext::default() };
    let given = book(&decisions, "b2", 1, seen).await;
    assert!(matches!(given, Err(DecideError::VersionGiven)), "{given:?}");
    assert_eq!(store.head().await.expect("a head"), Position::new(1));
}
