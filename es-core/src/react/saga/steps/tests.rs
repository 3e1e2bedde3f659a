use std::time::Duration;

use super::*;
use crate::{
    react::saga::{Ask, Status},
    testing::{GivenSaga, account::AccountEvent, given_saga},
};

/// A journey: a flight and a hotel at the same time, then insurance, then the customer confirms.
struct Journey;

const DAY: Duration = Duration::from_hours(24);

#[async_trait]
impl StepSaga for Journey {
    const NAME: &'static str = "journey";
    const VERSIONS: &'static [u32] = &[1, 2];
    type Event = AccountEvent;
    type Data = u64;
    type Action = String;
    type Answer = u64;

    fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
        Correlation::Starts(event.stream.id().to_owned())
    }

    fn learn(data: &mut u64, event: &Recorded<AccountEvent>) {
        if let AccountEvent::Deposited { amount } = event.data {
            *data += amount;
        }
    }

    fn steps(version: u32) -> Steps<Self> {
        let confirmed = |event: &Recorded<AccountEvent>| matches!(event.data, AccountEvent::Deposited { amount: 1 });
        let declined = |event: &Recorded<AccountEvent>| {
            matches!(event.data, AccountEvent::Withdrawn { .. }).then(|| "the customer declined".to_owned())
        };
        let flight = Step::new("flight", |price| format!("book a flight for {price}"));
        let hotel = Step::new("hotel", |_| "book a hotel".into()).answered(|data, room| *data = *room);
        let insurance = Step::new("insurance", |_| "insure".into()).only_if(|data| *data < 1_000);
        let confirmation = Step::waiting("confirmation").completed_by(confirmed).failed_by(declined).time_limit(DAY);
        let steps = Steps::new()
            .together([
                flight.compensated_by(|_| "cancel the flight".into()).importance(1),
                hotel.compensated_by(|_| "cancel the hotel".into()),
            ])
            .step(insurance.compensated_by(|_| "end the insurance".into()).time_limit(DAY))
            .step(confirmation);
        if version == 1 { steps } else { steps.step(Step::new("thanks", |_| "thank".into())) }
    }

    async fn perform(&self, _: &String, _: ActionContext) -> Result<u64, ActionError> {
        Ok(7)
    }
}

fn of(step: &str, action: &str) -> Effect<StepAction<String>> {
    Effect::Perform(StepAction::of(step, action.to_owned()))
}

fn back(step: &str, action: &str) -> Effect<StepAction<String>> {
    Effect::Perform(StepAction::back(step, action.to_owned()))
}

/// What a step does when it begins for the second time.
fn of_second(step: &str, action: &str) -> StepAction<String> {
    StepAction { begun: 2, ..StepAction::of(step, action.to_owned()) }
}

fn limit(step: &str) -> Effect<StepAction<String>> {
    Effect::SetTimer { name: step.to_owned(), after: DAY }
}

fn no_limit(step: &str) -> Effect<StepAction<String>> {
    Effect::CancelTimer { name: step.to_owned() }
}

fn begun() -> GivenSaga<Journey> {
    given_saga::<Journey>()
        .event("ada", AccountEvent::Deposited { amount: 50 })
        .then([of("flight", "book a flight for 50"), of("hotel", "book a hotel")])
}

/// Flight, hotel and insurance are done; the confirmation is waited for.
fn insured() -> GivenSaga<Journey> {
    let booked = begun().answered(0).then([]).answered(7).then([of("insurance", "insure"), limit("insurance")]);
    booked.answered(0).then([no_limit("insurance"), limit("confirmation")])
}

fn declined(given: GivenSaga<Journey>) -> GivenSaga<Journey> {
    given.event("ada", AccountEvent::Withdrawn { amount: 1 })
}

#[test]
fn r20_steps_begin_one_after_the_other_or_together_and_end_when_the_last_is_done() {
    let confirmed = insured().event("ada", AccountEvent::Deposited { amount: 1 });
    let thanks = confirmed.then([no_limit("confirmation"), of("thanks", "thank")]).is(Status::Executing);
    assert_eq!(thanks.instance().state().data, 8, "what the hotel has answered, and the event");
    let ended = thanks.answered(0).then([Effect::End]).is(Status::Completed);
    assert_eq!(ended.instance().state().done().count(), 5);
}

#[test]
fn r20_a_step_whose_condition_does_not_hold_is_left_out() {
    let booked = begun().answered(0).answered(1_000);
    booked.then([limit("confirmation")]);
}

