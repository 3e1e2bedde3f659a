//! The chaos suite: a service on Postgres and a Kafka of its own works while a plan, which follows from a seed, kills, stops, cuts,
//! slows down and misleads what it is made of. Afterwards all that was lost, repeated or reordered is a finding.

mod check;
mod domain;
mod faults;
mod ground;
mod java;
mod load;
mod naive;
mod plan;
mod plant;
mod shim;
mod spike;
mod trial;
mod worker;

pub use self::{
    ground::Ground,
    plan::{Fault, Plan, Size},
    plant::Plant,
    trial::{Report, Trial},
    worker::{Part, Role},
};
