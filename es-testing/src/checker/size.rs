//! How large a run is.

use serde::{Deserialize, Serialize};

/// The size of a run, and the kinds of faults in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Clients that append and read, in all processes together.
    pub clients: u32,
    /// Readers that follow the log, in each process.
    pub readers: u32,
    /// Processes; the first is the one that calls [`run`](super::run).
    pub processes: u32,
    /// Hot streams, to which all clients write all the time. The plan has as many cold streams as it needs.
    pub hot_streams: u32,
    /// Operations of each client.
    pub operations: u32,
    /// The number of faults.
    pub faults: u32,
    /// Whether faults may cut the store's sessions.
    pub cut_sessions: bool,
    /// Whether faults may crash the server.
    pub crash_server: bool,
    /// Whether the store refuses events with the name [`REFUSED_NAME`](super::REFUSED_NAME), as a constraint of the
    /// application does.
    pub refuses: bool,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            clients: 12,
            readers: 2,
            processes: 1,
            hot_streams: 3,
            operations: 100,
            faults: 0,
            cut_sessions: false,
            crash_server: false,
            refuses: false,
        }
    }
}
