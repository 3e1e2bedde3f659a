//! The whole service from outside: the program, its API, its signals.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod changes;
mod demo;
mod driving;
mod fulfilment;
mod lifecycle;
mod metrics;
#[cfg(feature = "otel")]
mod otlp;
mod placing;
mod ports;
mod problems;
mod processes;
mod queries;
mod readme;
mod service;
mod stock;
