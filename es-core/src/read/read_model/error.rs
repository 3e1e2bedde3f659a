//! Why a read model store failed.

use crate::error::{BoxError, StoreMoved};

/// A read model store failed; trying again may succeed, unless it has [moved](StoreMoved).
#[derive(Debug, thiserror::Error)]
#[error("the read model store failed")]
pub struct ReadModelError(#[source] pub BoxError);

impl ReadModelError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        !StoreMoved::is_in(&self.0)
    }
}
