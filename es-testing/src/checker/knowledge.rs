//! What a client knows of the log from its answers.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    content::{self, Basis, Origin},
    draft::{Draft, Expect, Look},
    history::Outcome,
    plan::Plan,
    sent::{Expectation, Sent},
};
use es_core::StreamId;

/// The end of a stream: its version, and the last event if an answer named it.
type End = (u64, Option<Uuid>);

#[derive(Debug, Default)]
pub(super) struct Knowledge {
    streams: HashMap<StreamId, End>,
    /// The state of the streams if all appends that are about to be sent are written.
    supposed: HashMap<StreamId, End>,
    /// The last position in any answer.
    position: u64,
}

impl Knowledge {
    pub(super) fn version(&self, stream: &StreamId) -> u64 {
        self.end(stream).0
    }

    fn end(&self, stream: &StreamId) -> End {
        self.supposed.get(stream).or_else(|| self.streams.get(stream)).copied().unwrap_or_default()
    }

    /// The position after which a query applies.
    pub(super) fn after(&self, look: &Look) -> u64 {
        look.back.map_or(0, |back| self.position.saturating_sub(back))
    }

    /// The state on which an append of the plan is decided now.
    pub(super) fn basis(&self, plan: &Plan, origin: Origin, draft: &Draft) -> Basis {
        let (version, last) = self.end(&plan.stream(draft.stream));
        let expected = match draft.expect {
            Expect::Known => Expectation::Exact(version),
            Expect::Last => {
                last.map_or(Expectation::Exact(version), |event_id| Expectation::Last { version, event_id })
            }
            Expect::Strange => Expectation::Last { version, event_id: content::strange_id(plan, origin) },
            Expect::Stale(by) => Expectation::Exact(version.saturating_sub(by)),
            Expect::Ahead(by) => Expectation::Exact(version + by),
            Expect::NoStream => Expectation::NoStream,
            Expect::Any => Expectation::Any,
            Expect::StreamExists => Expectation::StreamExists,
        };
        Basis { expected, afters: draft.conditions.iter().map(|look| self.after(look)).collect() }
    }

    /// Counts `sent` as written until its answer arrives.
    pub(super) fn suppose(&mut self, sent: &Sent) {
        let Some(last) = sent.events.last() else { return };
        let version = self.version(&sent.stream) + sent.events.len() as u64;
        self.supposed.insert(sent.stream.clone(), (version, Some(last.id)));
    }

    pub(super) fn forget_suppositions(&mut self) {
        self.supposed.clear();
    }

    /// Learns from the answer to `sent`, or to a read.
    pub(super) fn learn(&mut self, sent: &[Sent], outcome: &Outcome) {
        match outcome {
            Outcome::Together(all) => {
                for (sent, outcome) in sent.iter().zip(all) {
                    self.learn(std::slice::from_ref(sent), outcome);
                }
            }
            Outcome::Appended { version, position, repeated } => {
                if let [sent] = sent {
                    // The first append under the key may have had other events.
                    let last = sent.events.last().filter(|_| !repeated || sent.key.is_none()).map(|event| event.id);
                    self.learn_end(&sent.stream, (*version, last));
                }
                self.position = self.position.max(*position);
            }
            Outcome::Conflict { stream, actual, .. } => self.learn_end(stream, (*actual, None)),
            Outcome::ConditionFailed { position } | Outcome::Head(position) => {
                self.position = self.position.max(*position);
            }
            Outcome::Events(page) => {
                for event in page {
                    self.learn_end(&event.stream, (event.version, Some(event.id)));
                    self.position = self.position.max(event.position);
                }
            }
            _ => {}
        }
    }

    fn learn_end(&mut self, stream: &StreamId, end: End) {
        let known = self.streams.entry(stream.clone()).or_default();
        if end.0 > known.0 || (end.0 == known.0 && end.1.is_some()) {
            *known = end;
        }
    }
}