#[test]
fn r20_what_was_done_is_taken_back_by_importance_and_then_the_last_first() {
    let late = insured().after(DAY).then([Effect::Compensate, back("flight", "cancel the flight")]);
    let late = late.is(Status::Compensating);
    assert_eq!(late.instance().state().failure(), Some("confirmation: not done within 86400s"));
    let back = late.answered(0).then([back("insurance", "end the insurance")]);
    let back = back.answered(0).then([self::back("hotel", "cancel the hotel")]);
    back.answered(0).then([Effect::End]).is(Status::Compensated);
}

#[test]
fn r20_an_event_that_fails_a_step_leads_to_compensation() {
    let declined = declined(insured());
    declined.then([no_limit("confirmation"), Effect::Compensate, back("flight", "cancel the flight")]);
}

#[test]
fn r20_a_refused_step_is_not_taken_back_and_the_one_beside_it_when_its_answer_is_known() {
    let refused = begun().refused("no seat").then([Effect::Compensate]);
    let back = refused.answered(7).then([back("hotel", "cancel the hotel")]);
    back.answered(0).then([Effect::End]).is(Status::Compensated);
    // If both are refused, there is nothing to take back.
    begun().refused("no seat").refused("no room").then([Effect::End]).is(Status::Compensated);
}

#[test]
fn r20_a_step_that_takes_too_long_is_taken_back_when_its_action_has_an_answer() {
    let late = begun().answered(0).answered(7).after(DAY).then([Effect::Compensate]);
    let back = late.answered(0).then([back("flight", "cancel the flight")]);
    back.answered(0).then([self::back("insurance", "end the insurance")]);
    let late = begun().answered(0).answered(7).after(DAY);
    // It was not done.
    late.refused("no")
        .then([self::back("flight", "cancel the flight")])
        .answered(0)
        .then([self::back("hotel", "cancel the hotel")]);
}

#[test]
fn r20_a_compensation_that_fails_comes_after_the_others_and_then_the_instance_has_failed() {
    let kept = declined(insured()).refused("it has left").then([back("insurance", "end the insurance")]);
    let kept = kept.answered(0).then([back("hotel", "cancel the hotel")]);
    // The flight is tried once more.
    let again = kept.answered(0).then([back("flight", "cancel the flight")]);
    let cause = "what was done in flight was not taken back: it has left";
    let failed = again.refused("it has left").then([Effect::Fail { cause: cause.into() }]).is(Status::Failed);
    let resumed = failed.asked(Ask::Retry).then([]).is(Status::Compensating);
    resumed.answered(0).then([Effect::End]).is(Status::Compensated);
}

#[test]
fn r20_two_compensations_that_fail_are_both_tried_again() {
    let kept = declined(insured()).refused("it has left").answered(0).then([back("hotel", "cancel the hotel")]);
    let failed = kept.refused("it is closed").is(Status::Failed);
    assert_eq!(failed.instance().cause(), Some("what was done in flight, hotel was not taken back: it is closed"));
    let again = failed.asked(Ask::Retry).answered(0).then([back("flight", "cancel the flight")]);
    again.answered(0).then([Effect::End]).is(Status::Compensated);
}

#[test]
fn r20_an_operator_skips_a_step() {
    let skipped = insured().asked(Ask::Skip { step: "confirmation".into() });
    skipped.then([no_limit("confirmation"), of("thanks", "thank")]);
    let insurance = begun().answered(0).answered(7);
    let given_up = Effect::GiveUp(StepAction::of("insurance", "insure".to_owned()));
    let skipped = insurance.asked(Ask::Skip { step: "insurance".into() });
    let skipped = skipped.then([no_limit("insurance"), given_up, limit("confirmation")]);
    assert!(skipped.instance().actions().is_empty());
    // One that is being taken back stays as it is.
    let kept = declined(insured()).asked(Ask::Skip { step: "flight".into() });
    let given_up = Effect::GiveUp(StepAction::back("flight", "cancel the flight".to_owned()));
    kept.then([given_up, back("insurance", "end the insurance")]);
}

#[test]
fn r20_an_operator_restarts_from_a_step_and_its_action_has_a_key_of_its_own() {
    let failed = declined(insured()).refused("it has left").answered(0).refused("no").is(Status::Failed);
    let step = |step: &str| Ask::RestartFrom { step: step.to_owned() };
    let again = failed.asked(step("flight")).is(Status::Executing);
    let hotel = of_second("hotel", "book a hotel");
    assert_eq!(<Journey as Saga>::key(&hotel, 9), "hotel.2");
    let given_up = Effect::GiveUp(StepAction::back("hotel", "cancel the hotel".to_owned()));
    let flight = of_second("flight", "book a flight for 7");
    again.then([given_up, Effect::Proceed, Effect::Perform(flight), Effect::Perform(hotel)]);
}

