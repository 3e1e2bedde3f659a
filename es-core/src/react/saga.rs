//! Processes over several aggregates: durable, each in a stream of its own.

mod action;
mod engines;
mod event;
mod heard;
mod instance;
mod named;
mod names;
mod overview;
mod performer;
mod queue;
mod sagas;
mod steps;
#[cfg(test)]
mod tests;
mod version;

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    action::{ActionContext, ActionError, AfterLast, Retry},
    engines::{Reactor, SagaPerformer},
    event::{Advanced, Ask, Asked, Attempted, Cause, Decided, Declined, Failed, SagaEvent, Trigger},
    heard::Heard,
    instance::{Instance, SagaCommand, SagaError, Waiting},
    named::{NamedSaga, NamedSagaError},
    overview::{Instances, Overview, Status},
    sagas::{SagaQueryError, Sagas},
    steps::{Step, StepAction, StepSaga, Stepping, Steps},
};
use crate::{
    error::BoxError,
    event::{EventSet, Recorded},
    read::definition,
};

/// A process over several aggregates or services. It reacts to events, has things done, waits for times, and ends.
///
/// Each instance is a stream of its own in the log (category `saga_<name>`), which tells what it reacted to, what it decided, what became of
/// that, and its state after each step. So "what has happened to the process of order 4711, and why" is answered by reading one stream.
///
/// [`correlate`](Self::correlate) and [`react`](Self::react) are pure, as an aggregate's functions are. What is to be done is an
/// [`Action`](Self::Action), a value that is kept in the stream. [`perform`](Self::perform) does it, outside of any decision: it sends a
/// command to an aggregate, or calls another system. What it returns is kept in the stream too, and [`react`](Self::react) gets it.
///
/// ```
/// use async_trait::async_trait;
/// use es_core::{ActionContext, ActionError, Correlation, Effect, Input, Recorded, Repository, Saga, error::BoxError};
/// # use es_core::testing::account::{Account, AccountCommand, AccountEvent};
/// use serde::{Deserialize, Serialize};
///
/// /// Doubles each gift: as much is paid into a savings account.
/// struct Doubling {
///     accounts: Repository<Account>,
/// }
///
/// #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
/// struct Doubled {
///     amount: u64,
/// }
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// enum Todo {
///     PayIn { account: String, amount: u64 },
/// }
///
/// #[async_trait]
/// impl Saga for Doubling {
///     const NAME: &'static str = "doubling";
///     type Event = AccountEvent;
///     type State = Doubled;
///     type Action = Todo;
///     type Answer = ();
///
///     fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
///         match event.data {
///             AccountEvent::Deposited { .. } if event.stream.id().starts_with("gift-") => {
///                 Correlation::Starts(event.stream.id().to_owned())
///             }
///             _ => Correlation::None,
///         }
///     }
///
///     fn react(state: &mut Doubled, input: Input<'_, Self>) -> Result<Vec<Effect<Todo>>, BoxError> {
///         Ok(match input {
///             Input::Event(Recorded { data: AccountEvent::Deposited { amount }, stream, .. }) => {
///                 state.amount = *amount;
///                 let account = format!("saved-{}", stream.id());
///                 vec![Effect::Perform(Todo::PayIn { account, amount: *amount })]
///             }
///             Input::Answered { .. } => vec![Effect::End],
///             Input::Refused { reason, .. } => vec![Effect::Fail { cause: reason.to_owned() }],
///             _ => vec![],
///         })
///     }
///
///     async fn perform(&self, action: &Todo, context: ActionContext) -> Result<(), ActionError> {
///         let Todo::PayIn { account, amount } = action;
///         self.accounts.execute_with(account, AccountCommand::Deposit(*amount), context.command()?).await?;
///         Ok(())
///     }
/// }
/// # let builder = es_core::Service::builder("accounts", es_core::MemoryStore::new());
///
/// // It gets its repositories from the service:
/// let builder = builder.aggregate::<Account>().saga(|shared| Doubling { accounts: shared.repository() });
/// ```
///
/// # Delivery
/// An instance reacts to each event once (R9), and to the answers to its actions, and to its timers, each once and one after the other
/// (R20). Events come in the order of the log where they concern the same instance.
///
/// An action is performed at least once: a process that is killed while it performs one leaves it to another process. So an action must
/// carry a key by which repetitions are recognised: [`ActionContext::command`] does that for commands, and [`ActionContext::key`] is for
/// other systems.
#[async_trait]
pub trait Saga: Sized + Send + Sync + 'static {
    /// Its stable name, by the rule of [`Projection::NAME`](crate::Projection::NAME), whose name space it shares; at most 50 bytes.
    /// `saga-<name>` and `perform-<name>` are names of its parts, and `saga_<name>`, with `_` for each `-`, is the category of its streams.
    const NAME: &'static str;

    /// The events that start or continue an instance.
    type Event: EventSet;

    /// What an instance knows between its steps. It is kept in the stream after each of them.
    type State: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What can be done for it: commands, calls of other systems.
    type Action: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What an action returns; `()` if that it was done is all there is to know.
    type Answer: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// The versions of the definition that this code runs, in ascending order. New instances begin under the last one. Each goes on under
    /// the one under which it began, and [`react_under`](Self::react_under) knows what that means.
    ///
    /// A process whose code does not run the version of an instance that is under way refuses to perform, and names the instance
    /// ([`EngineError::SagaVersions`](crate::EngineError::SagaVersions)), unless the instance is [migrated](Self::migrate).
    const VERSIONS: &'static [u32] = &[1];

    /// A name by which another saga under the same [`NAME`](Self::NAME) is recognised and refused: the type's name. After the type was
    /// renamed, return the former name here.
    fn identity() -> &'static str {
        definition::type_name::<Self>()
    }

    /// Which instance an event concerns.
    fn correlate(event: &Recorded<Self::Event>) -> Correlation;

    /// Decides what follows from `input`. Pure: whatever it needs is in the state or the input.
    ///
    /// # Errors
    /// Any error. At an event, the [`FailurePolicy`](crate::FailurePolicy) of the saga decides, as for a
    /// [`Policy`](crate::Policy). At an answer or a timer, the instance fails with it as the cause ([`Status::Failed`]).
    fn react(state: &mut Self::State, input: Input<'_, Self>) -> Result<Vec<Effect<Self::Action>>, BoxError>;

    /// Decides as [`react`](Self::react) does, for an instance under this one of the [`VERSIONS`](Self::VERSIONS).
    ///
    /// # Errors
    /// As [`react`](Self::react).
    fn react_under(
        _version: u32,
        state: &mut Self::State,
        input: Input<'_, Self>,
    ) -> Result<Vec<Effect<Self::Action>>, BoxError> {
        Self::react(state, input)
    }

    /// The state under the last version of an instance whose `version` is none of the [`VERSIONS`](Self::VERSIONS) any more. It goes on
    /// with that when something happens to it next. `None`: it cannot go on.
    fn migrate(_version: u32, _state: &Self::State) -> Option<Self::State> {
        None
    }

    /// Does `action`. It may be called again for the same action, after an attempt that failed or whose process was killed.
    ///
    /// # Errors
    /// [`ActionError`] tells whether that is an answer, or another attempt may help, or none does. `?` converts the errors of commands.
    ///
    /// # Cancel safety
    /// The future is dropped when its [time limit](Retry::time_limit) is over, when the service stops, and when another process takes
    /// over.
    async fn perform(&self, action: &Self::Action, context: ActionContext) -> Result<Self::Answer, ActionError>;

    /// How often `action` is attempted, and how long an attempt may take.
    fn retry(_action: &Self::Action) -> Retry {
        Retry::default()
    }

    /// What tells `action` from the other actions of the instance in its [key](ActionContext::key): its `number`, unless the instance
    /// may decide to do again what it has done, under the same key. It holds no `/`.
    fn key(_action: &Self::Action, number: u64) -> String {
        number.to_string()
    }

    /// Whether `other` is what [`Effect::GiveUp`] of `one` gives up.
    #[doc(hidden)]
    fn is_same(one: &Self::Action, other: &Self::Action) -> bool {
        one == other
    }

    /// Whether the saga decides when the last attempt at `action` has failed, whatever [`Retry::after_last`] says.
    #[doc(hidden)]
    fn decides_after_last(_state: &Self::State, _action: &Self::Action) -> bool {
        false
    }

    /// What is wrong with the definition, for people.
    #[doc(hidden)]
    fn flaw() -> Option<String> {
        None
    }
}

