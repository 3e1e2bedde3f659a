//! What the tools for tests say, and that they notice what is wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{
    TestClock,
    account::{Account, AccountCommand, AccountEvent, Ledger},
    given, history, project, recorded,
};
use crate::{
    Aggregate, AggregateModel, Append, DecideError, Decision, DecisionModel, Decisions, Event, EventQuery, EventStore,
    Expected, InvalidTag, Matching, Metadata, NewEvent, Policy, PolicyError, Position, Recorded, Repository, StreamId,
    Tag, Version, reaction,
};

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "user")]
enum UserEvent {
    #[event(name = "user.registered", tag = "name:{name}")]
    Registered { name: String },
    #[event(name = "user.left", tag = "name:{name}")]
    Left { name: String },
    #[event(name = "user.noted")]
    Noted { text: String },
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("the name is taken")]
struct Taken;

fn registered(name: &str) -> UserEvent {
    UserEvent::Registered { name: name.to_owned() }
}

fn user(id: &str) -> StreamId {
    StreamId::new("user", id).expect("a valid id")
}

fn named(name: &str) -> Matching<UserEvent> {
    Matching::new(EventQuery::tagged([Tag::new(format!("name:{name}")).expect("a tag")]))
}

fn register(id: &'static str) -> impl FnOnce(&Matching<UserEvent>) -> Result<Decision, Taken> {
    move |named| match named.events.last().map(|event| &event.data) {
        Some(UserEvent::Registered { .. }) => Err(Taken),
        _ => Ok(Decision::append(user(id), Expected::NoStream, [registered("ada")])),
    }
}

/// What `failing` panics with.
fn message(failing: impl FnOnce()) -> String {
    let panicked = catch_unwind(AssertUnwindSafe(failing)).expect_err("it panics");
    panicked
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panicked.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .expect("a text")
}