#[test]
#[should_panic(expected = "the step \"flight\" before it is not done: restart from that")]
fn r20_nothing_is_restarted_after_a_step_that_was_taken_back() {
    declined(insured()).asked(Ask::RestartFrom { step: "confirmation".into() });
}

#[test]
fn r20_an_operator_has_it_compensated_or_cancelled() {
    let back = begun().answered(0).asked(Ask::Compensate);
    let given_up = Effect::GiveUp(StepAction::of("hotel", "book a hotel".to_owned()));
    let back = back.then([Effect::Compensate, given_up, self::back("flight", "cancel the flight")]);
    assert_eq!(back.instance().state().failure(), Some("operator: a test"));
    back.asked(Ask::Cancel).is(Status::Cancelled);
}

#[test]
fn r20_an_instance_goes_on_under_the_version_with_which_it_began() {
    let mut state = Stepping::default();
    let recorded = crate::testing::recorded([("ada", AccountEvent::Deposited { amount: 50 })]);
    let event = recorded[0].decode::<AccountEvent>().expect("read").expect("heard");
    <Journey as Saga>::react_under(1, &mut state, Input::Event(&event)).expect("begun");
    for step in ["flight", "hotel", "insurance"] {
        let action = StepAction::of(step, String::new());
        <Journey as Saga>::react_under(1, &mut state, Input::Answered { action: &action, answer: &7 })
            .expect("goes on");
    }
    let recorded = crate::testing::recorded([("ada", AccountEvent::Deposited { amount: 1 })]);
    let event = recorded[0].decode::<AccountEvent>().expect("read").expect("heard");
    let effects = <Journey as Saga>::react_under(1, &mut state, Input::Event(&event)).expect("ends");
    assert_eq!(effects, [no_limit("confirmation"), Effect::End]);
}

#[test]
fn r20_a_step_whose_last_attempt_fails_when_its_time_is_over_is_taken_back() {
    let late = begun().answered(0).answered(7).after(DAY);
    let unsure = late.attempted_last("no network").then([back("flight", "cancel the flight")]);
    unsure.answered(0).then([back("insurance", "end the insurance")]);
    // An operator need not wait for it.
    let late = begun().answered(0).answered(7).after(DAY).asked(Ask::Compensate);
    late.then([Effect::GiveUp(StepAction::of("insurance", "insure".into())), back("flight", "cancel the flight")]);
    // In time it fails the instance.
    begun().attempted_last("no network").is(Status::Failed);
}

#[test]
fn r20_an_event_that_overtakes_the_answer_completes_its_step_when_the_answer_is_there() {
    /// Its only step is done with an event.
    struct Overtaken;

    #[async_trait]
    impl StepSaga for Overtaken {
        const NAME: &'static str = "overtaken";
        type Event = AccountEvent;
        type Data = u64;
        type Action = String;
        type Answer = u64;

        fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
            Correlation::Starts(event.stream.id().to_owned())
        }

        fn learn(_: &mut u64, _: &Recorded<AccountEvent>) {}

        fn steps(_: u32) -> Steps<Self> {
            let done = |event: &Recorded<AccountEvent>| matches!(event.data, AccountEvent::Withdrawn { .. });
            let step = Step::new("pay", |_| "pay".into()).completed_by(done).answered(|data, id| *data = *id);
            Steps::new().step(step)
        }

        async fn perform(&self, _: &String, _: ActionContext) -> Result<u64, ActionError> {
            Ok(7)
        }
    }

    let begun = given_saga::<Overtaken>().event("ada", AccountEvent::Deposited { amount: 1 });
    let heard = begun.event("ada", AccountEvent::Withdrawn { amount: 1 }).then([]);
    let ended = heard.answered(7).then([Effect::End]);
    assert_eq!(ended.instance().state().data, 7);
    let begun = given_saga::<Overtaken>().event("ada", AccountEvent::Deposited { amount: 1 });
    begun.answered(7).then([]).event("ada", AccountEvent::Withdrawn { amount: 1 }).then([Effect::End]);
}

