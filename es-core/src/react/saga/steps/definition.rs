//! What the steps of a saga are.

use std::{collections::BTreeSet, fmt, time::Duration};

use super::StepSaga;
use crate::{event::Recorded, read::definition::is_name};

/// The steps of the saga `S`, in their order.
pub struct Steps<S: StepSaga> {
    pub(super) groups: Vec<Vec<Step<S>>>,
}

impl<S: StepSaga> Steps<S> {
    /// None yet. A saga without steps completes at once.
    pub fn new() -> Self {
        Self { groups: Vec::new() }
    }

    /// This step begins when those before it are done.
    #[must_use]
    pub fn step(self, step: Step<S>) -> Self {
        self.together([step])
    }

    /// These steps begin at the same time, when those before them are done.
    #[must_use]
    pub fn together(mut self, steps: impl IntoIterator<Item = Step<S>>) -> Self {
        self.groups.push(steps.into_iter().collect());
        self
    }

    /// The step `name`, with the number of its group.
    pub(super) fn find(&self, name: &str) -> Option<(usize, &Step<S>)> {
        let mut groups = self.groups.iter().enumerate();
        groups.find_map(|(group, steps)| steps.iter().find(|step| step.name == name).map(|step| (group, step)))
    }

    /// What is wrong with them, for people.
    pub(super) fn flaw(&self) -> Option<String> {
        let mut names = BTreeSet::new();
        self.groups.iter().flatten().find_map(|Step { name, action, completed_by, .. }| {
            if !is_name(name) || name.ends_with("-back") {
                return Some(format!(
                    "{name:?} is no name of a step: 1 to 64 bytes of a-z, 0-9 and '-', not ending in \"-back\""
                ));
            }
            if !names.insert(*name) {
                return Some(format!("two steps are named {name:?}"));
            }
            let never_ends = action.is_none() && completed_by.is_none();
            never_ends.then(|| format!("the step {name:?} waits for an event, and completed_by does not say for which"))
        })
    }
}

impl<S: StepSaga> Default for Steps<S> {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: StepSaga> fmt::Debug for Steps<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.groups).finish()
    }
}

type MakesAction<S> = fn(&<S as StepSaga>::Data) -> <S as StepSaga>::Action;
type Learns<S> = fn(&mut <S as StepSaga>::Data, &<S as StepSaga>::Answer);
type LimitOf<S> = fn(&<S as StepSaga>::Data) -> Option<Duration>;
type Completes<S> = fn(&Recorded<<S as StepSaga>::Event>) -> bool;
type Fails<S> = fn(&Recorded<<S as StepSaga>::Event>) -> Option<String>;

/// A step of the saga `S`.
///
/// It is done when its action has an answer and, with [`completed_by`](Self::completed_by), the event has come. It fails when its action is
/// refused, with an event of [`failed_by`](Self::failed_by), or when its [time limit](Self::time_limit) is over.
pub struct Step<S: StepSaga> {
    pub(super) name: &'static str,
    pub(super) action: Option<MakesAction<S>>,
    pub(super) answered: Option<Learns<S>>,
    pub(super) completed_by: Option<Completes<S>>,
    pub(super) failed_by: Option<Fails<S>>,
    time_limit: Option<Duration>,
    time_limit_of: Option<LimitOf<S>>,
    pub(super) only_if: Option<fn(&S::Data) -> bool>,
    pub(super) compensation: Option<MakesAction<S>>,
    pub(super) importance: i32,
}

impl<S: StepSaga> Step<S> {
    /// A step that does what `action` returns. Its name is kept in the streams of instances: 1 to 64 bytes of `a-z`, `0-9` and `-`, not
    /// ending in `-back`.
    pub fn new(name: &'static str, action: fn(&S::Data) -> S::Action) -> Self {
        Self { action: Some(action), ..Self::waiting(name) }
    }

    /// A step that does nothing and waits for an event, which [`completed_by`](Self::completed_by) tells. One that has come before the step
    /// began does not count: learn it, and leave the step out with [`only_if`](Self::only_if).
    pub fn waiting(name: &'static str) -> Self {
        Self {
            name,
            action: None,
            answered: None,
            completed_by: None,
            failed_by: None,
            time_limit: None,
            time_limit_of: None,
            only_if: None,
            compensation: None,
            importance: 0,
        }
    }

    /// What the instance knows from the answer to the action.
    #[must_use]
    pub fn answered(self, learn: Learns<S>) -> Self {
        Self { answered: Some(learn), ..self }
    }

    /// The step is done when such an event has come and its action has an answer, whichever is first.
    #[must_use]
    pub fn completed_by(self, is_it: Completes<S>) -> Self {
        Self { completed_by: Some(is_it), ..self }
    }

    /// The step fails when an event comes for which this returns the reason. It counts as not done: its compensation is not performed, and
    /// its action is given up if it has no answer yet.
    #[must_use]
    pub fn failed_by(self, reason: Fails<S>) -> Self {
        Self { failed_by: Some(reason), ..self }
    }

    /// How long the step may take, all attempts at its action included (any time by default). Then it fails. Since it may have been done,
    /// or be done a moment later, its compensation is performed, when its action has an answer or has failed for good: it must do
    /// nothing where there is nothing to take back.
    #[must_use]
    pub fn time_limit(self, limit: Duration) -> Self {
        Self { time_limit: Some(limit), ..self }
    }

    /// As [`time_limit`](Self::time_limit), where the instance knows how long the step may take; `None` is any time.
    #[must_use]
    pub fn time_limit_of(self, limit: LimitOf<S>) -> Self {
        Self { time_limit_of: Some(limit), ..self }
    }

    /// How long the step may take.
    pub(super) fn limit(&self, data: &S::Data) -> Option<Duration> {
        self.time_limit_of.map_or(self.time_limit, |limit| limit(data))
    }

    /// The step is left out if this is not so when it would begin.
    #[must_use]
    pub fn only_if(self, is_so: fn(&S::Data) -> bool) -> Self {
        Self { only_if: Some(is_so), ..self }
    }

    /// What takes the step back. By default there is nothing to take back.
    #[must_use]
    pub fn compensated_by(self, action: MakesAction<S>) -> Self {
        Self { compensation: Some(action), ..self }
    }

    /// Which steps are taken back first: the more important ones. Those of one importance (0 by default) are taken back in the reverse
    /// order in which they began.
    #[must_use]
    pub fn importance(self, importance: i32) -> Self {
        Self { importance, ..self }
    }
}

impl<S: StepSaga> fmt::Debug for Step<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut step = f.debug_struct("Step");
        step.field("name", &self.name)
            .field("waits", &self.completed_by.is_some())
            .field("time_limit", &self.time_limit);
        step.field("compensated", &self.compensation.is_some())
            .field("importance", &self.importance)
            .finish_non_exhaustive()
    }
}
