//! How Kafka clients are set up, and what their errors mean.

mod settings;

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use es_core::backend::SourceError;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    metadata::MetadataTopic,
};

pub use self::settings::{InvalidSettings, Settings, UnusableSettings};
use crate::refusal::{self, Refusal};

/// Properties in three layers: defaults, the user's, and those on which correctness rests.
pub(crate) fn layered(
    brokers: &str,
    tuning: &[(&str, &str)],
    settings: &Settings,
    invariants: &[(&str, &str)],
) -> ClientConfig {
    let mut config = ClientConfig::new();
    // For any setting of the crate `log`, which few applications use together with `tracing`: [`log`] sorts the lines.
    config.set_log_level(RDKafkaLogLevel::Info);
    config.set("socket.keepalive.enable", "true").set("client.id", "es-kafka");
    for (name, value) in tuning {
        config.set(*name, *value);
    }
    for (name, value) in settings.iter() {
        config.set(name, value);
    }
    config.set("bootstrap.servers", brokers);
    for (name, value) in invariants {
        config.set(*name, *value);
    }
    config
}

pub(crate) fn consumer(brokers: &str, group: &str, settings: &Settings) -> ClientConfig {
    let tuning = [
        ("fetch.wait.max.ms", "100"),
        ("fetch.queue.backoff.ms", "50"),
        // The default of 64 MiB is per consumer (R17).
        ("queued.max.messages.kbytes", "16384"),
        // New topics and partitions are noticed within this time.
        ("topic.metadata.refresh.interval.ms", "2000"),
        // A member that was killed is given up after 6 s, the least that brokers grant by default; the
        // others hear of it with their next heartbeat. Its partitions are read again within 10 s (R18).
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "1000"),
        ("max.poll.interval.ms", "300000"),
    ];
    let invariants = [
        ("group.id", group),
        ("group.protocol", "classic"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("isolation.level", "read_committed"),
        // Checkpoints live with the read model; Kafka's offsets are for tooling at most.
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        // A truncated topic is an alarm, not a jump.
        ("auto.offset.reset", "error"),
        ("allow.auto.create.topics", "false"),
    ];
    layered(brokers, &tuning, settings, &invariants)
}

/// The same client, but it reads from the leaders of partitions, whatever its rack. A replica near by may end before what is committed: who
/// asks what there is must not take that for all.
pub(crate) fn of_leaders(client: &ClientConfig) -> ClientConfig {
    let mut client = client.clone();
    client.set("client.rack", "");
    client
}

/// Client context of which only the log lines matter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
        HEARD.set(reason.to_owned());
    }
}

impl ConsumerContext for Quiet {}

thread_local! {
    /// What the client that this thread polls has said of its last error.
    static HEARD: Cell<String> = const { Cell::new(String::new()) };
}

/// Whether a connection was lost in the middle of its handshake, which the client calls a failed authentication too.
pub(crate) fn is_lost_in_handshake(reason: &str) -> bool {
    reason.contains("handshake failed: Local:")
}

/// How long an error of one kind is not repeated in the log.
const QUIET: Duration = Duration::from_secs(30);

/// When an error was logged last, and how often it has come since.
struct Told {
    code: Option<RDKafkaErrorCode>,
    at: Instant,
    unsaid: u64,
}

/// Logs an error that a client reports on the side: at once, and again when it still comes after
/// [`QUIET`], since a client without brokers repeats it several times a second. The ends of partitions, and topics
/// that do not exist yet, are no errors.
pub(crate) fn report(error: &KafkaError, reason: &str) {
    thread_local! {
        /// Every relay and every reader has a thread of its own: what one reports does not silence another.
        static TOLD: RefCell<Vec<Told>> = RefCell::default();
    }
    use RDKafkaErrorCode as Code;
    let code = error.rdkafka_error_code();
    if matches!(error, KafkaError::PartitionEOF(_)) || code == Some(Code::PartitionEOF) {
        return;
    }
    if matches!(code, Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition)) {
        tracing::debug!(%error, reason, "kafka client");
        return;
    }
    let repeated = TOLD.with_borrow_mut(|told| match told.iter_mut().find(|told| told.code == code) {
        Some(told) if told.at.elapsed() < QUIET => {
            told.unsaid += 1;
            None
        }
        Some(told) => {
            told.at = Instant::now();
            Some(std::mem::take(&mut told.unsaid))
        }
        None => {
            told.push(Told { code, at: Instant::now(), unsaid: 0 });
            Some(0)
        }
    });
    let Some(repeated) = repeated else { return };
    let thread = std::thread::current();
    let client = thread.name().unwrap_or("unnamed");
    if matches!(
        code,
        Some(Code::AllBrokersDown | Code::Fatal | Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL)
    ) {
        tracing::error!(client, %error, reason, repeated, "kafka client");
    } else {
        tracing::warn!(client, %error, reason, repeated, "kafka client");
    }
}

