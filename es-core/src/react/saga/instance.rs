//! An instance of a saga as the decider over its own stream.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Correlation, Effect, Input, Saga, Status,
    event::{Advanced, Attempted, Cause, Decided, Failed, Retried, SagaEvent, Trigger},
    heard::Heard,
};
use crate::{
    error::{BoxError, with_causes},
    event::Metadata,
    read::{
        panics::{Panicked, caught},
        read_model::Act,
    },
    write::aggregate::Aggregate,
};

/// An instance of the saga `S`, as its stream tells it.
pub struct Instance<S: Saga>(Course<S::State, S::Action>);

/// How an instance goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Course<T, A> {
    /// `None`: it has not begun.
    status: Option<Status>,
    state: T,
    /// Why it has failed.
    cause: Option<String>,
    /// In what it has failed, to go on there.
    before: Option<Status>,
    /// The actions that have no answer yet, by their numbers.
    actions: BTreeMap<u64, Waiting<A>>,
    /// The timers that are set, each with the number of that.
    timers: BTreeMap<String, u64>,
    /// The events that have come since it has failed.
    deferred: Vec<Trigger>,
    /// How many actions and timers there were.
    numbers: u64,
    /// What its events and actions carry.
    metadata: Metadata,
}

/// An action that has no answer yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting<A> {
    /// The action.
    pub action: A,
    /// How many attempts at it have failed.
    pub attempts: u32,
    /// What it carries.
    pub metadata: Metadata,
}

/// What an instance is told.
pub enum SagaCommand<S: Saga> {
    /// An event has come that concerns it.
    Event(Heard<S::Event>),
    /// An action was done, or refused.
    Answer {
        /// Its number.
        action: u64,
        /// What it has returned, or why it was refused.
        answer: Result<S::Answer, String>,
    },
    /// An attempt at an action has failed.
    Attempted(Attempted),
    /// The time of a timer has come.
    Fire {
        /// Its name.
        timer: String,
        /// Which setting of it.
        number: u64,
    },
    /// It cannot go on.
    Fail {
        /// Why.
        cause: String,
    },
    /// An operator lets it go on where it has failed.
    Retry(Act),
}

/// Why an instance does not do what it is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagaError {
    /// It cannot react to the event.
    #[error("the saga cannot react to the event")]
    Reaction(#[source] BoxError),
    /// Only an instance that has failed goes on when an operator tells it to.
    #[error("the instance has not failed: {status}")]
    NotFailed {
        /// What it is.
        status: String,
    },
}

impl SagaError {
    /// Whether trying again may help: it does not.
    pub fn is_transient(&self) -> bool {
        false
    }
}

impl<S: Saga> Instance<S> {
    /// How it is; `None` if it has not begun.
    pub fn status(&self) -> Option<Status> {
        self.0.status
    }

    /// What it knows.
    pub fn state(&self) -> &S::State {
        &self.0.state
    }

