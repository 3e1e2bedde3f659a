//! `given_saga().event(…).then([…]).answered(…)`.

use std::{collections::BTreeMap, fmt, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};

use crate::{
    error::with_causes,
    event::{Event, EventSet, NewEvent, RecordedEvent},
    react::saga::{
        Advanced, Ask, Asked, Attempted, Cause, Correlation, Decided, Effect, Heard, Instance, Saga, SagaCommand,
        SagaEvent, Status,
    },
    read::read_model::Act,
    stream::{Position, StreamId, Version},
    write::aggregate::Aggregate,
};

/// An instance of the saga `S` that has not begun. What happens to it is told by the methods of [`GivenSaga`]; nothing is performed, and
/// time passes only when it is told to.
///
/// ```
/// use std::time::Duration;
///
/// use es_core::{Effect, react::saga::Status, testing::{account::AccountEvent, given_saga}};
/// # use async_trait::async_trait;
/// # use es_core::{ActionContext, ActionError, Correlation, Input, Recorded, Saga, error::BoxError};
/// # struct Reminding;
/// # #[async_trait]
/// # impl Saga for Reminding {
/// #     const NAME: &'static str = "reminding";
/// #     type Event = AccountEvent;
/// #     type State = u64;
/// #     type Action = String;
/// #     type Answer = ();
/// #     fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
/// #         Correlation::Starts(event.stream.id().to_owned())
/// #     }
/// #     fn react(state: &mut u64, input: Input<'_, Self>) -> Result<Vec<Effect<String>>, BoxError> {
/// #         Ok(match input {
/// #             Input::Event(Recorded { data: AccountEvent::Deposited { amount }, .. }) if *state == 0 => {
/// #                 *state = *amount;
/// #                 vec![Effect::SetTimer { name: "thank".into(), after: Duration::from_secs(3600) }]
/// #             }
/// #             Input::Timer { .. } => vec![Effect::Perform("thank".into())],
/// #             Input::Answered { .. } => vec![Effect::End],
/// #             Input::Refused { reason, .. } => vec![Effect::Fail { cause: reason.into() }],
/// #             _ => vec![],
/// #         })
/// #     }
/// #     async fn perform(&self, _: &String, _: ActionContext) -> Result<(), ActionError> { Ok(()) }
/// # }
///
/// given_saga::<Reminding>()
///     .event("ada", AccountEvent::Deposited { amount: 7 })
///     .then([Effect::SetTimer { name: "thank".into(), after: Duration::from_secs(3600) }])
///     .after(Duration::from_secs(3600))
///     .then([Effect::Perform("thank".into())])
///     .answered(())
///     .then([Effect::End])
///     .is(Status::Completed);
/// ```
pub fn given_saga<S: Saga>() -> GivenSaga<S> {
    GivenSaga {
        id: None,
        instance: Instance::default(),
        now: DateTime::<Utc>::UNIX_EPOCH,
        position: Position::ZERO,
        versions: BTreeMap::new(),
        due: BTreeMap::new(),
        failed_at: None,
        decided: Vec::new(),
    }
}

/// An instance in a test.
pub struct GivenSaga<S: Saga> {
    id: Option<String>,
    instance: Instance<S>,
    now: DateTime<Utc>,
    position: Position,
    versions: BTreeMap<String, Version>,
    /// When each timer is due, with the number of its setting.
    due: BTreeMap<String, (DateTime<Utc>, u64)>,
    /// Since when it has failed, if it has.
    failed_at: Option<DateTime<Utc>>,
    /// What it has decided last.
    decided: Vec<Effect<S::Action>>,
}

impl<S: Saga> GivenSaga<S> {
    /// This event happens to the aggregate `id`.
    ///
    /// # Panics
    /// When the saga does not listen to it, or it concerns no instance or another one, or the saga cannot react to it.
    #[expect(clippy::needless_pass_by_value, reason = "it reads better in a test")]
    #[track_caller]
    pub fn event<E: Event>(mut self, id: &str, event: E) -> Self {
        let event = self.recorded(id, &event);
        let heard = Heard::<S::Event>::from_recorded(&event).unwrap_or_else(|error| panic!("{}", with_causes(&error)));
        let heard =
            heard.unwrap_or_else(|| panic!("the saga does not listen to events of {}", event.stream.category()));
        let (Correlation::Starts(instance) | Correlation::Continues(instance)) = S::correlate(heard.decoded()) else {
            panic!("{} in {} concerns no instance", event.data.name, event.stream)
        };
        let known = self.id.get_or_insert_with(|| instance.clone());
        assert!(*known == instance, "{} in {} concerns {instance:?}, not {known:?}", event.data.name, event.stream);
        self.tell(&SagaCommand::Event(heard))
    }

