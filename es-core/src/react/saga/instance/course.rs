//! How an instance goes: what its events have made of it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    event::Metadata,
    react::saga::{
        Status,
        event::{Asked, Cause, Decided, Trigger},
        queue::Attempts,
    },
};

/// How an instance goes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Course<T, A> {
    /// `None`: it has not begun.
    pub(super) status: Option<Status>,
    pub(super) state: T,
    /// Why it has failed.
    pub(super) cause: Option<String>,
    /// In what it has failed, to go on there.
    pub(super) before: Option<Status>,
    /// The actions that have no answer yet, by their numbers.
    pub(super) actions: BTreeMap<u64, Waiting<A>>,
    /// The timers that are set, each with the number of that.
    pub(super) timers: BTreeMap<String, u64>,
    /// The events that have come since it has failed.
    pub(super) deferred: VecDeque<Trigger>,
    /// What operators have asked for, and it has not done yet.
    pub(super) asked: Vec<Asked>,
    /// How many actions and timers there were.
    pub(super) numbers: u64,
    /// Under which version of the definition it is.
    pub(super) version: u32,
    /// What its events and actions carry.
    pub(super) metadata: Metadata,
}

/// An action that has no answer yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Waiting<A> {
    /// The action.
    pub action: A,
    /// How many attempts at it have failed, since operators have let it be attempted anew last.
    pub attempts: u32,
    /// How often operators have done that.
    pub rounds: u32,
    /// What it carries.
    pub metadata: Metadata,
}

impl<A> Waiting<A> {
    pub(in crate::react::saga) fn attempted(&self) -> Attempts {
        Attempts { rounds: self.rounds, failed: self.attempts }
    }
}

impl<T, A: Clone> Course<T, A> {
    /// What is done because of this cause carries the metadata that it returns.
    pub(super) fn heard<R>(&mut self, cause: &Cause<R>) -> Metadata {
        match cause {
            Cause::Event(trigger) => {
                let metadata = Metadata::caused_by(&trigger.recorded());
                if self.deferred.front().is_some_and(|first| first.id == trigger.id) {
                    self.deferred.pop_front();
                }
                if self.status.is_none() {
                    self.status = Some(Status::Started);
                    self.metadata = Metadata { causation_id: None, ..metadata.clone() };
                }
                return metadata;
            }
            Cause::Answered { action, .. } | Cause::Refused { action, .. } => {
                self.actions.remove(action);
                if self.status == Some(Status::Started) {
                    self.status = Some(Status::Executing);
                }
            }
            Cause::Timer { name, .. } => _ = self.timers.remove(name),
            Cause::Asked(_) => {
                self.obeyed();
                self.wake();
            }
        }
        self.metadata.clone()
    }

    /// It has done what an operator asked for first.
    pub(super) fn obeyed(&mut self) {
        if !self.asked.is_empty() {
            self.asked.remove(0);
        }
    }

    /// If it has failed, it goes on.
    pub(super) fn wake(&mut self) {
        if self.status != Some(Status::Failed) {
            return;
        }
        (self.status, self.cause) = (self.before.take(), None);
        for waiting in self.actions.values_mut() {
            (waiting.rounds, waiting.attempts) = (waiting.rounds + 1, 0);
        }
    }

    pub(super) fn decided(&mut self, decided: &Decided<A>, metadata: &Metadata) {
        match decided {
            Decided::Perform { number, action } => {
                self.numbers = *number;
                let waiting = Waiting { action: action.clone(), attempts: 0, rounds: 0, metadata: metadata.clone() };
                self.actions.insert(*number, waiting);
            }
            Decided::SetTimer { number, name, .. } => {
                self.numbers = *number;
                self.timers.insert(name.clone(), *number);
            }
            Decided::CancelTimer { name } => _ = self.timers.remove(name),
            Decided::GiveUp { number } => _ = self.actions.remove(number),
            Decided::Compensate => self.status = Some(Status::Compensating),
            Decided::Proceed => self.status = Some(Status::Executing),
        }
    }

    pub(super) fn end(&mut self, status: Status) {
        self.status = Some(status);
        self.cause = None;
        self.actions.clear();
        self.timers.clear();
        self.deferred.clear();
    }
}