    /// Why it has failed, if it has.
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }

    /// The actions that have no answer yet, by their numbers.
    pub fn actions(&self) -> &BTreeMap<u64, Waiting<S::Action>> {
        &self.0.actions
    }

    /// The names of the timers that are set.
    pub fn timers(&self) -> impl Iterator<Item = &str> {
        self.0.timers.keys().map(String::as_str)
    }

    /// The number under which the timer `name` is set.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn timer(&self, name: &str) -> Option<u64> {
        self.0.timers.get(name).copied()
    }

    /// Whether something may happen to it.
    pub(super) fn is_under_way(&self) -> bool {
        self.0.status.is_some_and(|status| !status.has_ended() && status != Status::Failed)
    }

    /// What follows from the events that have come since it has failed.
    fn resumed(&self, act: &Act) -> Vec<SagaEvent<S>> {
        let (actor, reason) = (act.actor().to_owned(), act.reason().to_owned());
        let mut events = vec![SagaEvent::Retried(Retried { actor, reason })];
        let mut instance = self.clone();
        for event in &events {
            instance.apply(event);
        }
        for trigger in &self.0.deferred {
            if !instance.is_under_way() {
                // What comes later waits again, or comes too late.
                let waits = instance.0.status == Some(Status::Failed);
                events.extend(waits.then(|| SagaEvent::Deferred(Box::new(trigger.clone()))));
                continue;
            }
            let next = match trigger.recorded().decode::<S::Event>() {
                Ok(Some(event)) => {
                    instance.react_or_fail(Cause::Event(Box::new(trigger.clone())), Input::Event(&event))
                }
                Ok(None) => Vec::new(),
                Err(error) => Self::failed(with_causes(&error), Cause::Event(Box::new(trigger.clone()))),
            };
            for event in &next {
                instance.apply(event);
            }
            events.extend(next);
        }
        events
    }

    fn react(&self, cause: Cause<S::Answer>, input: Input<'_, S>) -> Result<Vec<SagaEvent<S>>, BoxError> {
        let mut state = self.0.state.clone();
        let effects = caught(|| S::react(&mut state, input)).map_err(|Panicked| "the saga panicked")??;
        if self.0.status.is_none() && effects.is_empty() && state == self.0.state {
            // Nothing begins with it.
            return Ok(Vec::new());
        }
        let (mut decided, mut last, mut numbers) = (Vec::new(), None, self.0.numbers);
        let mut next = || {
            numbers += 1;
            numbers
        };
        let (mut compensates, mut performs) = (self.0.status == Some(Status::Compensating), false);
        for effect in effects {
            if last.is_some() {
                return Err("a saga decides nothing after Effect::End or Effect::Fail".into());
            }
            match effect {
                Effect::Perform(action) => {
                    performs = true;
                    decided.push(Decided::Perform { number: next(), action });
                }
                Effect::SetTimer { name, after } => decided.push(Decided::SetTimer { number: next(), name, after }),
                Effect::CancelTimer { name } => decided.push(Decided::CancelTimer { name }),
                Effect::Compensate => {
                    compensates = true;
                    decided.push(Decided::Compensate);
                }
                Effect::End if performs => return Err("a saga that ends has nothing performed".into()),
                Effect::End if compensates => last = Some(SagaEvent::Compensated(state.clone())),
                Effect::End => last = Some(SagaEvent::Completed(state.clone())),
                Effect::Fail { cause: why } if self.0.status.is_some() => return Ok(Self::failed(why, cause)),
                Effect::Fail { cause } => last = Some(SagaEvent::Failed(Failed { cause })),
            }
        }
        let advanced = SagaEvent::Advanced(Advanced { cause, decided, state });
        Ok([advanced].into_iter().chain(last).collect())
    }

    /// It has not reacted to `cause`, and does so again when it goes on: an action without an answer is performed again, a timer wakes
    /// it again, and an event waits.
    fn failed(why: String, cause: Cause<S::Answer>) -> Vec<SagaEvent<S>> {
        let waits = if let Cause::Event(trigger) = cause { Some(SagaEvent::Deferred(trigger)) } else { None };
        [SagaEvent::Failed(Failed { cause: why })].into_iter().chain(waits).collect()
    }

    /// What follows from an answer or a timer, for which no reader can stop.
    fn react_or_fail(&self, cause: Cause<S::Answer>, input: Input<'_, S>) -> Vec<SagaEvent<S>> {
        let heard = cause.clone();
        self.react(cause, input).unwrap_or_else(|error| Self::failed(with_causes(&*error), heard))
    }

    fn answer(&self, number: u64, answer: &Result<S::Answer, String>) -> Vec<SagaEvent<S>> {
        let Some(Waiting { action, .. }) = self.0.actions.get(&number).filter(|_| self.is_under_way()) else {
            return Vec::new();
        };
        match answer {
            Ok(answer) => {
                let cause = Cause::Answered { action: number, answer: answer.clone() };
                self.react_or_fail(cause, Input::Answered { action, answer })
            }
            Err(reason) => {
                let cause = Cause::Refused { action: number, reason: reason.clone() };
                self.react_or_fail(cause, Input::Refused { action, reason })
            }
        }
    }
}

impl<S: Saga> Aggregate for Instance<S> {
    type Command = SagaCommand<S>;
    type Event = SagaEvent<S>;
    type Error = SagaError;

    fn handle(&self, command: &SagaCommand<S>) -> Result<Vec<SagaEvent<S>>, SagaError> {
        match command {
            SagaCommand::Event(heard) => {
                let (event, decoded) = (heard.recorded(), heard.decoded());
                let may_begin = matches!(S::correlate(decoded), Correlation::Starts(_));
                if self.0.status.map_or(!may_begin, Status::has_ended) {
                    return Ok(Vec::new());
                }
                let trigger = Trigger::of(event).map(Box::new);
                let trigger = trigger.ok_or_else(|| SagaError::Reaction("the payload is no JSON".into()))?;
                if self.0.status == Some(Status::Failed) {
                    return Ok(vec![SagaEvent::Deferred(trigger)]);
                }
                self.react(Cause::Event(trigger), Input::Event(decoded)).map_err(SagaError::Reaction)
            }
            SagaCommand::Answer { action, answer } => Ok(self.answer(*action, answer)),
            SagaCommand::Attempted(attempted) => {
                let waiting = self.0.actions.get(&attempted.action).filter(|_| self.is_under_way());
                if waiting.is_none_or(|waiting| waiting.attempts >= attempted.attempts) {
                    return Ok(Vec::new());
                }
                let failed = attempted.again_after.is_none().then(|| Failed { cause: attempted.cause.clone() });
                let attempted = SagaEvent::Attempted(attempted.clone());
                Ok([attempted].into_iter().chain(failed.map(SagaEvent::Failed)).collect())
            }
            SagaCommand::Fire { timer, number } => {
                if self.0.timers.get(timer) != Some(number) || !self.is_under_way() {
                    return Ok(Vec::new());
                }
                let cause = Cause::Timer { name: timer.clone() };
                Ok(self.react_or_fail(cause, Input::Timer { name: timer }))
            }
            SagaCommand::Fail { cause } => Ok(self
                .is_under_way()
                .then(|| SagaEvent::Failed(Failed { cause: cause.clone() }))
                .into_iter()
                .collect()),
            SagaCommand::Retry(act) => match self.0.status {
                Some(Status::Failed) => Ok(self.resumed(act)),
                status => {
                    let status = status.map_or("it has not begun".to_owned(), |status| status.to_string());
                    Err(SagaError::NotFailed { status })
                }
            },
        }
    }

