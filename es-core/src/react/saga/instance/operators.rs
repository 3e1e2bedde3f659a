//! How an instance goes on after it has failed, and does what operators ask.

use super::Instance;
use crate::{
    error::with_causes,
    react::saga::{
        Ask, Input, Saga, SagaError, Status,
        event::{Advanced, Asked, Cause, Declined, Failed, SagaEvent},
    },
    write::aggregate::Aggregate,
};

/// How many of the events that wait are heard with one append.
const HEARD_TOGETHER: usize = 100;

impl<S: Saga> Instance<S> {
    /// What follows from the first of the events that wait, until it fails or ends.
    pub(super) fn hear(&self) -> Vec<SagaEvent<S>> {
        let (mut instance, mut events) = (self.clone(), Vec::new());
        for trigger in self.0.deferred.iter().take(HEARD_TOGETHER) {
            if !instance.is_under_way() {
                break;
            }
            let cause = Cause::Event(Box::new(trigger.clone()));
            let reacted = match trigger.recorded().decode::<S::Event>() {
                Ok(Some(event)) => instance.react(cause, Input::Event(&event)),
                // The saga does not listen to it any more.
                Ok(None) => instance.advanced(cause),
                Err(error) => Err(error.into()),
            };
            // It waits on in its place if it cannot be heard.
            let next = reacted.unwrap_or_else(|error| vec![SagaEvent::Failed(Failed { cause: with_causes(&*error) })]);
            let next = next.into_iter().filter(|event| !matches!(event, SagaEvent::Deferred(_)));
            for event in next {
                instance.apply(&event);
                events.push(event);
            }
        }
        events
    }

    /// What follows from what an operator has asked for, or why nothing does.
    fn obey(&self, asked: &Asked) -> Result<Vec<SagaEvent<S>>, String> {
        match (self.0.status, &asked.ask) {
            (None, _) => Err("the instance has not begun".to_owned()),
            (Some(status), _) if status.has_ended() => Err(format!("the instance has ended: {status}")),
            (Some(Status::Failed), Ask::Retry) => Ok(vec![SagaEvent::Resumed]),
            (Some(status), Ask::Retry) => Err(format!("the instance has not failed: {status}")),
            (Some(_), Ask::Cancel) => Ok(vec![SagaEvent::Cancelled(self.0.state.clone())]),
            (Some(_), Ask::Compensate | Ask::Skip { .. } | Ask::RestartFrom { .. }) => {
                let mut awake = self.clone();
                if self.0.status == Some(Status::Failed) {
                    awake.0.status = self.0.before;
                }
                let first = awake.react(Cause::Asked(asked.clone()), Input::Asked(asked));
                let first = first.map_err(|error| with_causes(&*error))?;
                match first.first() {
                    Some(SagaEvent::Advanced(Advanced { decided, state, .. }))
                        if !decided.is_empty() || *state != self.0.state || first.len() > 1 =>
                    {
                        Ok(first)
                    }
                    Some(SagaEvent::Failed(Failed { cause })) => Err(cause.clone()),
                    _ => Err("the saga decides nothing on that".to_owned()),
                }
            }
        }
    }

    /// What follows from all that operators have asked for.
    pub(super) fn obey_all(&self) -> Vec<SagaEvent<S>> {
        let (mut instance, mut events) = (self.clone(), Vec::new());
        for asked in &self.0.asked {
            let follows = instance.obey(asked);
            let follows = follows.unwrap_or_else(|cause| vec![SagaEvent::Declined(Declined { cause })]);
            for event in &follows {
                instance.apply(event);
            }
            events.extend(follows);
        }
        events
    }

    /// Writes what an operator asks for, and what follows.
    pub(super) fn ask(&self, asked: &Asked) -> Result<Vec<SagaEvent<S>>, SagaError> {
        let mut instance = self.clone();
        let asks = SagaEvent::Asked(asked.clone());
        instance.apply(&asks);
        let follows = instance.obey_all();
        if let Some(SagaEvent::Declined(Declined { cause })) = follows.last() {
            return Err(SagaError::Declined { ask: asked.ask.clone(), cause: cause.clone() });
        }
        Ok([asks].into_iter().chain(follows).collect())
    }
}
