//! What is known of all instances at once.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{
    Saga,
    event::{Advanced, Attempted, Cause, Decided, Failed, SagaEvent},
    names::Names,
};
use crate::{
    event::Recorded,
    read::{
        field::{Field, Fields},
        projection::{EventOrder, FoldResult, Keys, Projection},
    },
};

/// How an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It has begun, and no action was answered yet.
    Started,
    /// It goes on.
    Executing,
    /// It takes back what was done.
    Compensating,
    /// It has ended.
    Completed,
    /// It has ended, and has taken back what was done.
    Compensated,
    /// It needs an operator. What happens meanwhile waits.
    Failed,
}

impl Status {
    /// Its name, as `sagas list` and the field [`STATUS`](Overview::STATUS) have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Executing => "executing",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing happens to it any more.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is known of an instance: a document of the read model `saga-<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overview {
    /// How it is.
    pub status: Status,
    /// When it began.
    pub began_at: DateTime<Utc>,
    /// When something happened to it last.
    pub changed_at: DateTime<Utc>,
    /// Why it has failed, if it has.
    pub cause: Option<String>,
    /// In what it has failed.
    before: Option<Status>,
    /// The actions that have no answer yet, by their numbers.
    pub actions: BTreeMap<u64, DueAction>,
    /// The timers that are set, by their names.
    pub timers: BTreeMap<String, DueTimer>,
}

/// An action that has no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueAction {
    /// When it is attempted.
    pub due: DateTime<Utc>,
    /// How many attempts have failed.
    pub attempts: u32,
}

/// A timer that is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueTimer {
    /// When its time comes.
    pub due: DateTime<Utc>,
    /// Tells this setting of it from earlier ones.
    pub(super) number: u64,
}

impl Overview {
    /// Finds instances by their [status](Status::as_str).
    pub const STATUS: Field<Self, String> = Field::new("status", |overview| Some(overview.status.as_str().to_owned()));

    /// Finds instances by the time at which something is to be done next. It holds none that has ended or failed.
    pub const DUE: Field<Self, DateTime<Utc>> = Field::new("due", Self::due);

    /// When something is to be done next.
    pub(super) fn due(&self) -> Option<DateTime<Utc>> {
        if self.status.has_ended() || self.status == Status::Failed {
            return None;
        }
        let timers = self.timers.values().map(|timer| timer.due);
        self.actions.values().map(|action| action.due).chain(timers).min()
    }

    fn begun(at: DateTime<Utc>) -> Self {
        Self {
            status: Status::Started,
            began_at: at,
            changed_at: at,
            cause: None,
            before: None,
            actions: BTreeMap::new(),
            timers: BTreeMap::new(),
        }
    }

    fn advance<T, A, R>(&mut self, advanced: &Advanced<T, A, R>, at: DateTime<Utc>) {
        match &advanced.cause {
            Cause::Event(_) => {}
            Cause::Answered { action, .. } | Cause::Refused { action, .. } => {
                self.actions.remove(action);
                if self.status == Status::Started {
                    self.status = Status::Executing;
                }
            }
            Cause::Timer { name } => _ = self.timers.remove(name),
        }
        for decided in &advanced.decided {
            match decided {
                Decided::Perform { number, .. } => {
                    self.actions.insert(*number, DueAction { due: at, attempts: 0 });
                }
                Decided::SetTimer { number, name, after } => {
                    let timer = DueTimer { due: later(at, *after), number: *number };
                    self.timers.insert(name.clone(), timer);
                }
                Decided::CancelTimer { name } => _ = self.timers.remove(name),
                Decided::Compensate => self.status = Status::Compensating,
            }
        }
    }

    fn end(&mut self, status: Status) {
        self.status = status;
        self.actions.clear();
        self.timers.clear();
    }
}

/// The latest time that there is, where that would be later.
fn later(at: DateTime<Utc>, after: std::time::Duration) -> DateTime<Utc> {
    let after = TimeDelta::from_std(after).ok();
    after.and_then(|after| at.checked_add_signed(after)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// The read model of all instances of the saga `S`, under their ids.
pub struct Instances<S>(PhantomData<fn() -> S>);

impl<S: Saga> fmt::Debug for Instances<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Names::<S>::OVERVIEW)
    }
}

impl<S> Default for Instances<S> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<S: Saga> Projection for Instances<S> {
    const NAME: &'static str = Names::<S>::OVERVIEW;
    const ORDER: EventOrder = EventOrder::PerStream;
    const FIELDS: Fields<Overview> = &[&Overview::STATUS, &Overview::DUE];
    type Event = SagaEvent<S>;
    type Document = Overview;

    fn keys(&self, event: &Recorded<SagaEvent<S>>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, overview: &mut Option<Overview>, event: &Recorded<SagaEvent<S>>) -> FoldResult {
        let at = event.recorded_at;
        let overview = overview.get_or_insert_with(|| Overview::begun(at));
        overview.changed_at = at;
        match &event.data {
            SagaEvent::Advanced(advanced) => overview.advance(advanced, at),
            SagaEvent::Attempted(Attempted { action, attempts, again_after, .. }) => {
                if let Some(action) = overview.actions.get_mut(action) {
                    let due = again_after.map_or(action.due, |after| later(at, after));
                    *action = DueAction { due, attempts: *attempts };
                }
            }
            SagaEvent::Failed(Failed { cause }) => {
                overview.before = Some(std::mem::replace(&mut overview.status, Status::Failed));
                overview.cause = Some(cause.clone());
            }
            SagaEvent::Deferred(_) => {}
            SagaEvent::Retried(_) => {
                overview.status = overview.before.take().unwrap_or(Status::Executing);
                overview.cause = None;
                for action in overview.actions.values_mut() {
                    *action = DueAction { due: at, attempts: 0 };
                }
            }
            SagaEvent::Completed(_) => overview.end(Status::Completed),
            SagaEvent::Compensated(_) => overview.end(Status::Compensated),
        }
        Ok(())
    }
}
