//! What becomes of the steps of an instance.

use serde::{Deserialize, Serialize};

use super::{Step, StepAction, StepSaga, Steps};
use crate::{
    error::BoxError,
    event::Recorded,
    react::saga::{Ask, Asked, Effect, Input},
};

/// The state of an instance of a [`StepSaga`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stepping<D> {
    /// What it knows.
    pub data: D,
    /// The steps that have begun or were left out, in that order. One may be there several times: an operator has restarted from it.
    taken: Vec<Taken<D>>,
    /// Why it takes back what was done, if it does.
    failure: Option<String>,
}

/// A step that has begun or was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Taken<D> {
    step: String,
    /// Which time it was begun.
    begun: u32,
    how: How,
    /// What the instance knew when an operator restarted from it, or from a step before it. Since then only what it has done counts, and
    /// that is taken back with this.
    former: Option<D>,
}

/// How a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum How {
    /// It has begun, and its action has no answer yet.
    Begun,
    /// It waits for its event.
    Waits,
    /// Its event has come, and its action has no answer yet.
    Heard,
    /// It is done.
    Done,
    /// It was left out, or an operator has skipped it.
    LeftOut,
    /// It took too long, or was given up, and its action has no answer yet.
    Late,
    /// It may be done, and is to be taken back.
    Unsure,
    /// It has failed, and there is nothing to take back.
    Failed,
    /// It is being taken back.
    TakingBack,
    /// It was not taken back: that was refused.
    Kept,
    /// It was taken back, or there was nothing to do for that.
    TakenBack,
}

impl How {
    /// Whether there may be something to take back that was not tried to be taken back.
    fn may_be_done(self) -> bool {
        matches!(self, Self::Done | Self::Unsure)
    }

    fn was_kept(self) -> bool {
        self == Self::Kept
    }
}

type Effects<S> = Vec<Effect<StepAction<<S as StepSaga>::Action>>>;

impl<D> Stepping<D> {
    /// Why it takes back what was done, if it does.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The steps that are done, in the order in which they began.
    pub fn done(&self) -> impl Iterator<Item = &str> {
        let done = self.taken.iter().filter(|taken| taken.how == How::Done && taken.former.is_none());
        done.map(|taken| taken.step.as_str())
    }

    /// The steps that are under way: they go forward or are being taken back.
    pub fn under_way(&self) -> impl Iterator<Item = &str> {
        let is_under_way = |how| matches!(how, How::Begun | How::Waits | How::Heard | How::Late | How::TakingBack);
        self.taken.iter().filter(move |taken| is_under_way(taken.how)).map(|taken| taken.step.as_str())
    }

    /// Where a step is, if it has begun or was left out.
    fn place(&self, step: &str) -> Option<usize> {
        self.taken.iter().position(|taken| taken.step == step && taken.former.is_none())
    }

    /// Whether the saga itself decides what follows when the last attempt at `action` has failed: the step waits for nothing else.
    pub(super) fn decides_after_last<A>(&self, action: &StepAction<A>) -> bool {
        let is_its = |taken: &&Taken<D>| taken.step == action.step && taken.begun == action.begun;
        let taken = self.taken.iter().find(is_its);
        !action.takes_back && taken.is_some_and(|taken| matches!(taken.how, How::Late | How::Heard))
    }
}

/// What follows from `input`.
pub(super) fn react<S: StepSaga>(
    steps: &Steps<S>,
    state: &mut Stepping<S::Data>,
    input: &Input<'_, S>,
) -> Result<Effects<S>, BoxError> {
    let mut course = Course { steps, state, effects: Vec::new() };
    match input {
        Input::Event(event) => {
            S::learn(&mut course.state.data, event);
            course.hears(event);
        }
        Input::Answered { action, answer } => course.answered(action, answer)?,
        Input::Refused { action, reason, may_be_done } => course.refused(action, reason, *may_be_done)?,
        Input::Timer { name, .. } => course.late(name),
        Input::Asked(asked) => course.asked(asked)?,
    }
    course.go_on()?;
    Ok(course.effects)
}

