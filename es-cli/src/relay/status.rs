//! What `es relay status` prints.

use es_core::backend::Severity;
use es_kafka::{RelayStatus, TopicStatus};

use crate::{
    doctor::Doctor,
    end::{CommandError, Outcome},
    output::{Format, Output},
    time,
};

/// What stands where the brokers tell nothing.
const UNKNOWN: &str = "unknown";

pub(super) fn print(status: &RelayStatus, format: Format, output: &mut Output) -> Result<Outcome, CommandError> {
    if format.json {
        output.json(status)?;
        output.flush()?;
        let worst = status.findings.iter().map(|finding| finding.severity).max();
        return Ok(worst.unwrap_or(Severity::Ok).into());
    }
    let written_at = status.written_at.map_or_else(|| "never".to_owned(), time::text);
    for (what, value) in [
        ("relay", status.relay.clone()),
        ("transactional id", status.transactional_id.clone()),
        ("published", format!("position {} of {}", status.position, status.head)),
        ("lag", format!("{} events, {:.0} s", status.lag_events, status.lag_seconds)),
        ("progress written", written_at),
    ] {
        output.line(format_args!("{what:<18}{value}"))?;
    }
    output.line("")?;
    let rows: Vec<_> = status.topics.iter().map(row).collect();
    output.table(["TOPIC", "PARTITIONS", "REPLICATION", "RETENTION", "BYTES", "CLEANUP", "MIN IN SYNC"], &rows)?;
    output.line("")?;
    Doctor { format }.print(&status.findings, output)
}

fn row(topic: &TopicStatus) -> [String; 7] {
    let limit = |limit: Option<i64>, unit: &str| match limit {
        None => UNKNOWN.to_owned(),
        Some(..0) => "for ever".to_owned(),
        Some(limit) => format!("{limit} {unit}"),
    };
    [
        topic.topic.clone(),
        topic.partitions.to_string(),
        topic.replication.to_string(),
        limit(topic.retention_ms, "ms"),
        limit(topic.retention_bytes, "bytes"),
        topic.cleanup_policy.clone().unwrap_or_else(|| UNKNOWN.to_owned()),
        topic.min_insync_replicas.map_or_else(|| UNKNOWN.to_owned(), |replicas| replicas.to_string()),
    ]
}
