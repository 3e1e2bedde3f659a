//! `given(events).when(command).then(events)`.

use std::fmt::Debug;

use super::history::accepted;
use crate::write::aggregate::Aggregate;

/// An aggregate to which `events` have happened.
///
/// ```
/// use es_core::{Aggregate, Event, testing::given};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Debug, Clone, PartialEq, Event)]
/// # #[event(category = "door")]
/// # enum DoorEvent { #[event(name = "door.opened")] Opened }
/// # #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
/// # struct Door { open: bool }
/// # #[derive(Debug, PartialEq)]
/// # struct AlreadyOpen;
/// # impl std::fmt::Display for AlreadyOpen {
/// #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("already open") }
/// # }
/// # impl std::error::Error for AlreadyOpen {}
/// # enum DoorCommand { Open }
/// # impl Aggregate for Door {
/// #     type Command = DoorCommand;
/// #     type Event = DoorEvent;
/// #     type Error = AlreadyOpen;
/// #     fn handle(&self, _: &DoorCommand) -> Result<Vec<DoorEvent>, AlreadyOpen> {
/// #         if self.open { Err(AlreadyOpen) } else { Ok(vec![DoorEvent::Opened]) }
/// #     }
/// #     fn apply(&mut self, _: &DoorEvent) { self.open = true; }
/// # }
/// given::<Door>([]).when(&DoorCommand::Open).then([DoorEvent::Opened]);
/// given::<Door>([DoorEvent::Opened]).when(&DoorCommand::Open).then_refused(&AlreadyOpen);
/// ```
pub fn given<A: Aggregate>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut state = A::default();
    events.into_iter().for_each(|event| state.apply(&event));
    Given { state }
}

/// An aggregate in a known state.
#[derive(Debug)]
pub struct Given<A> {
    /// The fold of the given events.
    pub state: A,
}

impl<A: Aggregate> Given<A> {
    /// Lets it decide on `command`.
    pub fn when(self, command: &A::Command) -> Outcome<A> {
        let decision = self.state.handle(command);
        Outcome { state: self.state, decision }
    }
}

/// What an aggregate has decided.
#[derive(Debug)]
pub struct Outcome<A: Aggregate> {
    state: A,
    decision: Result<Vec<A::Event>, A::Error>,
}

impl<A: Aggregate> Outcome<A>
where
    A::Event: Debug,
{
    /// Asserts the events, and that the log would take them; returns the aggregate to which they have happened.
    ///
    /// # Panics
    /// When it has decided otherwise, or on something that the log would not take.
    #[track_caller]
    pub fn then(mut self, events: impl IntoIterator<Item = A::Event>) -> Given<A> {
        let decided = self.decision.unwrap_or_else(|refusal| panic!("refused: {refusal}"));
        let expected: Vec<_> = events.into_iter().collect();
        for (which, events) in [("decided", &decided), ("expected", &expected)] {
            let odd = events.iter().find(|event| !is_itself(*event));
            assert!(
                odd.is_none(),
                "an event that was {which} is not equal to itself, so it holds NaN or the like, which no log gives back: \
                 {odd:?}"
            );
        }
        assert_eq!(decided, expected);
        accepted(&decided);
        for event in &decided {
            self.state.apply(event);
        }
        Given { state: self.state }
    }
}

/// NaN is not.
fn is_itself<E: PartialEq>(event: &E) -> bool {
    let same = event;
    event == same
}

impl<A: Aggregate> Outcome<A>
where
    A::Event: Debug,
    A::Error: PartialEq,
{
    /// Asserts the refusal.
    ///
    /// # Panics
    /// When it has decided otherwise.
    #[track_caller]
    pub fn then_refused(self, refusal: &A::Error) {
        match self.decision {
            Ok(events) => panic!("not refused: {events:?}"),
            Err(refused) => assert_eq!(&refused, refusal),
        }
    }
}