    /// The action that has waited longest is done.
    ///
    /// # Panics
    /// When none waits.
    #[track_caller]
    pub fn answered(self, answer: S::Answer) -> Self {
        let action = self.first_action();
        self.tell(&SagaCommand::Answer { action, answer: Ok(answer) })
    }

    /// The action that has waited longest is refused.
    ///
    /// # Panics
    /// When none waits.
    #[track_caller]
    pub fn refused(self, reason: &str) -> Self {
        let action = self.first_action();
        self.tell(&SagaCommand::Answer { action, answer: Err(reason.to_owned()) })
    }

    /// The last attempt at the action that has waited longest has failed.
    ///
    /// # Panics
    /// When none waits.
    #[track_caller]
    pub fn attempted_last(self, cause: &str) -> Self {
        let action = self.first_action();
        let waiting = &self.instance.actions()[&action];
        let (rounds, attempts, cause) = (waiting.rounds, waiting.attempts + 1, cause.to_owned());
        self.tell(&SagaCommand::Attempted(Attempted { action, rounds, attempts, cause, again_after: None }))
    }

    /// Time passes. Timers whose time comes wake the saga, in the order of their times.
    #[track_caller]
    pub fn after(mut self, time: Duration) -> Self {
        let end = self.now + time;
        self.decided.clear();
        let mut decided = Vec::new();
        while let Some((name, (due, number))) = self.due.iter().min_by_key(|(_, (due, _))| *due)
            && *due <= end
        {
            let (timer, number) = (name.clone(), *number);
            if self.instance.status() == Some(Status::Failed) {
                break;
            }
            self.now = *due;
            let at = self.now;
            self = self.tell(&SagaCommand::Fire { timer, number, at });
            decided.append(&mut self.decided);
        }
        (self.now, self.decided) = (end, decided);
        self
    }

    /// An operator asks for this.
    ///
    /// # Panics
    /// When it does not do it.
    #[track_caller]
    pub fn asked(self, ask: Ask) -> Self {
        let act = Act::new("operator", "a test").unwrap_or_else(|error| panic!("{error}"));
        let failed_at = self.failed_at;
        let mut asked = self.tell(&SagaCommand::Ask(Asked::new(ask, &act)));
        if let (Some(since), None) = (failed_at, asked.failed_at) {
            // Timers have stood still.
            let stood = asked.now - since;
            asked.due.values_mut().for_each(|(due, _)| *due += stood);
        }
        let mut decided = std::mem::take(&mut asked.decided);
        while asked.instance.deferred().next().is_some() && asked.instance.status() != Some(Status::Failed) {
            asked = asked.tell(&SagaCommand::Hear);
            decided.append(&mut asked.decided);
        }
        asked.decided = decided;
        asked
    }

    /// That is what it has decided on what has happened last.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn then(self, effects: impl IntoIterator<Item = Effect<S::Action>>) -> Self
    where
        S::Action: fmt::Debug,
    {
        let expected: Vec<_> = effects.into_iter().collect();
        assert_eq!(self.decided, expected, "the effects (left) are not those that are expected (right)");
        self
    }

    /// That is how it is.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn is(self, status: Status) -> Self {
        assert_eq!(self.instance.status(), Some(status), "{}", self.instance.cause().unwrap_or_default());
        self
    }

    /// The instance.
    pub fn instance(&self) -> &Instance<S> {
        &self.instance
    }

    #[track_caller]
    fn first_action(&self) -> u64 {
        *self.instance.actions().keys().next().expect("no action waits for an answer")
    }

    fn recorded<E: Event>(&mut self, id: &str, event: &E) -> RecordedEvent {
        let stream = StreamId::new(E::CATEGORY, id).unwrap_or_else(|error| panic!("{error}"));
        let version = self.versions.entry(stream.as_str().to_owned()).or_default();
        *version = version.next();
        self.position = self.position.next();
        let new = NewEvent::of(event).unwrap_or_else(|error| panic!("{}", with_causes(&error)));
        new.into_recorded(stream, *version, self.position, self.now)
    }

    #[track_caller]
    fn tell(mut self, command: &SagaCommand<S>) -> Self {
        let events = self.instance.handle(command).unwrap_or_else(|error| panic!("{}", with_causes(&error)));
        self.decided.clear();
        for event in &events {
            self.decided.extend(effects(event, &self.instance));
            if let SagaEvent::Advanced(Advanced { decided, .. }) = event {
                for decided in decided {
                    if let Decided::SetTimer { number, name, after } = decided {
                        let due = TimeDelta::from_std(*after).ok().and_then(|after| self.now.checked_add_signed(after));
                        self.due.insert(name.clone(), (due.unwrap_or(DateTime::<Utc>::MAX_UTC), *number));
                    }
                }
            }
            self.instance.apply(event);
        }
        let instance = &self.instance;
        self.due.retain(|name, (_, number)| instance.timer(name) == Some(*number));
        let is_failed = instance.status() == Some(Status::Failed);
        self.failed_at = is_failed.then(|| self.failed_at.unwrap_or(self.now));
        self
    }
}

