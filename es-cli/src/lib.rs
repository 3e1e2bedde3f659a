#![doc = include_str!("../README.md")]

// What every command shares: how it ends, and how it prints.
pub mod end;
pub mod output;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod unopened;
mod event;
mod time;
mod version;

// The commands that need nothing but a store.
mod streams;
mod stream;
mod log;
mod readers;
mod doctor;
mod act;
mod operate;
mod dead_letters;
mod sagas;
pub mod command;

// The commands on a relay to Kafka, and on its topics.
#[cfg(feature = "kafka")]
pub mod relay;
#[cfg(feature = "kafka")]
pub mod dlq;

// The commands that need the types of an application.
pub mod service;

// What a program prints about itself.
#[cfg(feature = "texts")]
pub mod texts;

// The program `es`.
#[cfg(feature = "program")]
pub mod program;

pub use command::StoreCommand;
#[cfg(feature = "kafka")]
pub use dlq::DlqCommand;
pub use end::{CommandError, EXIT_CODES, Outcome};
pub use output::Output;
#[cfg(feature = "kafka")]
pub use relay::RelayCommand;
pub use service::ServiceCommand;
#[cfg(feature = "texts")]
pub use texts::TextCommand;
