use std::{
    future::{self, Future},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use super::{DecideError, Decision, Decisions, Matching};
use crate::{
    stream::{Expected, StreamId},
    tag::{EventQuery, Tag},
    write::{
        append::{Append, IdempotencyKey},
        execute::CommandContext,
        scripted::{Fate, Scripted},
        store::AppendError,
    },
};

#[derive(Debug, Clone, PartialEq, crate::Event)]
#[event(category = "seat")]
enum SeatEvent {
    #[event(name = "seat.taken", tag = "room:1")]
    Taken,
}

#[derive(Debug, thiserror::Error)]
#[error("the room is full")]
struct Full;

fn room() -> Matching<SeatEvent> {
    Matching::new(EventQuery::tagged([Tag::new("room:1").expect("a tag")]))
}

/// Takes the next seat of the room, of two.
fn take(taken: &Matching<SeatEvent>) -> Result<Decision, Full> {
    match taken.events.len() {
        2 => Err(Full),
        taken => Ok(Decision::append(seat(taken), Expected::NoStream, [SeatEvent::Taken])),
    }
}

fn seat(number: usize) -> StreamId {
    StreamId::new("seat", &number.to_string()).expect("a valid name")
}

fn rival(number: usize) -> Append {
    let mut appends = Decision::append(seat(number), Expected::NoStream, [SeatEvent::Taken]).into_appends();
    appends.as_mut().expect("an event").remove(0)
}

fn condition_failed() -> Fate {
    Fate::Fails(AppendError::ConditionFailed { position: crate::Position::new(1) })
}

fn decisions(fates: impl IntoIterator<Item = Fate>) -> (Arc<Scripted>, Decisions) {
    let store = Arc::new(Scripted::new(fates));
    (store.clone(), Decisions::new(store, "take"))
}

/// The rival takes the same seat, so this is first of all a conflict in its stream.
#[tokio::test]
async fn a_decision_is_made_again_on_what_was_in_its_way() {
    let (store, decisions) = decisions([Fate::After(rival(0))]);
    decisions.decide(room(), take).await.expect("the other seat is free");
    assert_eq!(store.appends(), 2);
    assert!(matches!(decisions.decide(room(), take).await, Err(DecideError::Rejected(Full))));
}

#[tokio::test]
async fn a_decision_is_made_as_often_as_it_may_be() {
    let (store, decisions) = decisions((0..4).map(|_| condition_failed()));
    let decisions = decisions.attempts(3);
    let error = decisions.decide(room(), take).await.expect_err("a rival each time");
    assert!(matches!(error, DecideError::Contended { attempts: 3 }), "{error}");
    assert!(error.is_transient());
    assert_eq!(store.appends(), 3);
    decisions.decide(room(), take).await.expect("the second attempt is written");
    assert_eq!(store.appends(), 5);
}

/// That it is unknown whether it was written must not be hidden by the next failure.
#[tokio::test]
async fn a_decision_on_a_store_that_fails_has_an_unknown_outcome() {
    let (store, decisions) = decisions([Fate::Breaks]);
    let context = CommandContext::default().idempotent(IdempotencyKey::new("k").expect("a key"), b"content");
    let error = decisions.decide_with(room(), context, take).await.expect_err("the store is down");
    assert!(matches!(&error, DecideError::Append(error) if error.is_unknown()), "{error:?}");
    assert_eq!(store.appends(), 1);
}

/// Seen to fail without turns: the second decision is sent too, and refused.
#[tokio::test]
async fn decisions_on_the_same_events_take_turns() {
    let (store, decisions) = decisions([Fate::Waits]);
    let mut first = Box::pin(decisions.decide(room(), take));
    assert!(poll(first.as_mut()).await.is_pending());
    let mut second = Box::pin(decisions.decide(room(), take));
    assert!(poll(second.as_mut()).await.is_pending());
    assert_eq!(store.appends(), 1);
    store.let_through();
    first.await.expect("taken");
    second.await.expect("taken");
    assert_eq!(store.appends(), 2);
}

/// Polls once.
async fn poll<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}