struct Course<'a, S: StepSaga> {
    steps: &'a Steps<S>,
    state: &'a mut Stepping<S::Data>,
    effects: Effects<S>,
}

impl<'a, S: StepSaga> Course<'a, S> {
    fn hears(&mut self, event: &Recorded<S::Event>) {
        for index in 0..self.state.taken.len() {
            let Taken { step, how: How::Begun | How::Waits, .. } = &self.state.taken[index] else { continue };
            let Some((_, definition)) = self.steps.find(step) else { continue };
            if let Some(reason) = definition.failed_by.and_then(|fails| fails(event)) {
                self.leave(index, How::Failed);
                self.fails(index, &reason);
            } else if definition.completed_by.is_some_and(|completes| completes(event)) {
                let awaits_answer = self.state.taken[index].how == How::Begun && definition.action.is_some();
                self.over(index, if awaits_answer { How::Heard } else { How::Done });
            }
        }
    }

    fn answered(&mut self, action: &StepAction<S::Action>, answer: &S::Answer) -> Result<(), BoxError> {
        let Some((index, definition)) = self.step_of(action)? else { return Ok(()) };
        if let Some(learn) = definition.answered.filter(|_| !action.takes_back) {
            learn(&mut self.state.data, answer);
        }
        match self.state.taken[index].how {
            How::TakingBack if action.takes_back => self.state.taken[index].how = How::TakenBack,
            How::Begun if definition.completed_by.is_some() => self.state.taken[index].how = How::Waits,
            How::Begun => self.over(index, How::Done),
            How::Heard => self.state.taken[index].how = How::Done,
            How::Late => self.state.taken[index].how = How::Unsure,
            _ => {}
        }
        Ok(())
    }

    fn refused(&mut self, action: &StepAction<S::Action>, reason: &str, may_be_done: bool) -> Result<(), BoxError> {
        let Some((index, _)) = self.step_of(action)? else { return Ok(()) };
        match self.state.taken[index].how {
            How::TakingBack if action.takes_back => {
                self.state.taken[index].how = How::Kept;
                let awaits_answer = self.state.taken.iter().any(|taken| taken.how == How::Late);
                if !awaits_answer && self.next_back(How::may_be_done)?.is_none() {
                    // When the instance goes on, this action is performed again, and then those that were refused before.
                    self.effects.push(Effect::Fail { cause: self.kept(reason) });
                }
            }
            How::Begun => {
                self.over(index, if may_be_done { How::Unsure } else { How::Failed });
                self.fails(index, reason);
            }
            How::Heard => self.state.taken[index].how = How::Done,
            How::Late => self.state.taken[index].how = if may_be_done { How::Unsure } else { How::Failed },
            _ => {}
        }
        Ok(())
    }

    /// Which steps were not taken back, the last of them for `reason`.
    fn kept(&self, reason: &str) -> String {
        let kept = self.state.taken.iter().filter(|taken| taken.how == How::Kept);
        let kept: Vec<_> = kept.map(|taken| taken.step.as_str()).collect();
        format!("what was done in {} was not taken back: {reason}", kept.join(", "))
    }

    /// The time limit of a step is over.
    fn late(&mut self, step: &str) {
        let Some(index) = self.state.place(step) else { return };
        let limit = self.steps.find(step).and_then(|(_, step)| step.limit(&self.state.data)).unwrap_or_default();
        self.state.taken[index].how = match self.state.taken[index].how {
            How::Begun if self.action(index, false).is_some() => How::Late,
            How::Begun => How::Failed,
            How::Waits => How::Unsure,
            _ => return,
        };
        self.fails(index, &format!("not done within {limit:?}"));
    }

