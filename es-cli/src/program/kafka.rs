//! Where Kafka is, for a program that knows no service.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use es_core::error::with_causes;
use es_kafka::{RelayConfig, Settings};

use crate::end::CommandError;

/// What the names of the environment begin with: those below, and the properties of the client.
const PREFIX: &str = "ES_KAFKA_";

/// The names that are no properties, without the prefix.
const OTHERS: [&str; 5] = ["BROKERS", "RELAY", "TOPIC", "TOPIC_PREFIX", "CONFIG"];

/// Where Kafka is.
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "they are help texts")]
pub(super) struct Brokers {
    /// The brokers, separated by commas [default: bootstrap.servers of the file] [env: ES_KAFKA_BROKERS]
    #[arg(long, global = true, value_name = "HOST:PORT", env = "ES_KAFKA_BROKERS", hide_env = true)]
    brokers: Option<String>,

    /// A file with properties of the client, name=value, for TLS and SASL [env: ES_KAFKA_CONFIG; or a variable for each:
    /// ES_KAFKA_SASL_PASSWORD is sasl.password]
    #[arg(long, global = true, value_name = "FILE", env = "ES_KAFKA_CONFIG", hide_env = true)]
    kafka_config: Option<PathBuf>,
}

/// Where a relay publishes to.
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "they are help texts")]
pub(super) struct KafkaPlace {
    #[command(flatten)]
    at: Brokers,

    /// The name of the relay: that of the service [env: ES_KAFKA_RELAY]
    #[arg(long, global = true, value_name = "NAME", env = "ES_KAFKA_RELAY", hide_env = true)]
    relay: Option<String>,

    /// What the names of the topics start with [env: ES_KAFKA_TOPIC_PREFIX]
    #[arg(long, global = true, value_name = "TEXT", env = "ES_KAFKA_TOPIC_PREFIX", hide_env = true)]
    topic_prefix: Option<String>,
}

impl Brokers {
    /// Those that the environment names, if it names any.
    pub(super) fn of_environment() -> Option<Self> {
        let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let brokers = named("ES_KAFKA_BROKERS").and_then(|brokers| brokers.into_string().ok());
        let kafka_config = named("ES_KAFKA_CONFIG").map(PathBuf::from);
        (brokers.is_some() || kafka_config.is_some()).then_some(Self { brokers, kafka_config })
    }

    /// The brokers and the properties that the arguments, the file and `environment` name. What the environment says comes before the
    /// file.
    pub(super) fn settings(
        self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(String, Settings), CommandError> {
        let loaded = Settings::load(self.kafka_config.as_deref(), PREFIX, &OTHERS, environment);
        let mut settings = loaded.map_err(|error| {
            CommandError::usage(with_causes(&error), "name a file with a line name=value for each property")
        })?;
        let of_settings = settings.remove("bootstrap.servers");
        let brokers = self.brokers.or(of_settings).filter(|brokers| !brokers.is_empty());
        let brokers = brokers.ok_or_else(|| missing("the brokers are", "brokers", "ES_KAFKA_BROKERS"))?;
        Ok((brokers, settings))
    }
}

fn missing(what: &str, option: &str, variable: &str) -> CommandError {
    CommandError::usage(format!("{what} not named"), format!("pass --{option}, or set {variable}"))
}

impl KafkaPlace {
    /// The relay that the arguments, the file and `environment` name.
    pub(super) fn config(
        self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<RelayConfig, CommandError> {
        let (brokers, settings) = self.at.settings(environment)?;
        let name = self.relay.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| missing("the relay is", "relay", "ES_KAFKA_RELAY"))?;
        let topic_prefix = self.topic_prefix.unwrap_or_default();
        // It creates no topics, and so has no declaration to compare them with.
        Ok(RelayConfig { create_topics: false, topic_prefix, settings, ..RelayConfig::new(brokers, name) })
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use std::fs;

    use super::*;

    fn place(kafka_config: Option<PathBuf>) -> KafkaPlace {
        let at = Brokers { brokers: None, kafka_config };
        KafkaPlace { at, relay: Some("orders".into()), topic_prefix: None }
    }

    #[test]
    fn properties_come_from_a_file_and_before_it_from_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("client.properties");
        fs::write(&file, "bootstrap.servers=a:1,b:2\nsasl.password=geheim\n# sasl.username=x\n").unwrap();
        let environment = [("ES_KAFKA_SASL_PASSWORD", "anders"), ("ES_KAFKA_RELAY", "x"), ("HOME", "/")];
        let environment = environment.map(|(name, value)| (name.into(), value.into()));
        let config = place(Some(file)).config(environment).unwrap();
        assert_eq!((&*config.brokers, &*config.name), ("a:1,b:2", "orders"));
        assert_eq!(config.settings, Settings::from([("sasl.password", "anders")]));
        assert!(!format!("{config:?}").contains("anders"));
    }

    #[test]
    fn r14_a_line_that_is_no_property_is_named_and_not_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("client.properties");
        fs::write(&file, "a=b\nsasl.password geheim\n").unwrap();
        let error = place(Some(file)).config([]).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("geheim"), "{error}");
        assert!(matches!(place(None).config([]), Err(CommandError::Usage { .. })), "no brokers");
    }
}
