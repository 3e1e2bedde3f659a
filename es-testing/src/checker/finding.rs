//! What the checker has found.

use std::fmt;

/// What was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// An append is all or nothing.
    R1,
    /// Of concurrent appends with the same expectation one wins; the others get the conflict.
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
    /// No promise with a number: an answer that the port does not allow there, as an error although nothing was
    /// disrupted.
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

/// A promise that was broken, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which promise.
    pub promise: Promise,
    /// In which way.
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

#[expect(clippy::unnecessary_wraps, reason = "every caller wants it so")]
pub(super) fn wrong(promise: Promise, what: impl Into<String>) -> Wrong {
    Some((promise, what.into()))
}
