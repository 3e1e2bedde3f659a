//! Transactions whose outcome is not known.

/// A transaction is open, and hides what was committed after it began.
///
/// One whose producer is gone ends after `transaction.timeout.ms`. A broker that has lost how a transaction ended, as on a full disk,
/// leaves one that never ends: no coordinator knows it any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a transaction is open at {place}, and hides what comes after it. Its producer ends it, or the coordinator after the transaction timeout of that producer. If it stays, no coordinator knows it: kafka-transactions.sh find-hanging shows such transactions, and abort ends one"
)]
pub(crate) struct Undecided {
    /// Topic, partition and offset.
    pub(crate) place: String,
}
