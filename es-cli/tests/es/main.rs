//! The program `es` on files and on a server.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

mod fixture;

mod discards;
mod dlq;
mod documented;
mod ends;
mod examines;
mod operates;
mod reads;
mod relays;
mod sagas;
mod writes_text;
