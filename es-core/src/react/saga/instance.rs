//! An instance of a saga as the decider over its own stream.

mod course;
mod operators;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use self::course::Course;
pub use self::course::Waiting;

use super::{
    AfterLast, Correlation, Effect, Input, Saga, Status,
    event::{Advanced, Ask, Asked, Attempted, Cause, Decided, Failed, SagaEvent, Trigger},
    heard::Heard,
    version::{current_version, runs},
};
use crate::{
    error::{BoxError, with_causes},
    event::Metadata,
    read::panics::{Panicked, caught},
    write::aggregate::Aggregate,
};

/// An instance of the saga `S`, as its stream tells it.
pub struct Instance<S: Saga>(Course<S::State, S::Action>);

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
    /// It reacts to the first of the events that wait since it had failed.
    Hear,
    /// An attempt at an action has failed.
    Attempted(Attempted),
    /// The time of a timer has come.
    Fire {
        /// Its name.
        timer: String,
        /// Which setting of it.
        number: u64,
        /// When that was noticed, by the clock of the store.
        at: DateTime<Utc>,
    },
    /// It cannot go on.
    Fail {
        /// Why.
        cause: String,
    },
    /// An operator asks for something.
    Ask(Asked),
    /// It does what operators have asked for, as its stream tells.
    Obey,
}

/// Why an instance does not do what it is told.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagaError {
    /// It cannot react to the event.
    #[error("the saga cannot react to the event")]
    Reaction(#[source] BoxError),
    /// It does not do what an operator asks for.
    #[error("{ask}: {cause}")]
    Declined {
        /// For what.
        ask: Ask,
        /// Why not.
        cause: String,
    },
    /// This code neither runs nor migrates the version of the definition under which it is.
    #[error("the instance is under version {version} of the saga, and this program runs {known:?}")]
    UnknownVersion {
        /// The version.
        version: u32,
        /// [`Saga::VERSIONS`].
        known: &'static [u32],
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

    /// Under which of the [versions](Saga::VERSIONS) it is; 0 before it has begun.
    pub fn version(&self) -> u32 {
        self.0.version
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

    /// What operators have asked for, and it has not done yet.
    pub fn asked(&self) -> &[Asked] {
        &self.0.asked
    }

    /// The number under which the timer `name` is set.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn timer(&self, name: &str) -> Option<u64> {
        self.0.timers.get(name).copied()
    }

    /// The events that have come since it has failed, and were not heard yet.
    pub fn deferred(&self) -> impl Iterator<Item = &Trigger> {
        self.0.deferred.iter()
    }

    /// One that begins under this version.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn under(version: u32) -> Self {
        let mut instance = Self::default();
        instance.0.version = version;
        instance
    }

    /// Whether something may happen to it.
    pub(super) fn is_under_way(&self) -> bool {
        self.0.status.is_some_and(|status| !status.has_ended() && status != Status::Failed)
    }

    /// Whether this code can go on with it, if anything may happen to it any more.
    pub(super) fn admit(&self) -> Result<(), SagaError> {
        let Course { status, version, .. } = &self.0;
        if status.is_none_or(Status::has_ended) || runs::<S>(*version) {
            return Ok(());
        }
        self.definition().map(drop)
    }

    /// The version under which it decides next, and its state under that.
    fn definition(&self) -> Result<(u32, S::State), SagaError> {
        let Course { status, version, state, .. } = &self.0;
        match (status, version) {
            (None, 0) => Ok((current_version::<S>(), state.clone())),
            (_, version) if runs::<S>(*version) => Ok((*version, state.clone())),
            (_, version) => {
                // Newer code knows what is under a newer version.
                let is_older = *version < current_version::<S>();
                match is_older.then(|| S::migrate(*version, state)).flatten() {
                    Some(state) => Ok((current_version::<S>(), state)),
                    None => Err(SagaError::UnknownVersion { version: *version, known: S::VERSIONS }),
                }
            }
        }
    }

    /// A reaction of which nothing follows.
    fn advanced(&self, cause: Cause<S::Answer>) -> Result<Vec<SagaEvent<S>>, BoxError> {
        let (version, state) = self.definition()?;
        Ok(vec![SagaEvent::Advanced(Advanced { version, cause, decided: Vec::new(), state })])
    }

    fn react(&self, cause: Cause<S::Answer>, input: Input<'_, S>) -> Result<Vec<SagaEvent<S>>, BoxError> {
        let (version, mut state) = self.definition()?;
        let effects =
            caught(|| S::react_under(version, &mut state, input)).map_err(|Panicked| "the saga panicked")??;
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
                Effect::GiveUp(action) => {
                    let given_up = self.0.actions.iter().filter(|(_, waiting)| S::is_same(&action, &waiting.action));
                    decided.extend(given_up.map(|(number, _)| Decided::GiveUp { number: *number }));
                }
                Effect::Compensate => {
                    compensates = true;
                    decided.push(Decided::Compensate);
                }
                Effect::Proceed => {
                    compensates = false;
                    decided.push(Decided::Proceed);
                }
                Effect::End if performs => return Err("a saga that ends has nothing performed".into()),
                Effect::End if compensates => last = Some(SagaEvent::Compensated(state.clone())),
                Effect::End => last = Some(SagaEvent::Completed(state.clone())),
                Effect::Fail { cause: why } if self.0.status.is_some() => return Ok(Self::failed(why, cause)),
                // It begins, and knows nothing yet.
                Effect::Fail { cause: why } => {
                    let mut begins = self.advanced(cause.clone())?;
                    begins.extend(Self::failed(why, cause));
                    return Ok(begins);
                }
            }
        }
        let advanced = SagaEvent::Advanced(Advanced { version, cause, decided, state });
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
                let cause = Cause::Refused { action: number, reason: reason.clone(), may_be_done: false };
                self.react_or_fail(cause, Input::Refused { action, reason, may_be_done: false })
            }
        }
    }

    /// An attempt at an action has failed.
    fn attempted(&self, attempted: &Attempted) -> Vec<SagaEvent<S>> {
        let Attempted { action: number, rounds, attempts, cause: reason, again_after } = attempted;
        let waiting = self.0.actions.get(number).filter(|_| self.is_under_way());
        // Not one that began before an operator had the action attempted anew.
        let waiting = waiting.filter(|waiting| waiting.rounds == *rounds && waiting.attempts < *attempts);
        let Some(Waiting { action, .. }) = waiting else { return Vec::new() };
        let mut events = vec![SagaEvent::Attempted(attempted.clone())];
        if again_after.is_some() {
            return events;
        }
        let retry = caught(|| S::retry(action)).unwrap_or_default();
        let decides = caught(|| S::decides_after_last(&self.0.state, action)).unwrap_or_default();
        let saga_decides = decides || retry.after_last == AfterLast::Refuse;
        if saga_decides {
            let cause = Cause::Refused { action: *number, reason: reason.clone(), may_be_done: true };
            events.extend(self.react_or_fail(cause, Input::Refused { action, reason, may_be_done: true }));
        } else {
            events.push(SagaEvent::Failed(Failed { cause: reason.clone() }));
        }
        events
    }
}

