//! Sagas that are a list of steps.

mod definition;
mod stepping;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::{
    definition::{Step, Steps},
    stepping::Stepping,
};
use super::{ActionContext, ActionError, AfterLast, Correlation, Effect, Input, Retry, Saga};
use crate::{
    error::BoxError,
    event::{EventSet, Recorded},
    read::definition::type_name,
};

/// A saga that is a list of [steps](Steps): each does something, may be taken back, and the next begins when it is done. When one fails,
/// what was done is taken back, the last first.
///
/// It is a [`Saga`], and everything that is said there holds for it: its [state](Stepping) is the data with what has become of the steps.
///
/// ```
/// use std::time::Duration;
///
/// use async_trait::async_trait;
/// use es_core::{ActionContext, ActionError, Correlation, Recorded, Repository, Step, StepSaga, Steps};
/// # use es_core::testing::account::{Account, AccountCommand, AccountEvent};
/// use serde::{Deserialize, Serialize};
///
/// /// Moves what is paid into `from-<id>` to `to-<id>`.
/// struct Moving {
///     accounts: Repository<Account>,
/// }
///
/// #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
/// struct Move {
///     id: String,
///     amount: u64,
/// }
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// enum Todo {
///     Withdraw { account: String, amount: u64 },
///     Deposit { account: String, amount: u64 },
/// }
///
/// #[async_trait]
/// impl StepSaga for Moving {
///     const NAME: &'static str = "moving";
///     type Event = AccountEvent;
///     type Data = Move;
///     type Action = Todo;
///     type Answer = ();
///
///     fn correlate(event: &Recorded<AccountEvent>) -> Correlation {
///         match (event.stream.id().strip_prefix("from-"), &event.data) {
///             (Some(id), AccountEvent::Deposited { .. }) => Correlation::Starts(id.to_owned()),
///             _ => Correlation::None,
///         }
///     }
///
///     fn learn(data: &mut Move, event: &Recorded<AccountEvent>) {
///         if let AccountEvent::Deposited { amount } = event.data {
///             *data = Move { id: event.stream.id().replace("from-", ""), amount };
///         }
///     }
///
///     fn steps(_version: u32) -> Steps<Self> {
///         let withdraw = Step::<Self>::new("withdraw", |it| Todo::Withdraw { account: format!("from-{}", it.id), amount: it.amount })
///             .compensated_by(|it| Todo::Deposit { account: format!("from-{}", it.id), amount: it.amount })
///             .time_limit(Duration::from_secs(60));
///         let deposit = Step::<Self>::new("deposit", |it| Todo::Deposit { account: format!("to-{}", it.id), amount: it.amount });
///         Steps::new().step(withdraw).step(deposit)
///     }
///
///     async fn perform(&self, action: &Todo, context: ActionContext) -> Result<(), ActionError> {
///         let (account, command) = match action {
///             Todo::Withdraw { account, amount } => (account, AccountCommand::Withdraw(*amount)),
///             Todo::Deposit { account, amount } => (account, AccountCommand::Deposit(*amount)),
///         };
///         self.accounts.execute_with(account, command, context.command()?).await?;
///         Ok(())
///     }
/// }
/// # let builder = es_core::Service::builder("accounts", es_core::MemoryStore::new());
///
/// let builder = builder.aggregate::<Account>().saga(|shared| Moving { accounts: shared.repository() });
/// ```
#[async_trait]
pub trait StepSaga: Sized + Send + Sync + 'static {
    /// As [`Saga::NAME`].
    const NAME: &'static str;

    /// The versions of the steps that this code runs, as [`Saga::VERSIONS`].
    const VERSIONS: &'static [u32] = &[1];

    /// The events that start or continue an instance.
    type Event: EventSet;

    /// What an instance knows.
    type Data: Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What can be done in steps, and to take them back.
    type Action: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// What an action returns; `()` if that it was done is all there is to know.
    type Answer: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static;

    /// As [`Saga::identity`].
    fn identity() -> &'static str {
        type_name::<Self>()
    }

    /// Which instance an event concerns.
    fn correlate(event: &Recorded<Self::Event>) -> Correlation;

    /// What the instance knows from `event`: from the one that starts it, and from later ones. Pure.
    fn learn(data: &mut Self::Data, event: &Recorded<Self::Event>);

    /// What the instance knows since this step has failed, or since an operator (`None`) has it taken back, for what takes it back. Pure.
    fn failed(_data: &mut Self::Data, _step: Option<&str>, _reason: &str) {}

    /// The steps, as this one of the [`VERSIONS`](Self::VERSIONS) has them. Pure: always the same.
    fn steps(version: u32) -> Steps<Self>;

    /// The data under the last version, as [`Saga::migrate`]. Steps go on under their names.
    fn migrate(_version: u32, _data: &Self::Data) -> Option<Self::Data> {
        None
    }

    /// As [`Saga::perform`].
    ///
    /// # Errors
    /// [`ActionError`]. A refusal fails the step.
    ///
    /// # Cancel safety
    /// As [`Saga::perform`].
    async fn perform(&self, action: &Self::Action, context: ActionContext) -> Result<Self::Answer, ActionError>;

    /// How often `action` is attempted, and how long an attempt may take. After the last attempt at an action that takes a step back the
    /// others come first, whatever [`after_last`](Retry::after_last) says, and then the instance fails.
    fn retry(_action: &Self::Action) -> Retry {
        Retry::default()
    }
}

