use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::{
    Position, Recorded, Version,
    react::saga::{Effect, Input, Saga},
    stream::StreamId,
};

struct Mornings;

#[async_trait]
impl Schedule for Mornings {
    const NAME: &'static str = "mornings";
    type Command = String;

    async fn run(&self, _: &String, _: ActionContext) -> Result<(), ActionError> {
        Ok(())
    }
}

type State = plan::Planned<String>;

fn time(text: &str) -> DateTime<Utc> {
    format!("2026-12-{text}Z").parse().expect("a time")
}

fn plan(state: &mut State, when: When, at: &str) -> Vec<Effect<Run<String>>> {
    let event = Recorded {
        position: Position::ZERO,
        stream: StreamId::new("schedule", "wake").expect("a stream"),
        version: Version::ZERO,
        id: uuid::Uuid::now_v7(),
        recorded_at: time(at),
        metadata: crate::Metadata::default(),
        data: Plan { command: "wake".to_owned(), when },
    };
    Planning::<Mornings>::react(state, Input::Event(&event)).expect("planned")
}

fn wake(state: &mut State, at: &str) -> Vec<Effect<Run<String>>> {
    Planning::<Mornings>::react(state, Input::Timer { name: "due", at: time(at) }).expect("due")
}

fn ran(state: &mut State) -> Vec<Effect<Run<String>>> {
    let action = run(1, true);
    Planning::<Mornings>::react(state, Input::Answered { action: &action, answer: &() }).expect("ran")
}

fn run(run: u64, is_one_of_many: bool) -> Run<String> {
    Run { run, is_one_of_many, command: "wake".to_owned() }
}

fn timer(after: TimeDelta) -> Effect<Run<String>> {
    Effect::SetTimer { name: "due".to_owned(), after: after.to_std().expect("not before") }
}

fn mornings(missed: Missed) -> When {
    When::Every(Every::cron("0 8 * * *").expect("a pattern").missed(missed))
}

#[test]
fn r20_a_plan_is_run_once_at_its_time_and_ends() {
    let mut state = State::default();
    assert_eq!(plan(&mut state, When::At(time("01T09:00:00")), "01T08:00:00"), [timer(TimeDelta::hours(1))]);
    // It is planned anew.
    assert_eq!(plan(&mut state, When::After(Duration::from_mins(1)), "01T08:30:00"), [timer(TimeDelta::minutes(1))]);
    assert_eq!(wake(&mut state, "01T08:31:00"), [Effect::Perform(run(1, false))]);
    assert_eq!(ran(&mut state), [Effect::End]);
    // One whose time is over is run at once.
    assert_eq!(plan(&mut State::default(), When::At(time("01T07:00:00")), "01T08:00:00"), [timer(TimeDelta::zero())]);
}

#[test]
fn r20_a_plan_is_run_again_and_again() {
    let mut state = State::default();
    assert_eq!(plan(&mut state, mornings(Missed::Once), "01T06:00:00"), [timer(TimeDelta::hours(2))]);
    let next = timer(TimeDelta::hours(24) - TimeDelta::milliseconds(300));
    assert_eq!(wake(&mut state, "01T08:00:00.3"), [next, Effect::Perform(run(1, true))]);
    assert!(ran(&mut state).is_empty());
    // A refusal does not end it.
    wake(&mut state, "02T08:00:00");
    let action = run(2, true);
    let refused = Input::Refused { action: &action, reason: "no", may_be_done: false };
    assert!(Planning::<Mornings>::react(&mut state, refused).expect("refused").is_empty());
    assert_eq!(state.runs, 2);
}

#[test]
fn r20_missed_runs_are_made_up_for_as_declared() {
    // Down from the first until ten o'clock of the fourth: four runs were missed.
    let missed = |missed| {
        let mut state = State::default();
        plan(&mut state, mornings(missed), "01T06:00:00");
        let mut effects = wake(&mut state, "04T10:00:00");
        assert_eq!(effects.remove(0), timer(TimeDelta::hours(22)));
        let mut runs = effects.len();
        while state.is_running {
            runs += ran(&mut state).len();
        }
        runs
    };
    assert_eq!([missed(Missed::Once), missed(Missed::All), missed(Missed::None)], [1, 4, 0]);
    // A run that is a little late was not missed.
    let mut state = State::default();
    plan(&mut state, mornings(Missed::None), "01T06:00:00");
    assert_eq!(wake(&mut state, "03T08:00:20").len(), 2);
}

#[test]
fn r20_runs_do_not_overlap() {
    let every = Every::cron("* * * * *").expect("a pattern");
    for (missed, follow) in [(Missed::Once, 1), (Missed::All, 3)] {
        let mut state = State::default();
        plan(&mut state, When::Every(every.clone().missed(missed)), "01T06:00:00");
        assert_eq!(wake(&mut state, "01T06:01:00").len(), 2);
        for minute in 2..5 {
            assert_eq!(wake(&mut state, &format!("01T06:0{minute}:00")).len(), 1, "one is under way");
        }
        let mut runs = 0;
        while state.is_running {
            runs += ran(&mut state).len();
        }
        assert_eq!(runs, follow);
    }
}

#[test]
fn a_pattern_that_cron_does_not_understand_or_that_never_comes_is_refused() {
    for pattern in ["", "every day", "0 25 * * *", "0 0 30 2 *"] {
        let error = Every::cron(pattern).expect_err(pattern);
        assert!(error.to_string().contains("is no cron pattern"), "{error}");
    }
}
