//! `dlq` in the program of an application, whose service knows its topics.

use std::collections::BTreeMap;

use clap::Args;
use es_core::{Service, backend::Finding};
use es_kafka::KafkaTopic;

use super::{DlqCommand, waits};
use crate::{
    end::{CommandError, Outcome},
    output::Output,
};

/// A command on the dead letters of a topic that a consumer of the service reads.
#[derive(Debug, Clone, Args)]
pub(crate) struct OfService {
    /// The topic that the other system fills: its dead letters are in TOPIC.dlq [default: the only one of the service]
    #[arg(long, global = true, value_name = "TOPIC")]
    topic: Option<String>,

    #[command(subcommand)]
    command: DlqCommand,
}

impl OfService {
    /// Carries it out where `service` has its consumers read, and prints to `output`. Acts are recorded in its store too.
    pub(crate) async fn run_on(self, service: &Service, output: &mut Output) -> Result<Outcome, CommandError> {
        let Self { topic, command } = self;
        let topic = chosen(topic, service)?.dead_letters();
        let store = command.is_act().then(|| service.store());
        command.run(&topic, store, output).await
    }
}

/// What waits in the dead-letter topics of `service`, for `doctor`.
pub(crate) async fn findings(service: &Service) -> Vec<Finding> {
    let mut findings = Vec::new();
    for topic in topics(service).into_values() {
        findings.push(waits(&topic.dead_letters()).await);
    }
    findings
}

/// The topics of Kafka that consumers of `service` read, by their names.
fn topics(service: &Service) -> BTreeMap<&str, &KafkaTopic> {
    let topics = service.consumed().filter_map(|(_, source)| KafkaTopic::of(&**source));
    topics.map(|topic| (topic.name(), topic)).collect()
}

fn chosen(wanted: Option<String>, service: &Service) -> Result<&KafkaTopic, CommandError> {
    let topics = topics(service);
    let known = || topics.keys().copied().collect::<Vec<_>>().join(", ");
    let found = match &wanted {
        Some(wanted) => topics.get(wanted.as_str()),
        None if topics.len() == 1 => topics.values().next(),
        None => None,
    };
    found.copied().ok_or_else(|| match wanted {
        _ if topics.is_empty() => CommandError::usage(
            "the service has no consumer of a topic of Kafka",
            "register one with `.consumer(…)`; if that depends on options of this program, pass them",
        ),
        Some(wanted) => CommandError::usage(
            format!("no consumer of the service reads {wanted:?}"),
            format!("name one of {}", known()),
        ),
        None => CommandError::usage(
            "the consumers of the service read several topics",
            format!("pass --topic with one of {}", known()),
        ),
    })
}