/// An action of a saga of steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepAction<A> {
    /// Of which step.
    pub step: String,
    /// How often the step was begun; more than once only if an operator has restarted from it.
    pub begun: u32,
    /// Whether it takes the step back.
    pub takes_back: bool,
    /// What is done.
    pub action: A,
}

impl<A> StepAction<A> {
    /// What the step does when it begins for the first time.
    pub fn of(step: &str, action: A) -> Self {
        Self { step: step.to_owned(), begun: 1, takes_back: false, action }
    }

    /// What takes the step back.
    pub fn back(step: &str, action: A) -> Self {
        Self { takes_back: true, ..Self::of(step, action) }
    }
}

#[async_trait]
impl<P: StepSaga> Saga for P {
    const NAME: &'static str = P::NAME;
    const VERSIONS: &'static [u32] = P::VERSIONS;
    type Event = P::Event;
    type State = Stepping<P::Data>;
    type Action = StepAction<P::Action>;
    type Answer = P::Answer;

    fn identity() -> &'static str {
        P::identity()
    }

    fn correlate(event: &Recorded<P::Event>) -> Correlation {
        P::correlate(event)
    }

    fn react(state: &mut Self::State, input: Input<'_, Self>) -> Result<Vec<Effect<Self::Action>>, BoxError> {
        <Self as Saga>::react_under(super::version::current_version::<Self>(), state, input)
    }

    fn react_under(
        version: u32,
        state: &mut Self::State,
        input: Input<'_, Self>,
    ) -> Result<Vec<Effect<Self::Action>>, BoxError> {
        stepping::react(&P::steps(version), state, &input)
    }

    fn migrate(version: u32, state: &Self::State) -> Option<Self::State> {
        let mut state = state.clone();
        state.data = P::migrate(version, &state.data)?;
        Some(state)
    }

    async fn perform(&self, action: &Self::Action, context: ActionContext) -> Result<P::Answer, ActionError> {
        P::perform(self, &action.action, context).await
    }

    fn retry(action: &Self::Action) -> Retry {
        let retry = P::retry(&action.action);
        if action.takes_back { Retry { after_last: AfterLast::Refuse, ..retry } } else { retry }
    }

    fn key(action: &Self::Action, _: u64) -> String {
        let StepAction { step, begun, takes_back, .. } = action;
        let back = if *takes_back { "-back" } else { "" };
        format!("{step}{back}.{begun}")
    }

    fn is_same(one: &Self::Action, other: &Self::Action) -> bool {
        (&one.step, one.begun, one.takes_back) == (&other.step, other.begun, other.takes_back)
    }

    fn decides_after_last(state: &Self::State, action: &Self::Action) -> bool {
        state.decides_after_last(action)
    }

    fn flaw() -> Option<String> {
        P::VERSIONS.iter().find_map(|version| P::steps(*version).flaw())
    }
}
