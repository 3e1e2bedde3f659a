//! What a client finds in Kafka that is not librdkafka: the consumer in Java that comes with the broker.

use std::{io, process::Stdio, time::Duration};

use crate::cluster::{Installed, command};

/// How long there may be no record before the consumer ends: at the end, and while a busy machine keeps it waiting.
const QUIET: [Duration; 2] = [Duration::from_secs(6), Duration::from_secs(40)];

/// A record as the consumer prints it, of which only this is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) position: u64,
    pub(crate) version: u64,
    pub(crate) id: String,
    pub(crate) stream: String,
}

/// All records of a topic that a `read_committed` consumer gets, partition by partition in its order. It is asked again, with more
/// patience, when it has found fewer than `expected`.
pub(crate) async fn read_committed(brokers: &str, topic: &str, expected: usize) -> io::Result<Vec<Line>> {
    let mut found = Vec::new();
    for quiet in QUIET {
        found = read(brokers, topic, quiet).await?;
        if found.len() >= expected {
            break;
        }
    }
    Ok(found)
}

async fn read(brokers: &str, topic: &str, quiet: Duration) -> io::Result<Vec<Line>> {
    let installed = Installed::find().ok_or(io::ErrorKind::NotFound)?;
    let mut java = command(&installed.java);
    java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"])
        .arg(format!("-Dlog4j2.configurationFile={}", installed.logging.display()))
        .arg("-cp")
        .arg(installed.libraries.join("*"))
        .arg("org.apache.kafka.tools.consumer.ConsoleConsumer")
        .args(["--bootstrap-server", brokers, "--topic", topic, "--from-beginning"])
        .args(["--isolation-level", "read_committed", "--timeout-ms", &quiet.as_millis().to_string()]);
    for property in ["partition", "offset", "headers", "key"] {
        java.args(["--formatter-property", &format!("print.{property}=true")]);
    }
    java.args(["--formatter-property", "print.value=false"]).stdin(Stdio::null());
    let output = tokio::process::Command::from(java).kill_on_drop(true).output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Option<Vec<Line>> =
        text.lines().filter(|line| line.contains("Partition:")).map(|line| parse(line.trim())).collect();
    lines.ok_or_else(|| io::Error::other(format!("a line cannot be read: {text:.1000}")))
}

/// Its fields are separated by tabs: `Partition:0`, `Offset:3`, `ce_id:…,ce_position:7,…` and `account-1`.
fn parse(line: &str) -> Option<Line> {
    let mut fields = line.split('\t');
    let mut next = |begin: &str| fields.next()?.strip_prefix(begin);
    let (partition, offset) = (next("Partition:")?, next("Offset:")?);
    let (headers, stream) = (next("")?, next("")?);
    let header = |name: &str| {
        headers.split(',').find_map(|header| header.strip_prefix(name)?.strip_prefix(':')).map(str::to_owned)
    };
    Some(Line {
        partition: partition.parse().ok()?,
        offset: offset.parse().ok()?,
        position: header("ce_position")?.parse().ok()?,
        version: header("ce_version")?.parse().ok()?,
        id: header("ce_id")?,
        stream: stream.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let line =
            "Partition:2\tOffset:17\tcontent-type:application/json,ce_id:a-b,ce_position:9,ce_version:3\taccount-x";
        let found = parse(line).expect("it can be read");
        assert_eq!((found.partition, found.offset, found.position, found.version), (2, 17, 9, 3));
        assert_eq!((found.id.as_str(), found.stream.as_str()), ("a-b", "account-x"));
    }
}
