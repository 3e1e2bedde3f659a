use super::*;
use crate::{
    Act, Aggregate,
    event::{Event, EventData, RecordedEvent},
    testing::{account::AccountEvent, given_saga, recorded, replayed},
};

/// Has a parcel of what was paid sent, and asks after it.
struct Sending;

#[derive(Debug, Clone, Default, PartialEq, Serialize, serde::Deserialize)]
struct Sent {
    amount: u64,
}

#[async_trait]
impl Saga for Sending {
    const NAME: &'static str = "sending-parcels";
    type Event = AccountEvent;
    type State = Sent;
    type Action = String;
    type Answer = u32;

    fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
        match event.data {
            AccountEvent::Deposited { .. } => Correlation::Starts(event.stream.id().to_owned()),
            AccountEvent::Withdrawn { .. } => Correlation::Continues(event.stream.id().to_owned()),
        }
    }

    fn react(state: &mut Sent, input: Input<'_, Self>) -> Result<Vec<Effect<String>>, BoxError> {
        Ok(match input {
            Input::Event(Recorded { data: AccountEvent::Deposited { amount: 0 }, .. }) => return Err("nothing".into()),
            Input::Event(Recorded { data: AccountEvent::Deposited { amount }, .. }) => {
                state.amount += amount;
                vec![set("ask", 60), set("give-up", 90), Effect::Perform("send".into())]
            }
            Input::Event(_) => vec![Effect::Compensate, Effect::Perform("fetch back".into())],
            Input::Timer { name: "ask", .. } => vec![Effect::Perform("ask".into()), set("give-up", 200)],
            Input::Timer { .. } => vec![Effect::Fail { cause: "no answer came".into() }],
            Input::Answered { answer: 7, .. } => vec![Effect::Perform("thank".into()), Effect::End],
            Input::Answered { answer: 13, .. } => panic!("no parcel has the number 13"),
            Input::Answered { answer: 0, .. } => return Err("no parcel has the number 0".into()),
            Input::Answered { .. } => vec![Effect::CancelTimer { name: "ask".into() }, Effect::End],
            Input::Refused { .. } => vec![Effect::End, Effect::Compensate],
            Input::Asked(_) => vec![],
        })
    }

    async fn perform(&self, _: &String, _: ActionContext) -> Result<u32, ActionError> {
        Ok(1)
    }
}

fn set(name: &str, seconds: u64) -> Effect<String> {
    Effect::SetTimer { name: name.to_owned(), after: Duration::from_secs(seconds) }
}

fn paid(amount: u64) -> AccountEvent {
    AccountEvent::Deposited { amount }
}

fn asked(ask: Ask) -> Asked {
    Asked::new(ask, &Act::new("ada", "ticket 7").expect("valid"))
}

fn send() -> [Effect<String>; 3] {
    [set("ask", 60), set("give-up", 90), Effect::Perform("send".into())]
}

#[test]
fn r20_timers_come_in_the_order_of_their_times_and_one_that_is_set_anew_comes_later() {
    let given = given_saga::<Sending>().event("ada", paid(7)).then(send()).is(Status::Started);
    let asked = given.after(Duration::from_secs(100)).then([Effect::Perform("ask".into()), set("give-up", 200)]);
    let waited = asked.after(Duration::from_secs(100)).then([]);
    // It was set anew after 60 s.
    waited.after(Duration::from_mins(1)).then([Effect::Fail { cause: "no answer came".into() }]).is(Status::Failed);
}

#[test]
fn r20_an_instance_that_has_ended_hears_of_nothing() {
    let ended = given_saga::<Sending>().event("ada", paid(7)).answered(1);
    let ended = ended.then([Effect::CancelTimer { name: "ask".into() }, Effect::End]).is(Status::Completed);
    ended.event("ada", paid(8)).then([]).after(Duration::from_hours(1)).then([]).is(Status::Completed);
}

#[test]
fn r20_what_does_not_start_an_instance_is_ignored_before_it_has_begun() {
    let given = given_saga::<Sending>().event("ada", AccountEvent::Withdrawn { amount: 1 }).then([]);
    assert_eq!(given.instance().status(), None);
}

