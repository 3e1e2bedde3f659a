//! One module for each suite; each public function is a claim, and the macros turn them into tests.

pub mod dead_letters;
pub mod engines_codec;
pub mod engines_decide;
pub mod engines_evolve;
pub mod engines_execute;
pub mod engines_failures;
pub mod engines_leases;
pub mod engines_letters;
pub mod engines_project;
pub mod engines_react;
pub mod engines_restored;
pub mod engines_standby;
pub mod engines_stop;
pub mod event_store;
pub mod event_store_boundary;
pub mod event_store_input;
pub mod event_store_large;
pub mod event_store_together;
pub mod inspect;
pub mod read_model_store;
pub mod read_model_store_fields;
pub mod read_model_store_generations;
pub mod refold;
mod replaced;
pub mod service;
pub mod snapshot_store;
mod standby;