impl<S: Saga> Aggregate for Instance<S> {
    type Command = SagaCommand<S>;
    type Event = SagaEvent<S>;
    type Error = SagaError;

    fn handle(&self, command: &SagaCommand<S>) -> Result<Vec<SagaEvent<S>>, SagaError> {
        if self.is_under_way() {
            // Code that does not run its version decides nothing for it.
            self.admit()?;
        }
        match command {
            SagaCommand::Event(heard) => {
                let (event, decoded) = (heard.recorded(), heard.decoded());
                let may_begin = matches!(S::correlate(decoded), Correlation::Starts(_));
                if self.0.status.map_or(!may_begin, Status::has_ended) {
                    return Ok(Vec::new());
                }
                let trigger = Trigger::of(event).map(Box::new);
                let trigger = trigger.ok_or_else(|| SagaError::Reaction("the payload is no JSON".into()))?;
                if self.0.status == Some(Status::Failed) || !self.0.deferred.is_empty() {
                    return Ok(vec![SagaEvent::Deferred(trigger)]);
                }
                self.react(Cause::Event(trigger), Input::Event(decoded)).map_err(SagaError::Reaction)
            }
            SagaCommand::Answer { action, answer } => Ok(self.answer(*action, answer)),
            SagaCommand::Attempted(attempted) => Ok(self.attempted(attempted)),
            SagaCommand::Hear => Ok(self.hear()),
            SagaCommand::Fire { timer, number, at } => {
                if self.0.timers.get(timer) != Some(number) || !self.is_under_way() {
                    return Ok(Vec::new());
                }
                let cause = Cause::Timer { name: timer.clone(), at: *at };
                Ok(self.react_or_fail(cause, Input::Timer { name: timer, at: *at }))
            }
            SagaCommand::Fail { cause } => Ok(self
                .is_under_way()
                .then(|| SagaEvent::Failed(Failed { cause: cause.clone() }))
                .into_iter()
                .collect()),
            SagaCommand::Ask(asked) => self.ask(asked),
            SagaCommand::Obey => Ok(self.obey_all()),
        }
    }

    fn apply(&mut self, event: &SagaEvent<S>) {
        let Self(course) = self;
        match event {
            SagaEvent::Advanced(Advanced { version, cause, decided, state }) => {
                course.state.clone_from(state);
                course.version = *version;
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
            SagaEvent::Deferred(trigger) => course.deferred.push_back((**trigger).clone()),
            SagaEvent::Asked(asked) => course.asked.push(asked.clone()),
            SagaEvent::Declined(_) => course.obeyed(),
            SagaEvent::Resumed => {
                course.obeyed();
                course.wake();
            }
            SagaEvent::Cancelled(_) => {
                course.obeyed();
                course.end(Status::Cancelled);
            }
            SagaEvent::Completed(_) => course.end(Status::Completed),
            SagaEvent::Compensated(_) => course.end(Status::Compensated),
        }
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
            Self::Fire { timer, number, .. } => write!(f, "Fire({timer:?}, {number})"),
            Self::Fail { cause } => write!(f, "Fail({cause:?})"),
            Self::Ask(asked) => write!(f, "Ask({asked:?})"),
            Self::Obey => f.write_str("Obey"),
            Self::Hear => f.write_str("Hear"),
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
            deferred: VecDeque::new(),
            asked: Vec::new(),
            numbers: 0,
            version: 0,
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
