//! Runs random clients on a real event store and checks everything that they saw.
//!
//! A [`Plan`] is made from a seed. It says what each client does, when its futures are dropped, and when faults are
//! injected, all in numbers of operations. [`run`] executes the plan on an [`EventStore`](es_core::EventStore) and records
//! every call and every return in a [`History`]. [`check`] compares the history with the whole log at the end and names
//! each broken promise. The same seed gives the same plan; only the interleaving differs.
//!
//! ```
//! use std::sync::Arc;
//!
//! use es_core::MemoryStore;
//! use es_testing::checker::{NoFaults, Plan, Recorder, Size, check, run};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let plan = Arc::new(Plan::new(7, &Size { clients: 4, operations: 20, ..Size::default() }));
//! let recorder = Arc::new(Recorder::in_memory());
//! let log = run(&plan, vec![Arc::new(MemoryStore::new())], &recorder, &NoFaults).await;
//! let findings = check(&recorder.history()?, &log);
//! assert!(findings.is_empty(), "seed {}: {findings:#?}", plan.seed);
//! # Ok(())
//! # }
//! ```
//!
//! It checks R1 to R7 and R15, as far as the port to the log shows them. It does not check snapshots, read models, sources
//! or shutdown. An answer may take up to two minutes.
//!
//! Stores do not return tags with events. The checker takes them from the appends that were sent, and computes by itself
//! which events match a query or a condition.
//!
//! The order of the lines of the history is its only notion of time: a call is recorded before it is made, a return after
//! it has arrived. [`Recorder`] explains why this holds across processes.

// The plan.
mod size;
mod plan;
mod operation;
mod draft;
mod content;

// The run.
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

// The check.
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
pub use plan::{Fault, Plan};
pub use query::{About, Given, Item, Query};
pub use recorder::Recorder;
pub use run::{Disruption, NoFaults, run, take_part};
pub use sent::{Expectation, Flaw, Key, Sent, Written};
pub use size::Size;
