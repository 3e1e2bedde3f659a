//! The ports to read models: documents, and the checkpoints that commit with them.
//!
//! A read model is a projection's documents in one or more *generations*: one serves queries, another may be under
//! construction. A generation is fed through *shards* of its source, each with a checkpoint of its own.

mod documents;
mod error;
mod generations;
mod leases;

pub use self::{documents::*, error::ReadModelError, generations::*, leases::*};

/// Keeps the documents of read models together with the checkpoints of their projectors: what a projector needs. It is
/// implemented for every type that implements the three.
pub trait ReadModelStore: Documents + Generations + Leases {}

impl<T: Documents + Generations + Leases> ReadModelStore for T {}