    fn asked(&mut self, Asked { ask, actor, reason }: &Asked) -> Result<(), BoxError> {
        match ask {
            Ask::Compensate => {
                if self.state.failure.is_none() {
                    S::failed(&mut self.state.data, None, reason);
                    self.state.failure = Some(format!("{actor}: {reason}"));
                    self.effects.push(Effect::Compensate);
                } else if !self.state.taken.iter().any(|taken| taken.how == How::Late) {
                    return Err("it does so already".into());
                }
                for index in 0..self.state.taken.len() {
                    match self.state.taken[index].how {
                        How::Begun if self.action(index, false).is_none() => self.leave(index, How::Failed),
                        How::Begun | How::Waits | How::Heard | How::Late => self.leave(index, How::Unsure),
                        _ => {}
                    }
                }
                Ok(())
            }
            Ask::Skip { step } => {
                let index = self.state.place(step).ok_or_else(|| format!("the step {step:?} has not begun"))?;
                match self.state.taken[index].how {
                    How::Begun | How::Waits | How::Heard => self.leave(index, How::LeftOut),
                    How::TakingBack | How::Kept | How::Late | How::Unsure => self.leave(index, How::TakenBack),
                    _ => return Err(format!("the step {step:?} is not under way").into()),
                }
                Ok(())
            }
            Ask::RestartFrom { step } => self.restart_from(step),
            Ask::Retry | Ask::Cancel => Err("a saga is not asked for that".into()),
        }
    }

    fn restart_from(&mut self, step: &str) -> Result<(), BoxError> {
        let (from, _) = self.steps.find(step).ok_or_else(|| format!("the saga has no step {step:?}"))?;
        for before in self.steps.groups[..from].iter().flatten() {
            let how = self.state.place(before.name).map(|index| self.state.taken[index].how);
            if !matches!(how, Some(How::Done | How::LeftOut)) {
                return Err(format!("the step {:?} before it is not done: restart from that", before.name).into());
            }
        }
        for index in 0..self.state.taken.len() {
            let taken = &self.state.taken[index];
            let is_before = self.steps.find(&taken.step).is_some_and(|(group, _)| group < from);
            if is_before || taken.former.is_some() {
                continue;
            }
            match taken.how {
                How::Begun | How::Waits | How::Heard | How::Late | How::TakingBack => self.leave(index, How::Unsure),
                How::Kept => self.state.taken[index].how = How::Unsure,
                _ => {}
            }
            // What it may have done is taken back with the rest, if it comes to that.
            self.state.taken[index].former = Some(self.state.data.clone());
        }
        if self.state.failure.take().is_some() {
            self.effects.push(Effect::Proceed);
        }
        Ok(())
    }

    /// What begins now.
    fn go_on(&mut self) -> Result<(), BoxError> {
        if self.effects.iter().any(|effect| matches!(effect, Effect::Fail { .. })) {
            return Ok(());
        }
        if self.state.failure.is_some() {
            return self.go_back();
        }
        self.go_forward();
        Ok(())
    }

