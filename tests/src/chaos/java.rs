//! What clients find in Kafka that are not librdkafka: those in Java that come with the broker.

use std::{fmt, io, process::Stdio, time::Duration};

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

/// A transaction of which no coordinator knows any more: it hides for ever what comes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hanging {
    topic: String,
    partition: String,
    first_offset: String,
}

impl fmt::Display for Hanging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} from offset {} on", self.topic, self.partition, self.first_offset)
    }
}

/// Finds such transactions on a broker, and ends them, as its operator would.
pub(crate) async fn abort_hanging(address: &str, broker: usize) -> io::Result<Vec<Hanging>> {
    const TOOL: &str = "org.apache.kafka.tools.TransactionsCommand";
    let find = ["find-hanging", "--broker-id", &broker.to_string(), "--max-transaction-timeout", "0"];
    let found = run(TOOL, ["--bootstrap-server", address].into_iter().chain(find)).await?;
    let hanging: Vec<_> = found.lines().filter_map(hanging).collect();
    for Hanging { topic, partition, first_offset } in &hanging {
        let abort = ["abort", "--topic", topic, "--partition", partition, "--start-offset", first_offset];
        run(TOOL, ["--bootstrap-server", address].into_iter().chain(abort)).await?;
    }
    Ok(hanging)
}

/// `topic partition producer-id epoch coordinator-epoch start-offset …`
fn hanging(line: &str) -> Option<Hanging> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [topic, partition, _, _, _, first_offset, ..] = fields[..] else { return None };
    let is_number = |text: &str| text.parse::<u64>().is_ok();
    let owned = str::to_owned;
    (is_number(partition) && is_number(first_offset)).then(|| Hanging {
        topic: owned(topic),
        partition: owned(partition),
        first_offset: owned(first_offset),
    })
}

/// What a program prints that comes with the broker.
async fn run(program: &str, arguments: impl IntoIterator<Item = &str>) -> io::Result<String> {
    let installed = Installed::find().ok_or(io::ErrorKind::NotFound)?;
    let mut java = command(&installed.java);
    java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"])
        .arg(format!("-Dlog4j2.configurationFile={}", installed.logging.display()))
        .arg("-cp")
        .arg(installed.libraries.join("*"))
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null());
    let output = tokio::process::Command::from(java).kill_on_drop(true).output().await?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn read(brokers: &str, topic: &str, quiet: Duration) -> io::Result<Vec<Line>> {
    let quiet = quiet.as_millis().to_string();
    let mut arguments = vec!["--bootstrap-server", brokers, "--topic", topic, "--from-beginning"];
    arguments.extend(["--isolation-level", "read_committed", "--timeout-ms", &quiet]);
    for property in
        ["print.partition=true", "print.offset=true", "print.headers=true", "print.key=true", "print.value=false"]
    {
        arguments.extend(["--formatter-property", property]);
    }
    let text = run("org.apache.kafka.tools.consumer.ConsoleConsumer", arguments).await?;
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

    #[test]
    fn a_hanging_transaction_is_read() {
        let head = "Topic\tPartition\tProducerId\tProducerEpoch\tCoordinatorEpoch\tStartOffset\tLastTimestamp";
        assert_eq!(hanging(head), None);
        let found = hanging("orders \t0        \t2 \t17 \t3 \t1630 \t2026-11-30T16:38:01Z \t1").expect("it is one");
        assert_eq!(found.to_string(), "orders/0 from offset 1630 on");
    }
}
