//! Calls paired with their returns.

use std::{collections::HashMap, fmt};

use super::{
    history::{Call, CallId, Outcome, Record},
    sent::{Flaw, Sent},
};

/// One call. If it makes several appends together, there is one attempt for each of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) id: CallId,
    pub(super) store: u32,
    /// The line of the call.
    pub(super) called: usize,
    /// The line of its return; the highest number if it never returned.
    pub(super) returned: usize,
    pub(super) call: &'a Call,
    /// The index of the append among those that the call makes together.
    member: usize,
    /// `None` when its process was killed before the return. If appends were made together, the outcome of this one; an
    /// error is the same for all.
    pub(super) outcome: Option<&'a Outcome>,
}

impl<'a> Attempt<'a> {
    /// All calls of a history, in order.
    pub(super) fn all(records: &'a [Record]) -> Vec<Self> {
        let mut attempts = Vec::new();
        let mut open = HashMap::new();
        for (line, record) in records.iter().enumerate() {
            match record {
                Record::Called { id, store, call } => {
                    let members = call.sent().len().max(1);
                    open.insert(*id, attempts.len()..attempts.len() + members);
                    attempts.extend((0..members).map(|member| Self {
                        id: *id,
                        store: *store,
                        called: line,
                        returned: usize::MAX,
                        call,
                        member,
                        outcome: None,
                    }));
                }
                Record::Returned { id, outcome } => {
                    for attempt in open.remove(id).and_then(|members| attempts.get_mut(members)).unwrap_or_default() {
                        attempt.returned = line;
                        attempt.outcome = Some(match outcome {
                            Outcome::Together(all) if all.len() == attempt.group().len() => &all[attempt.member],
                            outcome => outcome,
                        });
                    }
                }
                _ => {}
            }
        }
        attempts
    }

    /// The append of this attempt.
    pub(super) fn sent(&self) -> Option<&'a Sent> {
        self.call.sent().get(self.member)
    }

    /// All appends that are made together, including this one.
    pub(super) fn group(&self) -> &'a [Sent] {
        self.call.sent()
    }

    /// The flaw of the append, or of one that is made together with it.
    pub(super) fn flaw(&self) -> Option<Flaw> {
        flaw(self.group())
    }

    /// Whether it may have written although no caller got that answer.
    pub(super) fn is_unknown(&self) -> bool {
        matches!(self.outcome, None | Some(Outcome::Failed { .. } | Outcome::Dropped | Outcome::Stuck))
    }
}

/// The flaw of appends that are made together.
pub(super) fn flaw(group: &[Sent]) -> Option<Flaw> {
    group.iter().find_map(|sent| sent.flaw)
}

impl fmt::Display for Attempt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {} through store {}: ", self.called + 1, self.id, self.store)?;
        match self.sent() {
            Some(sent) => {
                sent.fmt(f)?;
                if self.group().len() > 1 {
                    write!(f, ", number {} of {} together", self.member + 1, self.group().len())?;
                }
            }
            None => write!(f, "{:?}", self.call)?,
        }
        match self.outcome {
            None => f.write_str(" -> never returned"),
            Some(Outcome::Events(page)) => {
                let ends = page.first().zip(page.last()).map(|(first, last)| (first.position, last.position));
                write!(f, " -> line {}: {} events, positions {ends:?}", self.returned + 1, page.len())
            }
            Some(outcome) => write!(f, " -> line {}: {outcome:?}", self.returned + 1),
        }
    }
}
