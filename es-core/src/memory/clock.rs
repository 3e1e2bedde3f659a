//! The time at which a store in memory records its events.

use std::{fmt, sync::Arc};

use chrono::{DateTime, SubsecRound, Utc};

/// The clock of the system, or one that a test moves.
#[derive(Clone)]
pub(super) struct Clock(pub(super) Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// The time now. Databases keep microseconds, so the reference keeps no more.
    pub(super) fn now(&self) -> DateTime<Utc> {
        self.0().trunc_subsecs(6)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(Utc::now))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").finish_non_exhaustive()
    }
}
