//! Kafka as `cargo xtask` has fetched it, and the settings of a cluster.

use std::{env, path::PathBuf};

use super::{Properties, node::Place};

/// `cargo xtask` tells it in these variables (`xtask/src/kafka.rs`).
const VARIABLES: [&str; 4] =
    ["KAFKA_OF_TESTS_JAVA", "KAFKA_OF_TESTS_LIBRARIES", "KAFKA_OF_TESTS_TEMPLATE", "KAFKA_OF_TESTS_LOGGING"];

/// The settings of the broker that the tests share.
pub(super) const PROPERTIES: &str = include_str!("../../../xtask/servers/server.properties");

/// Where Java and Kafka are.
#[derive(Debug, Clone)]
pub struct Installed {
    /// The program.
    pub java: PathBuf,
    /// The directory of Kafka's libraries.
    pub libraries: PathBuf,
    /// A formatted data directory that was never used.
    pub template: PathBuf,
    /// The settings of log4j2.
    pub logging: PathBuf,
}

impl Installed {
    /// `None` where the tests run against servers that `cargo xtask` has not fetched.
    pub fn find() -> Option<Self> {
        let [java, libraries, template, logging] = VARIABLES.map(|name| env::var_os(name).map(PathBuf::from));
        Some(Self { java: java?, libraries: libraries?, template: template?, logging: logging? })
    }

    /// As [`find`](Self::find), and says that a test is left out where it is `None`.
    pub fn or_left_out() -> Option<Self> {
        let found = Self::find();
        if found.is_none() {
            eprintln!("left out: there is no Kafka to start; run `cargo xtask test`");
        }
        found
    }
}

/// The settings of one of several brokers.
pub(super) fn properties(place: &Place, all: &[Place]) -> Properties {
    let voters: Vec<_> = all.iter().map(|place| format!("{}@127.0.0.1:{}", place.node, place.controller)).collect();
    let (replicas, least) = if all.len() < 3 { (1, 1) } else { (3, 2) };
    let mut properties = vec![
        ("node.id", place.node.to_string()),
        ("controller.quorum.voters", voters.join(",")),
        // A killed broker starts again when the controller has given up its former session.
        ("broker.session.timeout.ms", "2000".to_owned()),
        ("broker.heartbeat.interval.ms", "500".to_owned()),
        ("offsets.topic.num.partitions", "2".to_owned()),
        ("transaction.state.log.num.partitions", "2".to_owned()),
    ];
    for name in [
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
        "share.coordinator.state.topic.replication.factor",
    ] {
        properties.push((name, replicas.to_string()));
    }
    for name in ["min.insync.replicas", "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr"] {
        properties.push((name, least.to_string()));
    }
    properties.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}
