//! The history: all calls and returns, in order.

use std::{fmt, io, path::Path};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{plan::Fault, query::Query, sent::Sent};
use es_core::StreamId;

/// The identity of a call: the `attempt`-th one of the `number`-th operation of a client or reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId {
    /// The client or reader.
    pub actor: u32,
    /// Its operation.
    pub number: u32,
    /// The number of the call within the operation.
    pub attempt: u32,
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.actor, self.number, self.attempt)
    }
}

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The seed of the plan: the first line.
    Seed(u64),
    /// A call begins.
    Called {
        /// Which call.
        id: CallId,
        /// The store through which it is made.
        store: u32,
        /// The call with its arguments.
        call: Call,
    },
    /// A call has returned.
    Returned {
        /// Which call.
        id: CallId,
        /// Its outcome.
        outcome: Outcome,
    },
    /// A fault is about to be injected.
    Injected(Fault),
    /// The fault is over.
    Recovered(Fault),
    /// A probe of the server begins, on a connection that is not the store's.
    Asked,
    /// The server has answered the probe.
    Answered {
        /// The time that it took, in milliseconds.
        after_ms: u64,
    },
}

/// A call of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the parameters of the port")]
pub enum Call {
    Append(Sent),
    AppendTogether(Vec<Sent>),
    ReadStream { stream: StreamId, after: u64, limit: usize },
    ReadLog { after: u64, limit: usize },
    ReadMatching { query: Query, after: u64, limit: usize },
    Head,
    WaitPast { after: u64 },
    FindCommand { stream: StreamId, key: String },
}

impl Call {
    /// The appends that it writes; several if they are made together.
    pub fn sent(&self) -> &[Sent] {
        match self {
            Self::Append(sent) => std::slice::from_ref(sent),
            Self::AppendTogether(sent) => sent,
            _ => &[],
        }
    }
}

/// An event that was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in RecordedEvent; the content as in Written")]
pub struct Seen {
    pub position: u64,
    pub stream: StreamId,
    pub version: u64,
    pub id: Uuid,
    pub content: u32,
}

/// The answer of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the answers of the port")]
pub enum Outcome {
    Appended {
        version: u64,
        position: u64,
        repeated: bool,
    },
    /// The outcome of each of the appends that were made together.
    Together(Vec<Outcome>),
    Conflict {
        stream: StreamId,
        expected: String,
        actual: u64,
    },
    ConditionFailed {
        position: u64,
    },
    Invalid {
        reason: String,
    },
    KeyReused,
    Refused {
        why: String,
    },
    Events(Vec<Seen>),
    Head(u64),
    Woken,
    Command(Option<Found>),
    /// A read found damage: the log has a gap, or a row that no append writes.
    Alarm {
        why: String,
    },
    /// The store failed; the outcome of an append is unknown.
    Failed {
        why: String,
    },
    Closed,
    /// The future was dropped.
    Dropped,
    /// The call did not return within the limit for all calls.
    Stuck,
}

/// A command record of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "as in CommandRecord")]
pub struct Found {
    pub fingerprint: String,
    pub version: u64,
    pub position: u64,
}

/// All lines, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The lines.
    pub records: Vec<Record>,
    /// The number of incomplete lines, each left by a process that was killed while it wrote. A call with an incomplete
    /// line was never made; a return with an incomplete line was never received.
    pub torn: usize,
}

impl History {
    /// The history in a file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn load(path: &Path) -> io::Result<Self> {
        Ok(Self::parse(&String::from_utf8_lossy(&std::fs::read(path)?)))
    }

    /// The history in a text of one line for each record.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty());
        let (mut records, mut torn) = (Vec::new(), 0);
        for line in lines {
            match serde_json::from_str(line) {
                Ok(record) => records.push(record),
                Err(_) => torn += 1,
            }
        }
        Self { records, torn }
    }

    /// The seed of the plan.
    pub fn seed(&self) -> Option<u64> {
        self.records.iter().find_map(|record| match record {
            Record::Seed(seed) => Some(*seed),
            _ => None,
        })
    }
}