impl<S: Saga> fmt::Debug for GivenSaga<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GivenSaga").field("id", &self.id).field("instance", &self.instance).finish_non_exhaustive()
    }
}

/// What `event` tells that was decided by `instance`, as it was before.
fn effects<S: Saga>(event: &SagaEvent<S>, instance: &Instance<S>) -> Vec<Effect<S::Action>> {
    match event {
        SagaEvent::Advanced(Advanced { decided, .. }) => {
            decided.iter().filter_map(|decided| effect(decided.clone(), instance)).collect()
        }
        SagaEvent::Failed(failed) => vec![Effect::Fail { cause: failed.cause.clone() }],
        SagaEvent::Completed(_) | SagaEvent::Compensated(_) => vec![Effect::End],
        _ => Vec::new(),
    }
}

fn effect<S: Saga>(decided: Decided<S::Action>, instance: &Instance<S>) -> Option<Effect<S::Action>> {
    Some(match decided {
        Decided::Perform { action, .. } => Effect::Perform(action),
        Decided::SetTimer { name, after, .. } => Effect::SetTimer { name, after },
        Decided::CancelTimer { name } => Effect::CancelTimer { name },
        Decided::GiveUp { number } => Effect::GiveUp(instance.actions().get(&number)?.action.clone()),
        Decided::Compensate => Effect::Compensate,
        Decided::Proceed => Effect::Proceed,
    })
}

/// Lets this code decide again what the recorded stream of an instance of `S` tells, and returns the first event that it would not have
/// written, with what it would have written: the place where instances that are under way would go another way.
///
/// # Panics
/// When an event cannot be read.
pub fn replayed<S: Saga>(stream: &[RecordedEvent]) -> Option<SagaDifference<S>> {
    let read = |event: &RecordedEvent| {
        let decoded = event.decode::<SagaEvent<S>>().unwrap_or_else(|error| panic!("{}", with_causes(&error)));
        decoded.unwrap_or_else(|| panic!("{} is no stream of the saga {}", event.stream, S::NAME)).data
    };
    let events: Vec<_> = stream.iter().map(read).collect();
    // Each begins under the version with which it has begun.
    let version = events.iter().find_map(|event| match event {
        SagaEvent::Advanced(Advanced { version, .. }) => Some(*version),
        _ => None,
    });
    let (mut instance, mut at) = (Instance::<S>::under(version.unwrap_or_default()), 0);
    while at < events.len() {
        let command = cause_of(&instance, &events[at]);
        let ours =
            command.map_or_else(|| vec![events[at].clone()], |command| instance.handle(&command).unwrap_or_default());
        let same = ours.iter().zip(&events[at..]).take_while(|(ours, theirs)| ours == theirs).count();
        if same < ours.len().max(1) {
            let (event, ours) = (stream.get(at + same).cloned(), ours.into_iter().nth(same));
            return Some(SagaDifference { event, ours });
        }
        for event in &events[at..at + same] {
            instance.apply(event);
        }
        at += same;
    }
    None
}

/// What an instance was told before it wrote `event`, if it has decided on that.
fn cause_of<S: Saga>(instance: &Instance<S>, event: &SagaEvent<S>) -> Option<SagaCommand<S>> {
    match event {
        SagaEvent::Advanced(Advanced { cause, .. }) => match cause {
            Cause::Event(trigger) if instance.deferred().next().is_some_and(|first| first.id == trigger.id) => {
                Some(SagaCommand::Hear)
            }
            Cause::Event(trigger) => Heard::from_recorded(&trigger.recorded()).ok().flatten().map(SagaCommand::Event),
            Cause::Answered { action, answer } => {
                Some(SagaCommand::Answer { action: *action, answer: Ok(answer.clone()) })
            }
            // That follows from the last attempt, which is told before it.
            Cause::Refused { may_be_done: true, .. } => None,
            Cause::Refused { action, reason, .. } => {
                Some(SagaCommand::Answer { action: *action, answer: Err(reason.clone()) })
            }
            Cause::Timer { name, at } => {
                let number = instance.timer(name)?;
                Some(SagaCommand::Fire { timer: name.clone(), number, at: *at })
            }
            Cause::Asked(_) => Some(SagaCommand::Obey),
        },
        SagaEvent::Attempted(attempted) => Some(SagaCommand::Attempted(attempted.clone())),
        SagaEvent::Resumed | SagaEvent::Declined(_) => Some(SagaCommand::Obey),
        _ => None,
    }
}

/// The first event of a stream that other code would not have written.
#[derive(Debug)]
pub struct SagaDifference<S: Saga> {
    /// The event; `None` if the stream ends before it.
    pub event: Option<RecordedEvent>,
    /// What this code would have written in its place; `None`: nothing.
    pub ours: Option<SagaEvent<S>>,
}
