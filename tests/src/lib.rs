//! What only several packages together can show: the whole path, crashes and chaos.
//!
//! The tests are in `tests/`. Here is what the checker needs of a backend, and the code in the project's documents is
//! compiled, and the table of promises held against the tree.

pub mod checker;
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

    #[doc = include_str!("../../CONTRIBUTING.md")]
    struct Contributing;
}
