//! Where Kafka is, and how clients are let in.

use std::env;

use evenfold::kafka::{Settings, UnusableSettings};

use crate::cli::Parts;

/// What the names of variables begin with that are properties of clients.
const PREFIX: &str = "ORDER_SERVICE_KAFKA_";

/// The brokers, and the properties of the clients: one account for relay, readers and the payment provider's topic.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Kafka {
    pub brokers: String,
    pub settings: Settings,
}

impl Kafka {
    /// What the command line, the file and the environment say. `None` where they name no brokers.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn of(parts: &Parts) -> Result<Option<Self>, UnusableSettings> {
        let file = parts.kafka_settings.as_deref();
        let mut settings = Settings::load(file, PREFIX, &["SETTINGS"], env::vars_os())?;
        let of_settings = settings.remove("bootstrap.servers");
        Ok(parts.kafka.clone().or(of_settings).map(|brokers| Self { brokers, settings }))
    }
}