pub(crate) fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    // Connections that failed, producers that were fenced: they come as errors as well, and [`report`] keeps those from
    // flooding the log.
    if matches!(facility, "FAIL" | "ERROR" | "FATAL" | "TXNERR" | "ADDPARTS") {
        tracing::debug!(facility, "{line}");
        return;
    }
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
            tracing::error!(facility, "{line}");
        }
        RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::warn!(facility, "{line}"),
        RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(facility, "{line}"),
    }
}

/// What an error of a client means for its reader: open again, or stop and report to an operator.
pub(crate) fn unavailable(error: KafkaError) -> SourceError {
    match Refusal::of(error) {
        Ok(Refusal { remedy, source }) => SourceError::Refused { remedy, source: source.into() },
        Err(error) => SourceError::Unavailable(error.into()),
    }
}

/// What the brokers refuse this client, for a question that got no answer: credentials that are wrong
/// show up as a time-out, and only on the side as what they are. Not to be called within a rebalance, since it polls.
pub(crate) fn told<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<KafkaError> {
    let asked = Instant::now();
    // One poll may do no more than the client's own work.
    while asked.elapsed() < Duration::from_millis(200) {
        if let Some(Err(told)) = consumer.poll(Duration::from_millis(10)) {
            let reason = HEARD.take();
            report(&told, "while asking");
            if !is_lost_in_handshake(&reason) && concerns_questions(&told) && Refusal::of(told.clone()).is_ok() {
                return Some(told);
            }
        }
    }
    None
}

/// Each client has a group, since it could not read otherwise, and asks for its coordinator. Whether it may is of no importance to
/// one that joins none.
pub(crate) fn concerns_questions(error: &KafkaError) -> bool {
    refusal::code(error) != Some(RDKafkaErrorCode::GroupAuthorizationFailed)
}

/// What an error means that a client which joins no group comes upon while it reads: most are news about connections, which it mends
/// itself.
///
/// # Errors
/// What ends the client: a fatal error, or the brokers' refusal to let it read.
pub(crate) fn check_reading(error: KafkaError, doing: &str) -> KafkaResult<()> {
    report(&error, doing);
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return Err(error);
    }
    if is_credentials(&error) || !concerns_questions(&error) || Refusal::of(error.clone()).is_err() {
        return Ok(());
    }
    Err(error)
}

/// What brokers that are starting know of accounts may be incomplete: [`told`] judges a question that fails.
fn is_credentials(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(refusal::code(error), Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::SSL))
}

/// Whether `topic` exists. (In a list of all topics, those that this client may not see are left out.)
///
/// # Errors
/// Also when this client may not see it.
pub(crate) fn exists<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    patience: Duration,
) -> KafkaResult<bool> {
    let metadata = consumer.fetch_metadata(Some(topic), patience)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(false) };
    check_visible(found)?;
    Ok(!found.partitions().is_empty())
}

/// # Errors
/// When this client may not see the topic.
pub(crate) fn check_visible(topic: &MetadataTopic) -> KafkaResult<()> {
    match topic.error().map(RDKafkaErrorCode::from) {
        Some(denied @ RDKafkaErrorCode::TopicAuthorizationFailed) => Err(KafkaError::MetadataFetch(denied)),
        _ => Ok(()),
    }
}

/// Most errors that a consumer comes upon while it polls are news about connections, which it mends itself.
pub(crate) fn check(error: KafkaError) -> Result<(), SourceError> {
    report(&error, "while polling");
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return Err(unavailable(error));
    }
    if is_credentials(&error) {
        return Ok(());
    }
    match unavailable(error) {
        refused @ SourceError::Refused { .. } => Err(refused),
        _ => Ok(()),
    }
}

/// Whether a partition no longer holds the offset that was asked for.
pub(crate) fn is_out_of_range(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
    )
}
