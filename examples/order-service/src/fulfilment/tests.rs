#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use evenfold::{
    Effect,
    react::saga::{Status as Ended, StepAction},
    testing::{GivenSaga, given_saga, recorded},
};

use super::*;

const ORDER: &str = "ORD-1";

fn customer() -> CustomerId {
    "USR-1".parse().unwrap()
}

fn lines() -> Vec<Line> {
    let (product, quantity) = ("PROD-1".parse().unwrap(), 2.try_into().unwrap());
    vec![Line { product, quantity, price: Money::of_cents(500) }]
}

fn placed(drive: Drive) -> OrderEvent {
    OrderEvent::Placed { customer: customer(), lines: lines(), total: Money::of_cents(1_000), drive }
}

fn paid() -> OrderEvent {
    OrderEvent::Paid { customer: customer(), amount: Money::of_cents(1_000) }
}

fn reserved_by_hand() -> OrderEvent {
    OrderEvent::Reserved { customer: customer(), lines: lines() }
}

fn cancelled() -> OrderEvent {
    OrderEvent::Cancelled { customer: customer(), lines: lines(), was: Status::PaymentOk, reason: None }
}

fn charge() -> Charge {
    Charge { order: ORDER.parse().unwrap(), customer: customer(), amount: Money::of_cents(1_000) }
}

/// An order that the saga drives, of which the customer knows that it has come in.
fn driven() -> GivenSaga<Fulfilment> {
    let drive = Drive::Saga { pay_within_ms: 60_000 };
    given_saga::<Fulfilment>().event(ORDER, placed(drive)).answered(Outcome::Done)
}

fn manual() -> GivenSaga<Fulfilment> {
    given_saga::<Fulfilment>().event(ORDER, paid())
}

fn of(step: &str, action: Todo) -> Effect<StepAction<Todo>> {
    Effect::Perform(StepAction::of(step, action))
}

fn back(step: &str, action: Todo) -> Effect<StepAction<Todo>> {
    Effect::Perform(StepAction::back(step, action))
}

fn cancel(reason: &str, lines: Vec<Line>) -> Todo {
    Todo::Cancel { customer: customer(), lines, reason: reason.to_owned() }
}

#[test]
fn what_the_provider_has_captured_needs_no_event_to_go_on() {
    let capture = of("capture", Todo::Capture { amount: Money::of_cents(1_000) });
    driven().then([of("charge", Todo::Charge(charge()))]).answered(Outcome::Done).then([capture]);
}

#[test]
fn r20_what_is_to_be_paid_later_is_waited_for_as_long_as_the_order_says() {
    let limit = Effect::SetTimer { name: "paid".to_owned(), after: Duration::from_mins(1) };
    let waits = driven().answered(Outcome::Later).then([limit]);
    let late = waits.after(Duration::from_mins(1));
    let late = late.then([Effect::Compensate, back("charge", Todo::Void(charge()))]);
    let cancel = cancel("it was not paid in time", lines());
    late.answered(Outcome::Done).then([back("confirm", cancel)]).answered(Outcome::Done).is(Ended::Compensated);

    let no_limit = Effect::CancelTimer { name: "paid".to_owned() };
    let capture = of("capture", Todo::Capture { amount: Money::of_cents(1_000) });
    driven().answered(Outcome::Later).event(ORDER, paid()).then([no_limit, capture]);
}

#[test]
fn r20_what_was_done_before_a_refusal_is_taken_back_and_first_at_the_provider() {
    let reserves = driven().answered(Outcome::Done).answered(Outcome::Done);
    let reserves = reserves.then([of("reserve", Todo::Reserve { lines: lines(), marks: true })]);
    let void = reserves.refused("there is too little");
    let void = void.then([Effect::Compensate, back("charge", Todo::Void(charge()))]);
    let refunded = void.answered(Outcome::Done).then([back("capture", Todo::Refund)]);
    refunded.answered(Outcome::Done).then([back("confirm", cancel("there is too little", lines()))]);
}

#[test]
fn a_manual_order_that_is_only_placed_leaves_nothing_and_its_process_begins_when_it_is_paid() {
    let log = recorded([(ORDER, placed(Drive::Manual)), (ORDER, paid())]);
    let events = log.iter().map(|event| event.decode::<OrderEvent>().unwrap().unwrap());
    let concerns: Vec<_> = events.map(|event| <Fulfilment as StepSaga>::correlate(&event)).collect();
    assert_eq!(concerns, [Correlation::None, Correlation::Starts(ORDER.to_owned())]);
    manual().then([of("confirm", Todo::Tell(customer(), News::Received))]);
}

#[test]
fn a_step_that_a_client_has_taken_before_its_turn_is_not_waited_for() {
    let early = manual().event(ORDER, reserved_by_hand()).answered(Outcome::Done).answered(Outcome::Done);
    early.then([of("reserve", Todo::Reserve { lines: lines(), marks: false })]);
    let waits = manual().answered(Outcome::Done).answered(Outcome::Done).then([]);
    waits.event(ORDER, reserved_by_hand()).then([of("reserve", Todo::Reserve { lines: lines(), marks: false })]);
}

#[test]
fn r20_an_order_that_a_client_cancels_is_taken_back_whether_a_step_waits_or_not() {
    let reason = "the order was cancelled";
    let waits = manual().answered(Outcome::Done).answered(Outcome::Done);
    waits.event(ORDER, cancelled()).then([Effect::Compensate, back("capture", Todo::Refund)]);
    let early = manual().event(ORDER, cancelled()).answered(Outcome::Done);
    let early = early.then([of("capture", Todo::Stop { reason: reason.to_owned() })]);
    early.refused(reason).then([Effect::Compensate, back("confirm", cancel(reason, Vec::new()))]);
}
