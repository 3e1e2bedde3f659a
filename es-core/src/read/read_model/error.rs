//! Why a read model store failed.

use std::{fmt, sync::Arc};

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

    /// The same failure, for one of several callers that have waited for one answer of the store.
    pub(crate) fn shared(error: &Arc<Self>) -> Self {
        let cause = BoxError::from(Shared(error.clone()));
        Self(if error.is_transient() { cause } else { StoreMoved(cause).into() })
    }
}

/// The cause of a failure that several callers share.
struct Shared(Arc<ReadModelError>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0.fmt(f)
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.0, f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::with_causes;

    #[test]
    fn callers_that_share_a_failure_are_told_its_causes() {
        let failure = Arc::new(ReadModelError(StoreMoved("another file".into()).into()));
        let shared = ReadModelError::shared(&failure);
        assert!(!shared.is_transient());
        let said = with_causes(&shared);
        assert!(said.ends_with(": the store is no longer where it was opened: another file"), "{said}");
        let lost = ReadModelError::shared(&Arc::new(ReadModelError("the connection was lost".into())));
        assert!(lost.is_transient());
        assert!(with_causes(&lost).ends_with(": the connection was lost"));
    }
}