/// Which instance of a saga an event concerns. An instance has the id of a stream ([`StreamId::new`](crate::StreamId::new)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Correlation {
    /// None.
    None,
    /// This one. If it does not exist, it begins with the event.
    Starts(String),
    /// This one, if it has begun and not ended. Otherwise nothing happens.
    Continues(String),
}

/// What a saga reacts to.
#[derive(Debug)]
pub enum Input<'a, S: Saga> {
    /// An event that concerns the instance.
    Event(&'a Recorded<S::Event>),
    /// An action was done.
    Answered {
        /// Which.
        action: &'a S::Action,
        /// What it has returned.
        answer: &'a S::Answer,
    },
    /// An action was refused: by an aggregate, or with [`ActionError::Refused`].
    Refused {
        /// Which.
        action: &'a S::Action,
        /// Why, for people.
        reason: &'a str,
        /// Whether it may have been done all the same: its last attempt has failed, and [`Retry::after_last`] leaves the rest to the
        /// saga.
        may_be_done: bool,
    },
    /// The time of a timer has come.
    Timer {
        /// Which.
        name: &'a str,
        /// When it was woken, by the clock of the store: not before its time, and as a rule within a second of it.
        at: DateTime<Utc>,
    },
    /// An operator asks for something: [`Ask::Compensate`], [`Ask::Skip`] or [`Ask::RestartFrom`]. An error is an answer to that: it
    /// changes nothing. So is it if nothing is decided.
    Asked(&'a Asked),
}

/// What a saga decides.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect<A> {
    /// The action is performed. Several are performed at the same time.
    Perform(A),
    /// The saga gets [`Input::Timer`] after this time, by the clock of the store. A timer of this name that is set already is set anew.
    SetTimer {
        /// Its name.
        name: String,
        /// From the time at which the decision is written.
        after: Duration,
    },
    /// The timer is not set any more.
    CancelTimer {
        /// Its name.
        name: String,
    },
    /// The action is given up: it has no answer any more. An attempt that is under way may still do it.
    GiveUp(A),
    /// From now on the instance takes back what was done ([`Status::Compensating`]).
    Compensate,
    /// From now on it goes forward again.
    Proceed,
    /// The instance ends: [`Status::Compensated`] if it was compensating, otherwise [`Status::Completed`]. Its timers are gone, and the
    /// actions that have no answer yet are given up. It cannot be decided together with an action.
    End,
    /// The instance needs an operator ([`Status::Failed`]). Beside it nothing else counts, nor what has become of the state. When the
    /// instance goes on, it reacts to the same again: the action is performed anew, the timer wakes it, the event is heard.
    Fail {
        /// Why, for people.
        cause: String,
    },
}
