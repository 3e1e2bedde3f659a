//! Random clients on a real event store, and a judge of what they have seen.
//!
//! A [`Plan`] is made from a seed: what each client does, when its futures are dropped, and when something is
//! disrupted, all in numbers of operations. [`run`] carries it out on an [`EventStore`](es_core::EventStore) and writes
//! down every call and every return in a [`History`]; [`check`] compares the history with the whole log at the end and
//! names each promise that was broken. The same seed asks for the same again; only the interleaving is the machine's.
//!
//! ```
//! use std::sync::Arc;
//!
//! use es_core::MemoryStore;
//! use es_testing::checker::{Peace, Plan, Recorder, Size, check, run};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let plan = Arc::new(Plan::new(7, &Size { clients: 4, operations: 20, ..Size::default() }));
//! let recorder = Arc::new(Recorder::in_memory());
//! let log = run(&plan, vec![Arc::new(MemoryStore::new())], &recorder, &Peace).await;
//! let findings = check(&recorder.history()?, &log);
//! assert!(findings.is_empty(), "seed {}: {findings:#?}", plan.seed);
//! # Ok(())
//! # }
//! ```
//!
//! It speaks of R1 to R7 and R15, as far as the port to the log shows them. Of snapshots, read models, sources and
//! shutdown it knows nothing; and an answer may take its time, up to two minutes.
//!
//! Tags are not read back with events: it knows them from what was sent, and which of them matters to a query or a
//! condition it finds out by itself.
//!
//! What it knows of time is the order of the history's lines: a call is written down before it is made, a return after
//! it has come. See [`Recorder`] for why that holds across processes.

// What is done.
mod size;
mod plan;
mod operation;
mod draft;
mod content;

// How it is done.
mod query;
mod sent;
mod history;
mod recorder;
mod polls;
mod session;
mod knowledge;
mod client;
mod reader;
mod run;

// What is made of it.
mod finding;
mod attempts;
mod log;
mod moments;
mod evidence;
mod remembered;
mod check;
mod check_log;
mod check_appends;
mod check_outcomes;
mod check_refusals;
mod check_conditions;
mod check_reads;
#[cfg(test)]
mod tests;

pub use check::check;
pub use content::REFUSED_NAME;
pub use draft::{Draft, Expect, Look};
pub use finding::{Finding, Promise};
pub use history::{Call, CallId, Found, History, Outcome, Record, Seen};
pub use operation::Operation;
pub use plan::{Blow, Plan};
pub use query::{About, Given, Item, Query};
pub use recorder::Recorder;
pub use run::{Disruption, Peace, run, take_part};
pub use sent::{Expectation, Flaw, Key, Sent, Written};
pub use size::Size;
