//! The ports to read models: documents, and the checkpoints that commit with them.
//!
//! A read model is a projection's documents in one or more *generations*: one serves queries, another may be under
//! construction. A *reader* is what has checkpoints: a generation, or a policy. It is fed through *shards* of its source, each with
//! a checkpoint of its own.

mod dead_letters;
mod documents;
mod error;
mod exceptions;
mod fields;
mod generations;
mod leases;
mod operations;
mod reader;
mod shards;

pub use self::{
    dead_letters::*, documents::*, error::ReadModelError, exceptions::*, fields::*, generations::*, leases::*,
    operations::*, reader::Reader, shards::*,
};

/// Keeps the documents of read models together with the checkpoints of their projectors, and what operators need for both. It is
/// implemented for every type that implements the five.
pub trait ReadModelStore: Documents + Generations + Leases + DeadLetters + Operations {}

impl<T: Documents + Generations + Leases + DeadLetters + Operations> ReadModelStore for T {}