#[test]
fn r20_what_was_done_before_a_restart_is_taken_back_too() {
    let again = insured().asked(Ask::RestartFrom { step: "flight".into() });
    let (second, third) = (of_second("flight", "book a flight for 7"), of_second("hotel", "book a hotel"));
    let again = again.then([no_limit("confirmation"), Effect::Perform(second), Effect::Perform(third)]);
    let refused = again.answered(0).refused("no room").then([Effect::Compensate, {
        let back = StepAction::back("flight", "cancel the flight".to_owned());
        Effect::Perform(StepAction { begun: 2, ..back })
    }]);
    let first = refused.answered(0).then([back("flight", "cancel the flight")]);
    let insurance = first.answered(0).then([back("insurance", "end the insurance")]);
    insurance.answered(0).then([back("hotel", "cancel the hotel")]).answered(0).is(Status::Compensated);
}

#[test]
fn r20_timers_stand_still_while_an_instance_has_failed() {
    let failed = begun().answered(0).answered(7).after(DAY / 2).attempted_last("no").is(Status::Failed);
    let resumed = failed.after(DAY * 7).asked(Ask::Retry).after(DAY / 4).then([]).is(Status::Executing);
    resumed.after(DAY / 4).is(Status::Compensating);
}

#[test]
fn steps_with_the_same_name_or_without_an_end_are_flaws() {
    let twice = Steps::<Journey>::new().step(Step::new("a", |_| String::new())).step(Step::new("a", |_| String::new()));
    assert_eq!(twice.flaw().as_deref(), Some("two steps are named \"a\""));
    assert!(Steps::<Journey>::new().step(Step::waiting("a")).flaw().is_some());
    assert!(Steps::<Journey>::new().step(Step::new("A", |_| String::new())).flaw().is_some());
    assert_eq!(Journey::steps(2).flaw(), None);
}

/// An errand that says itself how long it may take, and what is taken back of it tells why.
struct Errand;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Asked {
    days: u32,
    failure: Option<String>,
}

#[async_trait]
impl StepSaga for Errand {
    const NAME: &'static str = "errand";
    type Event = AccountEvent;
    type Data = Asked;
    type Action = String;
    type Answer = ();

    fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
        Correlation::Starts(event.stream.id().to_owned())
    }

    fn learn(data: &mut Asked, event: &Recorded<AccountEvent>) {
        if let AccountEvent::Deposited { amount } = event.data {
            data.days = u32::try_from(amount).unwrap_or(u32::MAX);
        }
    }

    fn failed(data: &mut Asked, step: Option<&str>, reason: &str) {
        data.failure = Some(format!("{}: {reason}", step.unwrap_or("an operator")));
    }

    fn steps(_: u32) -> Steps<Self> {
        let go = Step::<Self>::new("go", |_| "go".to_owned())
            .compensated_by(|data| format!("return, since {}", data.failure.as_deref().unwrap_or("?")));
        let wait = Step::<Self>::new("wait", |_| "wait".to_owned())
            .time_limit_of(|data| (data.days > 0).then(|| DAY * data.days))
            .completed_by(|event| matches!(event.data, AccountEvent::Withdrawn { .. }));
        Steps::new().step(go).step(wait)
    }

    async fn perform(&self, _: &String, _: ActionContext) -> Result<(), ActionError> {
        Ok(())
    }
}

fn waiting(days: u64) -> GivenSaga<Errand> {
    given_saga::<Errand>().event("ada", AccountEvent::Deposited { amount: days }).answered(())
}

#[test]
fn r20_a_step_takes_as_long_as_the_instance_says() {
    let limit = |days: u32| Effect::SetTimer { name: "wait".to_owned(), after: DAY * days };
    waiting(3).then([of("wait", "wait"), limit(3)]);
    waiting(0).then([of("wait", "wait")]);
    let done = waiting(3).answered(()).event("ada", AccountEvent::Withdrawn { amount: 1 });
    done.then([no_limit("wait"), Effect::End]);
}

#[test]
fn r20_what_takes_a_step_back_knows_why() {
    let late = waiting(3).answered(()).after(DAY * 3);
    late.then([Effect::Compensate, back("go", "return, since wait: not done within 259200s")]);
    let refused = waiting(0).refused("it rains");
    refused.then([Effect::Compensate, back("go", "return, since wait: it rains")]);
    let asked = given_saga::<Errand>().event("ada", AccountEvent::Deposited { amount: 1 }).answered(());
    let asked = asked.answered(()).asked(Ask::Compensate);
    asked.then([Effect::Compensate, no_limit("wait"), back("go", "return, since an operator: a test")]);
}
