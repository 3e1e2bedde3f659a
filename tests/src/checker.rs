//! The checker of `es-testing` on real stores: the store of a run, the faults that are injected, and the processes that take
//! part.
//!
//! To crash a server, the checker kills one of its backends (`kill -9`). The postmaster then ends all sessions, discards the
//! shared memory with everything that is not in the write-ahead log, and recovers from that log. The postmaster itself is not
//! killed, since only the process that started it can start it again. This cannot show a loss of power: data that the server
//! has handed to the kernel survives.

mod faults;
mod ground;
mod process;
mod trial;

pub use faults::crash_server;
pub use ground::Ground;
pub use process::Part;
pub use trial::{Report, Trial};
