//! Tests that need several packages: the whole path, crashes and chaos.
//!
//! The tests are in `tests/`. This library runs the checker on real backends, compiles the code in the project's documents,
//! and checks the table of promises against the files.

pub mod chaos;
pub mod checker;
pub mod cluster;
pub mod proof;
pub mod proxy;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod observability;
#[cfg(test)]
mod promises;

#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../ARCHITECTURE.md")]
    struct Architecture;

    #[doc = include_str!("../../bench/README.md")]
    struct Bench;

    #[doc = include_str!("../../docs/queries.md")]
    struct Queries;

    #[doc = include_str!("../../CONTRIBUTING.md")]
    struct Contributing;

    #[doc = include_str!("../../docs/tables.md")]
    struct Tables;

    #[doc = include_str!("../../docs/consumers.md")]
    struct Consumers;

    #[doc = include_str!("../../docs/commands.md")]
    struct Commands;

    #[doc = include_str!("../../docs/sagas.md")]
    struct Sagas;

    #[doc = include_str!("../../docs/schedules.md")]
    struct Schedules;

    #[doc = include_str!("../../docs/kafka-topics.md")]
    struct KafkaTopics;

    #[doc = include_str!("../../docs/failures.md")]
    struct Failures;

    #[doc = include_str!("../../docs/observability.md")]
    struct Observability;

    #[doc = include_str!("../../docs/reading.md")]
    struct Reading;
}