#[test]
fn a_decision_sees_the_events_that_its_models_ask_for() {
    let decided = || Decision::append(user("2"), Expected::NoStream, [registered("ada")]);
    let before = history().event("1", registered("eve"));
    let after = before.when(named("ada"), register("2")).then(decided());
    after.clone().when(named("ada"), register("3")).then_refused(&Taken);
    let left = after.event("2", UserEvent::Left { name: "ada".to_owned() });
    let again = Decision::append(user("3"), Expected::NoStream, [registered("ada")]);
    let end = left.when(named("ada"), register("3")).then(again);
    assert_eq!(end.events().iter().map(|event| event.position.get()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let nothing = |_: &Matching<UserEvent>| Ok::<_, Taken>(Decision::nothing());
    end.when(named("ada"), nothing).then_nothing();
}

#[test]
fn a_decision_that_differs_is_told_with_both_sides() {
    let other = || Decision::append(user("2"), Expected::Any, [registered("eve")]);
    let told = message(|| drop(history().when(named("ada"), register("2")).then(other())));
    let decided = "to user-2, expecting no stream\n    user.registered v1 {\"name\":\"ada\"}, tagged name:ada";
    let expected = "to user-2, expecting any version\n    user.registered v1 {\"name\":\"eve\"}, tagged name:eve";
    assert_eq!(told, format!("decided:\n  {decided}\nexpected:\n  {expected}\n"));
    let told = message(|| history().when(named("ada"), register("2")).then_refused(&Taken));
    assert!(told.starts_with("not refused:\n  to user-2"), "{told}");
}

#[test]
fn an_aggregate_is_a_model_of_its_own_stream() {
    let query = EventQuery::named_only(AccountEvent::SCHEMAS.iter().map(|schema| schema.name));
    let model = AggregateModel::<Account>::new(StreamId::new("account", "a").expect("a valid id"), query);
    let before = history().event("a", deposited(5)).event("b", deposited(7)).event("a", deposited(1));
    let decided = before.when(model, |_| Ok::<_, Taken>(Decision::nothing()));
    assert_eq!((decided.models.state.balance, decided.models.version.get()), (6, 2));
    decided.then_nothing();
}

#[tokio::test]
async fn r15_a_model_that_asks_by_an_invalid_tag_ends_the_decision_with_an_error() {
    struct Asking(&'static str);

    impl DecisionModel for Asking {
        type Event = UserEvent;

        fn query(&self) -> Result<EventQuery, InvalidTag> {
            Ok(EventQuery::tagged([Tag::new(self.0)?]))
        }

        fn apply(&mut self, _: &Recorded<UserEvent>) {}
    }

    let decisions = Decisions::new(crate::MemoryStore::new(), "register");
    let nothing = |_: &(Asking, Asking)| Ok::<_, Taken>(Decision::nothing());
    decisions.decide((Asking("a"), Asking("b")), nothing).await.expect("decided");
    let invalid = decisions.decide((Asking("a"), Asking("\n")), nothing).await;
    assert!(matches!(invalid, Err(DecideError::Query(InvalidTag))), "{invalid:?}");
}

/// An append that the store would refuse is no success, although it is the one that is expected.
#[test]
fn r2_a_decision_on_a_stream_that_is_not_as_expected_is_noticed() {
    let decided = Decision::append(user("1"), Expected::NoStream, [registered("ada")]);
    let before = history().event("1", registered("eve"));
    let told = message(|| drop(before.when(named("ada"), register("1")).then(decided)));
    assert!(told.contains("stream user-1: expected no stream, found version 1"), "{told}");
}

/// Puts the same amount on the account `copy`; cannot react to 13.
struct Copying {
    accounts: Repository<Account>,
    with_key: bool,
}

#[async_trait]
impl Policy for Copying {
    const NAME: &'static str = "copying";
    type Event = AccountEvent;

    async fn react(&self, event: &Recorded<AccountEvent>) -> Result<(), PolicyError> {
        let AccountEvent::Deposited { amount } = event.data else { return Ok(()) };
        if event.stream.id() == "copy" {
            return Ok(());
        }
        if amount == 13 {
            return Err(PolicyError::Permanent("13".into()));
        }
        let key = reaction(event, Self::NAME, "copy")?;
        let context = if self.with_key { key } else { Metadata::caused_by(event).into() };
        self.accounts.execute_with("copy", AccountCommand::Deposit(amount), context).await?;
        Ok(())
    }
}

fn deposited(amount: u64) -> AccountEvent {
    AccountEvent::Deposited { amount }
}

#[tokio::test]
async fn a_policy_is_told_by_the_events_of_its_commands() {
    let given = history().event("a", deposited(5)).event("1", registered("eve")).event("b", deposited(7));
    let reacted = given
        .aggregate::<Account>()
        .when_reacting(|shared| Copying { accounts: shared.repository(), with_key: true })
        .await;
    let reacted = reacted.then(history().event("copy", deposited(5)).event("copy", deposited(7)));
    reacted.again().await.then(history());
}

#[tokio::test]
async fn r6_a_policy_whose_commands_have_no_key_is_noticed() {
    let given = history().event("a", deposited(5)).aggregate::<Account>();
    let reacted = given.when_reacting(|shared| Copying { accounts: shared.repository(), with_key: false }).await;
    let again = reacted.again().await;
    let told = message(|| drop(again.then(history())));
    assert!(told.contains("account-copy: account.deposited v1 {\"amount\":5}\nexpected:\n  \n"), "{told}");
}

#[tokio::test]
async fn a_policy_that_fails_is_told_with_the_event() {
    let given = || history().event("a", deposited(5)).event("a", deposited(13)).aggregate::<Account>();
    let copying = |shared: &crate::Resources| Copying { accounts: shared.repository(), with_key: true };
    let error = given().when_reacting(copying).await.then_failed();
    assert!(!error.is_transient());
    let reacted = given().when_reacting(copying).await;
    let told = message(|| drop(reacted.then(history().event("copy", deposited(5)))));
    assert_eq!(told, "the policy \"copying\" failed at account-a (position 2): a reaction failed: 13");
}

#[test]
fn a_history_has_positions_times_and_metadata_of_the_tests_choice() {
    let metadata = Metadata { actor: Some("ada".to_owned()), ..Metadata::default() };
    let noon = "2026-03-01T12:00:00Z".parse().expect("a time");
    let history = history()
        .event("a", deposited(1))
        .event("1", registered("eve"))
        .position(41)
        .at(noon)
        .metadata(metadata.clone())
        .event("a", deposited(2));
    let told =
        |event: &crate::RecordedEvent| (event.position.get(), event.version.get(), event.recorded_at.to_rfc3339());
    let told: Vec<_> = history.events().iter().map(told).collect();
    assert_eq!(
        told,
        [
            (1, 1, "2026-01-01T00:00:01+00:00".to_owned()),
            (41, 1, "2026-03-01T12:00:00+00:00".to_owned()),
            (42, 2, "2026-03-01T12:00:01+00:00".to_owned()),
        ]
    );
    assert_eq!(history.events()[1].metadata, metadata);
    assert_eq!(project(&Ledger::<1>::default(), &history).expect("folded")["all"].positions, [1, 42]);
    assert_eq!(recorded([("a", deposited(1))]), history.events()[..1]);
    assert!(message(|| drop(history.position(41))).starts_with("positions grow"));
}

/// Both sides print alike, so a comparison alone would not tell what is wrong.
#[test]
fn an_event_with_nan_is_told_as_such() {
    #[derive(Debug, PartialEq, Event)]
    #[event(category = "reading")]
    enum ReadingEvent {
        #[event(name = "reading.taken")]
        Taken { celsius: f64 },
    }

    #[derive(Default, PartialEq, Clone, Serialize, Deserialize)]
    struct Meter;

    impl Aggregate for Meter {
        type Command = f64;
        type Event = ReadingEvent;
        type Error = std::convert::Infallible;

        fn handle(&self, celsius: &f64) -> Result<Vec<ReadingEvent>, Self::Error> {
            Ok(vec![ReadingEvent::Taken { celsius: *celsius }])
        }

        fn apply(&mut self, _: &ReadingEvent) {}
    }

    let taken = |celsius| ReadingEvent::Taken { celsius };
    let _ = given::<Meter>([]).when(&1.5).then([taken(1.5)]);
    let told = message(|| _ = given::<Meter>([]).when(&f64::NAN).then([taken(f64::NAN)]));
    assert!(told.contains("decided is not equal to itself") && told.contains("NaN"), "{told}");
    let told = message(|| _ = given::<Meter>([]).when(&1.5).then([taken(f64::NAN)]));
    assert!(told.contains("expected is not equal to itself"), "{told}");
}

/// Seen to pass where each append was checked by itself, after the one before it.
#[test]
fn a_decision_that_the_store_refuses_as_a_whole_does_not_pass() {
    let twice = || {
        let first = Decision::append(user("2"), Expected::NoStream, [registered("ada")]);
        first.and(Decision::append(user("2"), Expected::Exact(Version::new(1)), [registered("eve")]))
    };
    let decided = |_: &Matching<UserEvent>| Ok::<_, Taken>(twice());
    let told = message(|| drop(history().when(named("ada"), decided).then(twice())));
    assert_eq!(told, "the store refuses the appends: two of the appends are to the stream user-2");
}

/// Seen to pass where only the payload was encoded.
#[test]
fn events_that_no_log_takes_do_not_happen_in_a_test() {
    let noted = UserEvent::Noted { text: "a\0b".to_owned() };
    for (event, reason) in [(registered("a\nb"), "control"), (noted, "NUL")] {
        let told = message(|| drop(history().event("1", event.clone())));
        assert!(told.contains(reason), "{told}");
        let told = message(|| _ = given::<User>([]).when(&event).then([event.clone()]));
        assert!(told.contains(reason), "{told}");
    }
}

/// Lets happen what it is told.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct User;

impl Aggregate for User {
    type Command = UserEvent;
    type Event = UserEvent;
    type Error = Taken;

    fn handle(&self, event: &UserEvent) -> Result<Vec<UserEvent>, Taken> {
        Ok(vec![event.clone()])
    }

    fn apply(&mut self, _: &UserEvent) {}
}

/// Seen to fail: it was the year 1970.
#[tokio::test]
async fn a_clock_may_show_any_year() {
    for time in ["0001-01-01T00:00:00.123456Z", "2300-01-01T00:00:00.123456Z", "9999-12-31T23:59:59.999999Z"] {
        let clock = TestClock::at(time.parse().expect("a time"));
        let store = clock.store();
        let event = NewEvent::of(&registered("ada")).expect("a valid event");
        store.append(Append::new(user("1"), Expected::Any, vec![event])).await.expect("written");
        let events = store.read_log(Position::ZERO, 1).await.expect("read");
        assert_eq!(events[0].recorded_at, clock.now());
    }
}
