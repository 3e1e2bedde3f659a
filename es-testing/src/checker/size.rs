//! How large a run is.

use serde::{Deserialize, Serialize};

/// How large a run is, and what may happen to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Clients that append and read, in all processes together.
    pub clients: u32,
    /// Readers that follow the log, in each process.
    pub readers: u32,
    /// Processes; the first is the one that calls [`run`](super::run).
    pub processes: u32,
    /// Streams that everybody writes to all the time. The cold ones are as many as the plan needs.
    pub hot_streams: u32,
    /// Operations of each client.
    pub operations: u32,
    /// How often something is disrupted.
    pub blows: u32,
    /// Whether blows may cut the store's sessions.
    pub cut_sessions: bool,
    /// Whether blows may crash the server.
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
            blows: 0,
            cut_sessions: false,
            crash_server: false,
            refuses: false,
        }
    }
}