    fn apply(&mut self, event: &SagaEvent<S>) {
        let Self(course) = self;
        match event {
            SagaEvent::Advanced(Advanced { cause, decided, state }) => {
                course.state.clone_from(state);
                let metadata = course.heard(cause);
                for decided in decided {
                    course.decided(decided, &metadata);
                }
            }
            SagaEvent::Attempted(Attempted { action, attempts, .. }) => {
                if let Some(waiting) = course.actions.get_mut(action) {
                    waiting.attempts = *attempts;
                }
            }
            SagaEvent::Failed(Failed { cause }) => {
                course.before = course.status.replace(Status::Failed);
                course.cause = Some(cause.clone());
            }
            SagaEvent::Deferred(trigger) => course.deferred.push((**trigger).clone()),
            SagaEvent::Retried(_) => {
                (course.status, course.cause) = (course.before.take(), None);
                course.deferred.clear();
                for waiting in course.actions.values_mut() {
                    waiting.attempts = 0;
                }
            }
            SagaEvent::Completed(_) => course.end(Status::Completed),
            SagaEvent::Compensated(_) => course.end(Status::Compensated),
        }
    }
}

impl<T, A: Clone> Course<T, A> {
    /// What is done because of this cause carries the metadata that it returns.
    fn heard<R>(&mut self, cause: &Cause<R>) -> Metadata {
        match cause {
            Cause::Event(trigger) => {
                let metadata = Metadata::caused_by(&trigger.recorded());
                if self.status.is_none() {
                    self.status = Some(Status::Started);
                    self.metadata = Metadata { causation_id: None, ..metadata.clone() };
                }
                return metadata;
            }
            Cause::Answered { action, .. } | Cause::Refused { action, .. } => {
                self.actions.remove(action);
                if self.status == Some(Status::Started) {
                    self.status = Some(Status::Executing);
                }
            }
            Cause::Timer { name } => _ = self.timers.remove(name),
        }
        self.metadata.clone()
    }

    fn decided(&mut self, decided: &Decided<A>, metadata: &Metadata) {
        match decided {
            Decided::Perform { number, action } => {
                self.numbers = *number;
                let waiting = Waiting { action: action.clone(), attempts: 0, metadata: metadata.clone() };
                self.actions.insert(*number, waiting);
            }
            Decided::SetTimer { number, name, .. } => {
                self.numbers = *number;
                self.timers.insert(name.clone(), *number);
            }
            Decided::CancelTimer { name } => _ = self.timers.remove(name),
            Decided::Compensate => self.status = Some(Status::Compensating),
        }
    }

    fn end(&mut self, status: Status) {
        self.status = Some(status);
        self.actions.clear();
        self.timers.clear();
    }
}

impl<S: Saga> fmt::Debug for SagaCommand<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(heard) => heard.fmt(f),
            Self::Answer { action, answer } => {
                write!(f, "Answer({action}, {})", answer.as_ref().map_or("Err", |_| "Ok"))
            }
            Self::Attempted(attempted) => attempted.fmt(f),
            Self::Fire { timer, number } => write!(f, "Fire({timer:?}, {number})"),
            Self::Fail { cause } => write!(f, "Fail({cause:?})"),
            Self::Retry(act) => write!(f, "Retry({act:?})"),
        }
    }
}

impl<S: Saga> fmt::Debug for Instance<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state may hold personal data.
        f.debug_struct("Instance").field("status", &self.0.status).field("cause", &self.0.cause).finish_non_exhaustive()
    }
}

impl<S: Saga> Clone for Instance<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S: Saga> Default for Instance<S> {
    fn default() -> Self {
        let (actions, timers) = (BTreeMap::new(), BTreeMap::new());
        Self(Course {
            status: None,
            state: S::State::default(),
            cause: None,
            before: None,
            actions,
            timers,
            deferred: Vec::new(),
            numbers: 0,
            metadata: Metadata::default(),
        })
    }
}

impl<S: Saga> PartialEq for Instance<S> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<S: Saga> Serialize for Instance<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, S: Saga> Deserialize<'de> for Instance<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Course::deserialize(deserializer).map(Self)
    }
}