#[test]
fn r20_an_answer_to_which_a_saga_cannot_react_fails_it() {
    let failed = given_saga::<Sending>().event("ada", paid(7)).answered(0).is(Status::Failed);
    assert_eq!(failed.instance().cause(), Some("no parcel has the number 0"));
    assert_eq!(failed.instance().actions().len(), 1, "it can be performed again");
    let ended = given_saga::<Sending>().event("ada", paid(7)).refused("no").is(Status::Failed);
    assert_eq!(ended.instance().cause(), Some("a saga decides nothing after Effect::End or Effect::Fail"));
}

/// The stream of an instance that has failed, to which something has happened since, and that went on.
fn history() -> Vec<RecordedEvent> {
    let mut instance = Instance::<Sending>::default();
    let mut events = Vec::new();
    let mut tell = |command| {
        let told = instance.handle(&command).expect("told");
        for event in &told {
            instance.apply(event);
        }
        events.extend(told);
    };
    let paid = |amount| Heard::from_recorded(&recorded([("ada", paid(amount))])[0]).expect("read").expect("heard");
    tell(SagaCommand::Event(paid(7)));
    tell(SagaCommand::Fire { timer: "ask".into(), number: 1, at: DateTime::UNIX_EPOCH });
    let (action, cause) = (3, "no".to_owned());
    tell(SagaCommand::Attempted(Attempted { action, rounds: 0, attempts: 1, cause, again_after: None }));
    tell(SagaCommand::Event(paid(1)));
    tell(SagaCommand::Ask(asked(Ask::Retry)));
    tell(SagaCommand::Hear);
    tell(SagaCommand::Answer { action: 3, answer: Ok(1) });
    let stream = |event: SagaEvent<Sending>| {
        let data = EventData::of(&event).expect("written");
        let read = SagaEvent::<Sending>::decode(&data.name, data.schema_version, &data.payload).expect("read");
        assert!(read == event, "an event reads as it was written");
        data
    };
    let data = events.into_iter().map(stream);
    let stream = crate::StreamId::new(SagaEvent::<Sending>::CATEGORY, "ada").expect("a stream");
    let version = |index: usize| crate::Version::new(index as u64 + 1);
    let recorded = data.enumerate().map(|(index, data)| {
        let (position, at) = (crate::Position::new(index as u64 + 1), chrono::DateTime::UNIX_EPOCH);
        crate::NewEvent::new(data).into_recorded(stream.clone(), version(index), position, at)
    });
    recorded.collect()
}

#[test]
fn r20_what_has_happened_to_a_failed_instance_is_heard_when_it_goes_on() {
    let names: Vec<_> = history().iter().map(|event| event.data.name.to_string()).collect();
    let told = [
        "advanced",
        "advanced",
        "attempted",
        "failed",
        "deferred",
        "asked",
        "resumed",
        "advanced",
        "advanced",
        "completed",
    ];
    assert_eq!(names, told.map(|name| format!("saga.{name}")));
    assert_eq!(history()[0].stream.category(), "saga_sending_parcels");
}

/// Seen to fail where only the failure was told: the first of the events was lost.
#[test]
fn r20_an_event_to_which_an_instance_cannot_react_when_it_goes_on_waits_again_with_all_later_ones() {
    let mut instance = Instance::<Sending>::default();
    let mut names = |command| {
        let told = instance.handle(&command).expect("told");
        for event in &told {
            instance.apply(event);
        }
        told.iter().map(|event| event.schema().name).collect::<Vec<_>>()
    };
    let paid = |amount| Heard::from_recorded(&recorded([("ada", paid(amount))])[0]).expect("read").expect("heard");
    let retry = || SagaCommand::Ask(asked(Ask::Retry));
    names(SagaCommand::Event(paid(7)));
    names(SagaCommand::Fail { cause: "no".into() });
    for amount in [0, 1] {
        assert_eq!(names(SagaCommand::Event(paid(amount))), ["saga.deferred"]);
    }
    for _ in 0..2 {
        assert_eq!(names(retry()), ["saga.asked", "saga.resumed"]);
        assert_eq!(names(SagaCommand::Hear), ["saga.failed"]);
    }
}

