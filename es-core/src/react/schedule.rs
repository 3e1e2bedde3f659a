//! Commands at times: once, or again and again.

mod every;
mod plan;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Serialize, de::DeserializeOwned};

pub use self::{
    every::{Every, InvalidPattern, Missed},
    plan::{Plan, Planning, Run, When},
};
use super::saga::{ActionContext, ActionError, Ask, Asked, Heard, Instance, Retry, SagaCommand, SagaError};
use crate::{
    event::EventSet,
    read::read_model::Act,
    write::{
        execute::{CommandContext, ExecuteError, LoadError, Receipt, Repository},
        store::{EventStore, ReadError},
    },
};

/// Commands that are given at times which an application plans: in an hour, on a day, each morning.
///
/// ```
/// use std::time::Duration;
///
/// use async_trait::async_trait;
/// use es_core::{ActionContext, ActionError, Every, Repository, Schedule};
/// # use es_core::testing::account::{Account, AccountCommand};
/// use serde::{Deserialize, Serialize};
///
/// struct StandingOrders {
///     accounts: Repository<Account>,
/// }
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// struct Pay {
///     account: String,
///     amount: u64,
/// }
///
/// #[async_trait]
/// impl Schedule for StandingOrders {
///     const NAME: &'static str = "standing-orders";
///     type Command = Pay;
///
///     async fn run(&self, Pay { account, amount }: &Pay, context: ActionContext) -> Result<(), ActionError> {
///         self.accounts.execute_with(account, AccountCommand::Deposit(*amount), context.command()?).await?;
///         Ok(())
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = es_core::MemoryStore::new();
/// let service = es_core::Service::builder("accounts", store)
///     .aggregate::<Account>()
///     .schedule(|shared| StandingOrders { accounts: shared.repository() })
///     .start()
///     .await?;
/// let schedules = service.schedules::<StandingOrders>();
/// let pay = Pay { account: "ada".to_owned(), amount: 7 };
/// schedules.after("gift-to-ada", pay.clone(), Duration::from_hours(1)).await?;
/// schedules.every("rent-of-ada", pay, Every::cron("0 8 1 * *")?).await?;
/// # Ok(())
/// # }
/// ```
///
/// Each plan is an instance of a saga (a stream of the category `saga_<name>`): what is planned, each run and what has become of it are in
/// its stream, operators see and ask it as any [saga](crate::Saga), and what is said there of actions and timers holds.
///
/// # Delivery
/// A run is begun once (R20), not early by the clock of the store, and within a second of its time while a process performs; what a
/// process has missed that was down, right after it has started. Its command is given at least once, under one key.
#[async_trait]
pub trait Schedule: Sized + Send + Sync + 'static {
    /// Its stable name, as [`Saga::NAME`](crate::Saga::NAME), whose name space it shares.
    const NAME: &'static str;

    /// What is to be done. It is kept in the streams of plans.
    type Command: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// Does it. It may be called again for the same run.
    ///
    /// # Errors
    /// [`ActionError`]. After the last attempt, or a refusal, a plan that is run once has failed, and needs an operator. One that is run
    /// again and again goes on with the next run.
    ///
    /// # Cancel safety
    /// As [`Saga::perform`](crate::Saga::perform).
    async fn run(&self, command: &Self::Command, context: ActionContext) -> Result<(), ActionError>;

    /// How often a run is attempted, and how long an attempt may take.
    fn retry(_command: &Self::Command) -> Retry {
        Retry::default()
    }
}

/// The plans of the schedule `S`.
pub struct Schedules<S: Schedule> {
    plans: Repository<Instance<Planning<S>>>,
    log: Arc<dyn EventStore>,
}

impl<S: Schedule> Schedules<S> {
    pub(crate) fn new(plans: Repository<Instance<Planning<S>>>, log: Arc<dyn EventStore>) -> Self {
        Self { plans, log }
    }

    /// Plans `command` for `time`, by the clock of the store; at once if that is over. A plan `id` that was not run yet is planned anew.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub async fn at(&self, id: &str, command: S::Command, time: DateTime<Utc>) -> Result<Receipt, ScheduleError> {
        self.plan(id, command, When::At(time), CommandContext::default()).await
    }

    /// Plans `command` for the time in so long, counted from now.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub async fn after(&self, id: &str, command: S::Command, delay: Duration) -> Result<Receipt, ScheduleError> {
        self.plan(id, command, When::After(delay), CommandContext::default()).await
    }

    /// Plans `command` again and again, until the plan is cancelled.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub async fn every(&self, id: &str, command: S::Command, every: Every) -> Result<Receipt, ScheduleError> {
        self.plan(id, command, When::Every(every), CommandContext::default()).await
    }

    /// Plans `command`. A policy passes the context of its [`reaction`](crate::reaction), so that it plans once.
    ///
    /// # Errors
    /// [`ScheduleError`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves the plan made or not.
    pub async fn plan(
        &self,
        id: &str,
        command: S::Command,
        when: When,
        context: CommandContext,
    ) -> Result<Receipt, ScheduleError> {
        let plan = Plan { command, when };
        let set = plan.set(id, self.log.now().await?, &context).map_err(ExecuteError::Rejected)?;
        let set = Heard::from_recorded(&set).map_err(|error| SagaError::Reaction(error.into()));
        // Nothing but an event of another category is none.
        let set = set.map_err(ExecuteError::Rejected)?.unwrap_or_else(|| unreachable!("it was just made"));
        let receipt = self.plans.execute_with(id, SagaCommand::Event(set), context).await?;
        // An instance that has ended ignores everything.
        if receipt.position.is_none() { Err(ScheduleError::Ended { id: id.to_owned() }) } else { Ok(receipt) }
    }

    /// Cancels the plan `id`: no run begins any more.
    ///
    /// # Errors
    /// [`ScheduleError::Execute`] with [`SagaError::Declined`] if there is no such plan, or it has ended.
    pub async fn cancel(&self, id: &str, act: &Act) -> Result<Receipt, ScheduleError> {
        let asked = Asked::new(Ask::Cancel, act);
        Ok(self.plans.execute(id, SagaCommand::Ask(asked)).await?)
    }

    /// The plan `id`; `None` if there is none.
    ///
    /// # Errors
    /// [`LoadError`].
    pub async fn get(&self, id: &str) -> Result<Option<Instance<Planning<S>>>, LoadError> {
        let loaded = self.plans.load(id).await?;
        Ok(loaded.state.status().is_some().then_some(loaded.state))
    }
}

impl<S: Schedule> fmt::Debug for Schedules<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schedules({})", S::NAME)
    }
}

/// Why something is not planned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScheduleError {
    /// The plan was run or cancelled: another plan needs another id.
    #[error("the plan {id:?} has ended, and another one needs another id")]
    Ended {
        /// Its id.
        id: String,
    },
    /// The time of the store is not known.
    #[error("the time of the store cannot be read")]
    Clock(#[from] ReadError),
    /// The plan cannot be written.
    #[error(transparent)]
    Execute(#[from] ExecuteError<SagaError>),
}

impl ScheduleError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Ended { .. } => false,
            Self::Clock(error) => error.is_transient(),
            Self::Execute(error) => error.is_transient(),
        }
    }
}
