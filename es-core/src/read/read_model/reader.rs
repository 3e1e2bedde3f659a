//! What a checkpoint belongs to.

/// A policy, or a generation of a read model: what has checkpoints of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reader {
    /// Its number, unique in the store.
    pub id: i64,
    /// [`Policy::NAME`](crate::Policy::NAME) or [`Projection::NAME`](crate::Projection::NAME). The generations of a read model share
    /// it.
    pub name: String,
}
