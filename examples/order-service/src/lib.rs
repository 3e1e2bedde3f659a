//! Orders, payments, inventory, shipping and messages to customers, end to end. The modules come in reading order.

// The words of the business.
pub mod ids;
pub mod line;
pub mod money;

// The aggregates: the order, and those that follow it.
pub mod order;

// A rule that spans several orders.
pub mod placing;

pub mod inventory;
pub mod payment;
pub mod shipment;
pub mod notification;

// What answers outside, by rules until there is something real.
pub mod rules;
pub mod gateway;
pub mod carrier;

// What follows from their events: the process of an order, and read models.
pub mod fulfilment;
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