#[test]
fn r20_a_saga_does_not_end_with_an_action() {
    let given = given_saga::<Sending>().event("ada", paid(7)).event("ada", AccountEvent::Withdrawn { amount: 1 });
    let ended = given.answered(7).is(Status::Failed);
    assert_eq!(ended.instance().cause(), Some("a saga that ends has nothing performed"));
    assert_eq!(ended.instance().actions().len(), 2, "both can be performed again");
}

#[test]
fn r20_a_saga_that_panics_at_an_answer_has_failed() {
    let failed = given_saga::<Sending>().event("ada", paid(7)).answered(13).is(Status::Failed);
    assert_eq!(failed.instance().cause(), Some("the saga panicked"));
}

#[test]
fn r20_other_code_that_decides_otherwise_is_found_by_a_replay() {
    assert!(replayed::<Sending>(&history()).is_none());
    let mut other = history();
    let text = String::from_utf8(other[0].data.payload.to_vec()).expect("text").replace("\"send\"", "\"carry\"");
    other[0].data.payload = text.into();
    let difference = replayed::<Sending>(&other).expect("it decides otherwise");
    assert_eq!(difference.event.map(|event| event.version.get()), Some(1));
    assert!(matches!(difference.ours, Some(SagaEvent::Advanced(_))));
}

/// What is told to an instance, and what it writes.
struct Told<S: Saga>(Instance<S>);

impl<S: Saga> Told<S> {
    fn tell(&mut self, command: &SagaCommand<S>) -> Vec<&'static str> {
        let told = self.0.handle(command).expect("told");
        for event in &told {
            self.0.apply(event);
        }
        told.iter().map(|event| event.schema().name).collect()
    }
}

fn heard(amount: u64) -> Heard<AccountEvent> {
    Heard::from_recorded(&recorded([("ada", paid(amount))])[0]).expect("read").expect("heard")
}

/// More than 10,000 events are too many for one append.
#[test]
fn r20_many_events_that_have_waited_are_heard_in_several_appends_in_their_order() {
    let mut told = Told(Instance::<Sending>::default());
    told.tell(&SagaCommand::Event(heard(1)));
    told.tell(&SagaCommand::Fail { cause: "no".into() });
    for _ in 0..250 {
        told.tell(&SagaCommand::Event(heard(1)));
    }
    assert_eq!(told.tell(&SagaCommand::Ask(asked(Ask::Retry))), ["saga.asked", "saga.resumed"]);
    assert_eq!(told.tell(&SagaCommand::Hear).len(), 100);
    // What comes meanwhile waits behind them.
    assert_eq!(told.tell(&SagaCommand::Event(heard(1))), ["saga.deferred"]);
    assert_eq!([told.tell(&SagaCommand::Hear).len(), told.tell(&SagaCommand::Hear).len()], [100, 51]);
    assert_eq!((told.0.state().amount, told.0.deferred().count()), (252, 0));
    assert_eq!(told.tell(&SagaCommand::Event(heard(1))), ["saga.advanced"]);
}

#[test]
fn r20_an_attempt_that_began_before_an_operator_had_the_action_attempted_anew_counts_for_nothing() {
    let mut told = Told(Instance::<Sending>::default());
    told.tell(&SagaCommand::Event(heard(1)));
    let attempted = |rounds| Attempted { action: 3, rounds, attempts: 5, cause: "no".into(), again_after: None };
    assert_eq!(told.tell(&SagaCommand::Attempted(attempted(0))), ["saga.attempted", "saga.failed"]);
    told.tell(&SagaCommand::Ask(asked(Ask::Retry)));
    assert!(told.tell(&SagaCommand::Attempted(attempted(0))).is_empty());
    assert_eq!(told.tell(&SagaCommand::Attempted(attempted(1))), ["saga.attempted", "saga.failed"]);
}

#[test]
fn r20_what_is_asked_of_an_instance_that_ends_meanwhile_is_declined() {
    let mut told = Told(Instance::<Sending>::default());
    told.tell(&SagaCommand::Event(heard(1)));
    told.0.apply(&SagaEvent::Asked(asked(Ask::Retry)));
    assert_eq!(told.tell(&SagaCommand::Answer { action: 3, answer: Ok(1) }), ["saga.advanced", "saga.completed"]);
    assert_eq!(told.tell(&SagaCommand::Obey), ["saga.declined"]);
}