    fn go_forward(&mut self) {
        for group in &self.steps.groups {
            for step in group {
                if self.state.place(step.name).is_some() {
                    continue;
                }
                let before = self.state.taken.iter().filter(|taken| taken.step == step.name).count();
                let begun = u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1);
                let is_left_out = step.only_if.is_some_and(|is_so| !is_so(&self.state.data));
                let how = if is_left_out { How::LeftOut } else { How::Begun };
                self.state.taken.push(Taken { step: step.name.to_owned(), begun, how, former: None });
                if is_left_out {
                    continue;
                }
                let index = self.state.taken.len() - 1;
                self.effects.extend(self.action(index, false).map(Effect::Perform));
                let limit =
                    step.limit(&self.state.data).map(|after| Effect::SetTimer { name: step.name.to_owned(), after });
                self.effects.extend(limit);
            }
            let is_over = |step: &Step<S>| {
                let taken = self.state.place(step.name).map(|index| &self.state.taken[index]);
                taken.is_some_and(|taken| matches!(taken.how, How::Done | How::LeftOut))
            };
            if !group.iter().all(is_over) {
                return;
            }
        }
        self.effects.push(Effect::End);
    }

    fn go_back(&mut self) -> Result<(), BoxError> {
        // One after the other; and what may still be done is not taken back before that is known.
        if self.state.taken.iter().any(|taken| matches!(taken.how, How::TakingBack | How::Late)) {
            return Ok(());
        }
        let next = self.next_back(How::may_be_done)?;
        let next = if next.is_none() { self.next_back(How::was_kept)? } else { next };
        let Some(index) = next else {
            self.effects.push(Effect::End);
            return Ok(());
        };
        self.state.taken[index].how = How::TakingBack;
        self.effects.extend(self.action(index, true).map(Effect::Perform));
        Ok(())
    }

    /// The step that is taken back first of those that are `so`.
    fn next_back(&self, so: fn(How) -> bool) -> Result<Option<usize>, BoxError> {
        let mut first = None;
        for (index, taken) in self.state.taken.iter().enumerate().filter(|(_, taken)| so(taken.how)) {
            let definition = self.steps.find(&taken.step).map(|(_, definition)| definition);
            let definition = definition
                .ok_or_else(|| format!("the saga has no step {:?}, which is to be taken back", taken.step))?;
            if definition.compensation.is_some() {
                first = first.max(Some((definition.importance, index)));
            }
        }
        Ok(first.map(|(_, index)| index))
    }

    /// The step at `index` has failed.
    fn fails(&mut self, index: usize, reason: &str) {
        if self.state.failure.is_some() {
            return;
        }
        let step = &self.state.taken[index].step;
        S::failed(&mut self.state.data, Some(step), reason);
        self.state.failure = Some(format!("{step}: {reason}"));
        self.effects.push(Effect::Compensate);
        // The steps beside it are taken back when their actions have an answer.
        for other in 0..self.state.taken.len() {
            match self.state.taken[other].how {
                How::Begun if self.action(other, false).is_some() => self.over(other, How::Late),
                How::Heard => self.state.taken[other].how = How::Late,
                How::Begun => self.leave(other, How::Failed),
                How::Waits => self.leave(other, How::Unsure),
                _ => {}
            }
        }
    }

    /// The time limit of the step at `index` does not count any more, and so the step is.
    fn over(&mut self, index: usize, how: How) {
        self.state.taken[index].how = how;
        self.no_limit(index);
    }

    /// Nothing of the step at `index` is waited for any more, and so it is.
    fn leave(&mut self, index: usize, how: How) {
        let was = std::mem::replace(&mut self.state.taken[index].how, how);
        if matches!(was, How::Begun | How::Waits) {
            self.no_limit(index);
        }
        let given_up = match was {
            How::Begun | How::Heard | How::Late => self.action(index, false),
            How::TakingBack => self.action(index, true),
            _ => None,
        };
        self.effects.extend(given_up.map(Effect::GiveUp));
    }

    fn no_limit(&mut self, index: usize) {
        let name = &self.state.taken[index].step;
        if self.steps.find(name).is_some_and(|(_, step)| step.limit(&self.state.data).is_some()) {
            self.effects.push(Effect::CancelTimer { name: name.clone() });
        }
    }

    /// What the step at `index` does, or what takes it back.
    fn action(&self, index: usize, takes_back: bool) -> Option<StepAction<S::Action>> {
        let Taken { step, begun, former, .. } = &self.state.taken[index];
        let (_, definition) = self.steps.find(step)?;
        let action = if takes_back { definition.compensation } else { definition.action }?;
        let action = action(former.as_ref().unwrap_or(&self.state.data));
        Some(StepAction { step: step.clone(), begun: *begun, takes_back, action })
    }

    /// Where the step of `action` is, if it waits for an answer.
    fn step_of(&self, action: &StepAction<S::Action>) -> Result<Option<(usize, &'a Step<S>)>, BoxError> {
        let is_its = |taken: &Taken<S::Data>| taken.step == action.step && taken.begun == action.begun;
        let awaits = |how| matches!(how, How::Begun | How::Heard | How::Late | How::TakingBack);
        let index = self.state.taken.iter().position(is_its).filter(|index| awaits(self.state.taken[*index].how));
        let Some(index) = index else { return Ok(None) };
        let definition = self.steps.find(&action.step).map(|(_, definition)| definition);
        let definition = definition.ok_or_else(|| format!("the saga has no step {:?}", action.step))?;
        Ok(Some((index, definition)))
    }
}
