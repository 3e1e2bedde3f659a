//! `es sagas show`.

use std::{collections::BTreeMap, fmt::Write};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use es_core::{
    RecordedEvent, ServiceStore, Version,
    react::saga::{Advanced, Asked, Attempted, Cause, Decided, Declined, Failed, Trigger},
};
use serde_json::{Value, from_slice};

use super::{named, stream};
use crate::{
    end::{CommandError, Outcome},
    event::Shown,
    output::Output,
    time,
};

/// How many events are read at a time.
const PAGE: usize = 500;

/// An instance, and how it is shown.
#[derive(Debug, Clone, Args)]
pub(crate) struct Timeline {
    /// The saga
    saga: String,

    /// The id of the instance
    instance: String,

    #[command(flatten)]
    shown: Shown,
}

impl Timeline {
    pub(crate) async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        let saga = named(store, &self.saga).await?;
        let stream = stream(&saga, &self.instance).await?;
        let (mut at, mut actions) = (Version::ZERO, Actions::default());
        loop {
            let events = store.read_stream(&stream, at, PAGE).await?;
            let Some(last) = events.last() else { break };
            at = last.version;
            if self.shown.is_json() {
                self.shown.print(&events, output)?;
                continue;
            }
            for event in &events {
                let time = time::text(event.recorded_at);
                for (line, text) in told(event, &mut actions).into_iter().enumerate() {
                    let time = if line == 0 { time.as_str() } else { "" };
                    output.line(format_args!("{time:24}  {text}"))?;
                }
                if self.shown.has_data() {
                    output.line(format_args!("{:24}  {}", "", String::from_utf8_lossy(&event.data.payload)))?;
                }
            }
        }
        output.flush()?;
        Ok(Outcome::Well)
    }
}

/// What the actions of an instance are, by their numbers.
#[derive(Default)]
struct Actions(BTreeMap<u64, String>);

impl Actions {
    fn name(&self, number: u64) -> String {
        self.0.get(&number).cloned().unwrap_or_else(|| format!("action {number}"))
    }
}

/// What `event` tells, a line for each thing.
fn told(event: &RecordedEvent, actions: &mut Actions) -> Vec<String> {
    let payload = &event.data.payload;
    let told = match &*event.data.name {
        "saga.advanced" => from_slice(payload).map(|advanced| self::advanced(&advanced, event.recorded_at, actions)),
        "saga.attempted" => from_slice(payload).map(|Attempted { action, attempts, cause, again_after, .. }| {
            let again =
                again_after.map_or_else(|| "it was the last".to_owned(), |after| format!("again after {after:?}"));
            vec![format!("attempt {attempts} at {} has failed ({again}): {cause}", actions.name(action))]
        }),
        "saga.failed" => from_slice(payload).map(|Failed { cause }| vec![format!("has failed: {cause}")]),
        "saga.deferred" => from_slice(payload).map(|waits: Trigger| vec![format!("{} waits", trigger(&waits))]),
        "saga.asked" => from_slice(payload).map(|asked| vec![self::asked(&asked)]),
        "saga.declined" => from_slice(payload).map(|Declined { cause }| vec![format!("declines: {cause}")]),
        "saga.resumed" => Ok(vec!["goes on where it has failed".to_owned()]),
        "saga.cancelled" => Ok(vec!["has ended: cancelled, and nothing was taken back".to_owned()]),
        "saga.completed" => Ok(vec!["has ended: completed".to_owned()]),
        "saga.compensated" => Ok(vec!["has ended: compensated".to_owned()]),
        other => Ok(vec![other.to_owned()]),
    };
    told.unwrap_or_else(|_| vec![format!("{} v{}, in another form", event.data.name, event.data.schema_version)])
}

fn advanced(
    Advanced { cause, decided, .. }: &Advanced<Value, Value, Value>,
    at: DateTime<Utc>,
    actions: &mut Actions,
) -> Vec<String> {
    let mut lines = vec![match cause {
        Cause::Event(event) => trigger(event),
        Cause::Answered { action, .. } => format!("{} was done", actions.name(*action)),
        Cause::Refused { action, may_be_done: true, .. } => format!("{} may have been done", actions.name(*action)),
        Cause::Refused { action, reason, .. } => format!("{} was refused: {reason}", actions.name(*action)),
        Cause::Timer { name, .. } => format!("the time of {name} has come"),
        Cause::Asked(asked) => format!("does what {} has asked for: {}", asked.actor, asked.ask),
    }];
    for decided in decided {
        lines.push(match decided {
            Decided::Perform { number, action } => {
                actions.0.insert(*number, name(*number, action));
                format!("  begins {}", actions.name(*number))
            }
            Decided::SetTimer { name, after, .. } => {
                let due = TimeDelta::from_std(*after).ok().and_then(|after| at.checked_add_signed(after));
                let due = due.map_or_else(|| format!("after {after:?}"), |due| format!("at {}", time::text(due)));
                format!("  sets the timer {name} {due}")
            }
            Decided::CancelTimer { name } => format!("  cancels the timer {name}"),
            Decided::GiveUp { number } => format!("  gives up {}", actions.name(*number)),
            Decided::Compensate => "  compensates from now on".to_owned(),
            Decided::Proceed => "  goes forward again".to_owned(),
        });
    }
    lines
}

fn asked(Asked { ask, actor, reason }: &Asked) -> String {
    format!("{actor} asks: {ask} ({reason})")
}

/// `order.placed v2 (order-7, version 1)`.
fn trigger(event: &Trigger) -> String {
    format!("{} v{} ({}, version {})", event.name, event.schema_version, event.stream, event.version.get())
}

/// What an action is, without what it holds: the name of its step, or of the variant of an enum.
fn name(number: u64, action: &Value) -> String {
    let mut name = match (action.get("step").and_then(Value::as_str), action) {
        (Some(step), _) if action.get("takes_back") == Some(&Value::Bool(true)) => format!("what takes back {step}"),
        (Some(step), _) => step.to_owned(),
        (None, Value::String(variant)) => variant.clone(),
        (None, Value::Object(fields)) if fields.len() == 1 => fields.keys().cloned().collect(),
        (None, _) => "an action".to_owned(),
    };
    let _ = write!(name, " (action {number})");
    name
}
