//! Findings: the broken promises.

use std::fmt;

/// A promise that the checker checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// An append is all or nothing.
    R1,
    /// Of concurrent appends with the same expected version one succeeds; the others get the conflict.
    R2,
    /// Positions are dense and equal commit order; a reader misses nothing and sees nothing twice.
    R3,
    /// A bad append fails alone.
    R4,
    /// Acknowledged means durable.
    R5,
    /// A retry returns the first outcome and writes nothing.
    R6,
    /// A dropped future leaves nothing or the whole.
    R7,
    /// Bad input is a typed error before anything is written.
    R15,
    /// The contract of the port, which has no number: an answer that the port does not allow here, such as an error
    /// without a fault.
    Port,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port => f.write_str("the port"),
            promise => write!(f, "{promise:?}"),
        }
    }
}

/// A broken promise, with its evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The promise.
    pub promise: Promise,
    /// How it was broken.
    pub what: String,
    /// The calls that it concerns, with their lines in the history.
    pub calls: Vec<String>,
    /// The seed of the run.
    pub seed: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken: {} (seed {})", self.promise, self.what, self.seed)?;
        self.calls.iter().try_for_each(|call| write!(f, "\n    {call}"))
    }
}

/// What is wrong with an answer, if anything.
pub(super) type Wrong = Option<(Promise, String)>;

#[expect(clippy::unnecessary_wraps, reason = "every caller returns an option")]
pub(super) fn wrong(promise: Promise, what: impl Into<String>) -> Wrong {
    Some((promise, what.into()))
}
