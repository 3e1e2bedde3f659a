//! Orders, payments, inventory and shipping, end to end. The modules come in reading order.

// What the business talks about.
pub mod ids;
pub mod line;
pub mod money;

// The aggregates: one leads, three follow.
pub mod order;

// What spans several orders.
pub mod placing;

pub mod inventory;
pub mod payment;
pub mod shipment;

// What comes of their events: commands to others, and answers to queries.
pub mod policy;
pub mod read_models;

// All of that together, and what it runs on.
pub mod service;

// What clients see.
pub mod app;
pub mod http;

// The program.
pub mod cli;
pub mod demo;
pub mod roles;
pub mod run;

pub use cli::Cli;
pub use run::{RunError, main, run};
