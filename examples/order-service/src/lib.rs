//! Orders, payments, inventory and shipping, end to end. The modules come in reading order.

// The words of the business.
pub mod ids;
pub mod line;
pub mod money;

// The aggregates: the order, and three that follow it.
pub mod order;

// A rule that spans several orders.
pub mod placing;

pub mod inventory;
pub mod payment;
pub mod shipment;

// What follows from their events: commands, and read models.
pub mod policy;
pub mod provider;
pub mod read_models;

// All of it as one service, its store, and Kafka.
pub mod service;
#[cfg(feature = "kafka")]
pub mod kafka;

// The API.
pub mod app;
pub mod http;

// The program.
pub mod cli;
pub mod demo;
#[cfg(feature = "otel")]
pub mod otlp;
pub mod roles;
pub mod run;

pub use cli::Cli;
pub use run::{RunError, main, run};
