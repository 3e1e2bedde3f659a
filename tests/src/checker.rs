//! The checker of `es-testing` on real stores: where a run takes place, what is done to it from outside, and the
//! processes that take part.
//!
//! A server dies by the death of one of its backends (`kill -9`): the postmaster throws everybody out, gives up all
//! shared memory with whatever was not written to the write-ahead log, and recovers from that. It is not killed itself,
//! since a test cannot start it again: it belongs to whoever has started it. What this cannot show is a loss of power:
//! what the kernel has taken from the server survives.

mod faults;
mod ground;
mod process;
mod trial;

pub use faults::crash_server;
pub use ground::Ground;
pub use process::Part;
pub use trial::{Report, Trial};
