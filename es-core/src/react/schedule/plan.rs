//! A plan as a saga: it waits for times, and runs its command.

use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{Every, Schedule};
use crate::{
    codec,
    error::BoxError,
    event::{Categories, EventData, EventSet, Recorded, RecordedEvent},
    react::saga::{ActionContext, ActionError, AfterLast, Correlation, Effect, Input, Retry, Saga, SagaError},
    schema::Undecodable,
    stream::{Position, StreamId, Version},
    write::execute::CommandContext,
};

/// The name of the timer of a plan.
const DUE: &str = "due";
/// The category of the streams that plans are set in. It is in no log: what is planned is in the stream of the plan.
const CATEGORY: &str = "schedule";
/// The wire name of what is planned.
const PLANNED: &str = "schedule.planned";

/// What is planned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan<C> {
    /// What is to be done.
    pub command: C,
    /// When.
    pub when: When,
}

/// When something is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// At this time.
    At(DateTime<Utc>),
    /// So long after it was planned.
    After(Duration),
    /// Again and again.
    Every(Every),
}

/// How a plan is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Planned<C> {
    /// The plan; `None` before it was made.
    pub plan: Option<Plan<C>>,
    /// When it is run next.
    pub next: Option<DateTime<Utc>>,
    /// How many runs there were.
    pub runs: u64,
    /// How many are to follow the one that is under way.
    pub waiting: u32,
    /// Whether one is under way.
    pub is_running: bool,
}

impl<C> Default for Planned<C> {
    fn default() -> Self {
        Self { plan: None, next: None, runs: 0, waiting: 0, is_running: false }
    }
}

/// One run of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run<C> {
    /// Which; the first is 1.
    pub run: u64,
    /// Whether others follow, whatever becomes of it.
    pub is_one_of_many: bool,
    /// What is to be done.
    pub command: C,
}

impl<C: Serialize> Plan<C> {
    /// The event that plans it as `id` at `now`. It is only in the stream of the plan.
    pub(super) fn set(
        &self,
        id: &str,
        now: DateTime<Utc>,
        context: &CommandContext,
    ) -> Result<RecordedEvent, SagaError> {
        let stream = StreamId::new(CATEGORY, id).map_err(|error| SagaError::Reaction(error.into()))?;
        let payload = serde_json::to_vec(self).map_err(|error| SagaError::Reaction(error.into()))?;
        Ok(RecordedEvent {
            position: Position::ZERO,
            stream,
            version: Version::ZERO,
            id: Uuid::now_v7(),
            recorded_at: now,
            metadata: context.metadata.clone(),
            data: EventData { name: PLANNED.into(), schema_version: 1, payload: payload.into() },
        })
    }
}

impl<C: DeserializeOwned + Send + Sync + 'static> EventSet for Plan<C> {
    fn categories() -> Categories {
        Categories::Only(vec![CATEGORY])
    }

    fn from_recorded(event: &RecordedEvent) -> Result<Option<Self>, Undecodable> {
        codec::decode(&event.data.payload).map(Some).map_err(Undecodable::Shape)
    }
}

/// The saga whose instances are the plans of the schedule `S`.
#[derive(Debug)]
pub struct Planning<S>(S);

impl<S> Planning<S> {
    pub(crate) fn new(schedule: S) -> Self {
        Self(schedule)
    }
}

#[async_trait]
impl<S: Schedule> Saga for Planning<S> {
    const NAME: &'static str = S::NAME;
    type Event = Plan<S::Command>;
    type State = Planned<S::Command>;
    type Action = Run<S::Command>;
    type Answer = ();

    fn identity() -> &'static str {
        crate::read::definition::type_name::<S>()
    }

    fn correlate(event: &Recorded<Plan<S::Command>>) -> Correlation {
        Correlation::Starts(event.stream.id().to_owned())
    }

    fn react(state: &mut Self::State, input: Input<'_, Self>) -> Result<Vec<Effect<Self::Action>>, BoxError> {
        match input {
            Input::Event(event) => planned(state, event),
            Input::Timer { at, .. } => due(state, at),
            Input::Answered { .. } => Ok(ran(state)),
            Input::Refused { action, .. } if action.is_one_of_many => Ok(ran(state)),
            Input::Refused { reason, .. } => Ok(vec![Effect::Fail { cause: reason.to_owned() }]),
            Input::Asked(_) => Ok(Vec::new()),
        }
    }

    async fn perform(&self, run: &Self::Action, context: ActionContext) -> Result<(), ActionError> {
        self.0.run(&run.command, context).await
    }

    fn retry(run: &Self::Action) -> Retry {
        let retry = S::retry(&run.command);
        if run.is_one_of_many { Retry { after_last: AfterLast::Refuse, ..retry } } else { retry }
    }
}

type Effects<C> = Vec<Effect<Run<C>>>;

fn wake<C>(at: DateTime<Utc>, now: DateTime<Utc>) -> Effect<Run<C>> {
    Effect::SetTimer { name: DUE.to_owned(), after: (at - now).to_std().unwrap_or_default() }
}

fn planned<C: Clone>(state: &mut Planned<C>, event: &Recorded<Plan<C>>) -> Result<Effects<C>, BoxError> {
    let (plan, now) = (event.data.clone(), event.recorded_at);
    let next = match &plan.when {
        When::At(time) => *time,
        When::After(delay) => {
            let delay = chrono::TimeDelta::from_std(*delay).ok();
            delay.and_then(|delay| now.checked_add_signed(delay)).unwrap_or(DateTime::<Utc>::MAX_UTC)
        }
        When::Every(every) => every.after(now)?,
    };
    (state.plan, state.next) = (Some(plan), Some(next));
    Ok(vec![wake(next, now)])
}

fn due<C: Clone>(state: &mut Planned<C>, now: DateTime<Utc>) -> Result<Effects<C>, BoxError> {
    let (Some(plan), Some(due)) = (&state.plan, state.next) else { return Ok(Vec::new()) };
    let mut effects = Vec::new();
    let runs = if let When::Every(every) = &plan.when {
        let (runs, next) = every.due(due, now)?;
        state.next = Some(next);
        effects.push(wake(next, now));
        // While one is under way, others may be missed.
        if every.is_once() && state.is_running { 1_u32.saturating_sub(state.waiting) } else { runs }
    } else {
        state.next = None;
        1
    };
    state.waiting = state.waiting.saturating_add(runs).min(Every::MOST_MISSED);
    effects.extend(next_run(state));
    Ok(effects)
}

/// The run that is under way has ended.
fn ran<C: Clone>(state: &mut Planned<C>) -> Effects<C> {
    state.is_running = false;
    let next = next_run(state);
    // A plan that was made anew meanwhile is run again.
    if next.is_none() && state.next.is_none() { vec![Effect::End] } else { next.into_iter().collect() }
}

fn next_run<C: Clone>(state: &mut Planned<C>) -> Option<Effect<Run<C>>> {
    let plan = state.plan.as_ref().filter(|_| state.waiting > 0 && !state.is_running)?;
    (state.waiting, state.runs, state.is_running) = (state.waiting - 1, state.runs + 1, true);
    let is_one_of_many = matches!(plan.when, When::Every(_));
    Some(Effect::Perform(Run { run: state.runs, is_one_of_many, command: plan.command.clone() }))
}
