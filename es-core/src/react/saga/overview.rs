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
    /// It has ended, since an operator has asked for that, and has taken back nothing.
    Cancelled,
    /// It needs an operator. What happens meanwhile waits.
    Failed,
}

impl Status {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Started,
        Self::Executing,
        Self::Compensating,
        Self::Failed,
        Self::Completed,
        Self::Compensated,
        Self::Cancelled,
    ];

    /// Its name, as `sagas list` and the field [`STATUS`](Overview::STATUS) have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Executing => "executing",
            Self::Compensating => "compensating",
            Self::Completed => "completed",
            Self::Compensated => "compensated",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing happens to it any more.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Compensated | Self::Cancelled)
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
    /// Under which of the [versions](Saga::VERSIONS) it is.
    pub version: u32,
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
    /// Since when something waits for which an operator has asked.
    pub asked_at: Option<DateTime<Utc>>,
    /// Since when it has failed, if it has.
    pub failed_at: Option<DateTime<Utc>>,
    /// How many events have come since it has failed, and were not heard yet.
    pub deferred: u64,
}

/// An action that has no answer yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueAction {
    /// When it is attempted.
    pub due: DateTime<Utc>,
    /// How many attempts have failed, since operators have let it be attempted anew last.
    pub attempts: u32,
    /// How often operators have done that.
    pub rounds: u32,
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

    /// Finds the instances that have not ended by their version.
    pub const VERSION: Field<Self, i64> =
        Field::new("version", |overview| (!overview.status.has_ended()).then_some(i64::from(overview.version)));

    /// Finds instances by the time at which something is to be done next. It holds none that has ended, and one that has failed only
    /// while something waits for which an operator has asked.
    pub const DUE: Field<Self, DateTime<Utc>> = Field::new("due", Self::due);

    /// When something is to be done next.
    pub fn due(&self) -> Option<DateTime<Utc>> {
        if self.status.has_ended() || self.status == Status::Failed {
            return self.asked_at;
        }
        let timers = self.timers.values().map(|timer| timer.due);
        let hears = (self.deferred > 0).then_some(self.changed_at);
        self.actions.values().map(|action| action.due).chain(timers).chain(self.asked_at).chain(hears).min()
    }

    fn begun(at: DateTime<Utc>) -> Self {
        Self {
            status: Status::Started,
            version: 0,
            began_at: at,
            changed_at: at,
            cause: None,
            before: None,
            actions: BTreeMap::new(),
            timers: BTreeMap::new(),
            asked_at: None,
            failed_at: None,
            deferred: 0,
        }
    }

    /// If it has failed, it goes on.
    fn wake(&mut self, at: DateTime<Utc>) {
        self.asked_at = None;
        if self.status != Status::Failed {
            return;
        }
        self.status = self.before.take().unwrap_or(Status::Executing);
        self.cause = None;
        // Timers have stood still.
        let stood = self.failed_at.take().and_then(|since| (at - since).to_std().ok()).unwrap_or_default();
        for timer in self.timers.values_mut() {
            timer.due = later(timer.due, stood);
        }
        for action in self.actions.values_mut() {
            *action = DueAction { due: at, attempts: 0, rounds: action.rounds + 1 };
        }
    }

    fn advance<T, A, R>(&mut self, advanced: &Advanced<T, A, R>, at: DateTime<Utc>) {
        self.version = advanced.version;
        match &advanced.cause {
            // It was the first of those that waited, if there were any.
            Cause::Event(_) => self.deferred = self.deferred.saturating_sub(1),
            Cause::Answered { action, .. } | Cause::Refused { action, .. } => {
                self.actions.remove(action);
                if self.status == Status::Started {
                    self.status = Status::Executing;
                }
            }
            Cause::Timer { name, .. } => _ = self.timers.remove(name),
            Cause::Asked(_) => self.wake(at),
        }
        for decided in &advanced.decided {
            match decided {
                Decided::Perform { number, .. } => {
                    self.actions.insert(*number, DueAction { due: at, attempts: 0, rounds: 0 });
                }
                Decided::SetTimer { number, name, after } => {
                    let timer = DueTimer { due: later(at, *after), number: *number };
                    self.timers.insert(name.clone(), timer);
                }
                Decided::CancelTimer { name } => _ = self.timers.remove(name),
                Decided::GiveUp { number } => _ = self.actions.remove(number),
                Decided::Compensate => self.status = Status::Compensating,
                Decided::Proceed => self.status = Status::Executing,
            }
        }
    }

    fn end(&mut self, status: Status) {
        self.status = status;
        self.cause = None;
        self.failed_at = None;
        self.deferred = 0;
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
    const FIELDS: Fields<Overview> = &[&Overview::STATUS, &Overview::DUE, &Overview::VERSION];
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
                    *action = DueAction { due, attempts: *attempts, ..*action };
                }
            }
            SagaEvent::Failed(Failed { cause }) => {
                overview.before = Some(std::mem::replace(&mut overview.status, Status::Failed));
                overview.cause = Some(cause.clone());
                overview.failed_at = Some(at);
            }
            SagaEvent::Deferred(_) => overview.deferred += 1,
            SagaEvent::Asked(_) => overview.asked_at = Some(at),
            SagaEvent::Declined(_) => overview.asked_at = None,
            SagaEvent::Resumed => overview.wake(at),
            SagaEvent::Cancelled(_) => {
                overview.asked_at = None;
                overview.end(Status::Cancelled);
            }
            SagaEvent::Completed(_) => overview.end(Status::Completed),
            SagaEvent::Compensated(_) => overview.end(Status::Compensated),
        }
        Ok(())
    }
}
