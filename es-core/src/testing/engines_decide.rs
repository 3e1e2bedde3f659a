//! What decisions across streams must do on every store.

use super::booking::{Booking, BookingCommand};
use crate::{
    boundary::{EventQuery, Tag},
    execute::{ExecuteError, Repository},
    snapshot::AggregateStore,
    stream::Position,
};

fn about(tag: &str) -> EventQuery {
    EventQuery::tagged([Tag::new(tag).expect("a valid tag")])
}

fn make(room: u32, night: u32, guest: &str) -> BookingCommand {
    BookingCommand::Make { room, night, guest: guest.to_owned() }
}

/// R2: an aggregate's events are found by what they are about.
pub async fn r2_events_of_a_repository_carry_their_own_tags<S: AggregateStore + Clone>(store: &S) {
    let bookings = Repository::<Booking>::new(store);
    bookings.execute("b1", make(7, 1, "ada")).await.expect("executed");
    bookings.execute("b2", make(8, 1, "bob")).await.expect("executed");
    bookings.execute("b1", BookingCommand::Cancel).await.expect("executed");
    for (tag, expected) in [("room:7", vec![1, 3]), ("room:8", vec![2]), ("guest:ada", vec![1, 3]), ("room:9", vec![])]
    {
        let found = store.read_matching(&about(tag), Position::ZERO, 10).await.expect("a read");
        assert_eq!(found.iter().map(|event| event.position.get()).collect::<Vec<_>>(), expected, "{tag}");
    }
}

/// R15: what cannot be found later is not written.
pub async fn r15_an_event_with_an_invalid_tag_is_refused_and_named<S: AggregateStore + Clone>(store: &S) {
    let bookings = Repository::<Booking>::new(store);
    match bookings.execute("b1", make(7, 1, "a\nsecret")).await {
        Err(ExecuteError::Tag(error)) => {
            assert_eq!((error.event, error.rule), ("booking.made", "guest:{guest}"));
            assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
        }
        other => panic!("expected a refusal of the tag, got {other:?}"),
    }
    assert_eq!(store.head().await.expect("a head"), Position::ZERO);
}
