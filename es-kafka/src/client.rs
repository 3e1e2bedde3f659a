//! How Kafka clients are set up, and what their errors mean.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use es_core::backend::SourceError;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::refusal::{self, Refusal};

/// Further properties of librdkafka, for example for TLS and SASL (`security.protocol`, `ssl.…`, `sasl.…`), which are
/// compiled in but for GSSAPI.
///
/// They may tune, but not weaken: what exactly-once rests on is set after them. `Debug` shows names only, since some
/// values are passwords.
///
/// ```
/// use es_kafka::Settings;
///
/// let settings = Settings::from([("security.protocol", "SASL_SSL"), ("sasl.password", "secret")]);
/// assert_eq!(format!("{settings:?}"), r#"{"sasl.password", "security.protocol"}"#);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets one property, in the place of its former value.
    pub fn insert(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), value.into());
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Takes one property out.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Reads the properties of a file, as the clients of Java have them: a line `name=value` for each. A line that is empty or
    /// begins with `#` is ignored, and so are blanks around names and values.
    ///
    /// ```
    /// let settings = es_kafka::Settings::parse("# for tests\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n")?;
    /// assert_eq!(format!("{settings:?}"), r#"{"sasl.password", "security.protocol"}"#);
    /// # Ok::<(), es_kafka::InvalidSettings>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidSettings`] names the line, and does not repeat it: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, InvalidSettings> {
        let mut settings = Self::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let property = line.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
            let (name, value) =
                property.filter(|(name, _)| !name.is_empty()).ok_or(InvalidSettings { line: index + 1 })?;
            settings.insert(name, value);
        }
        Ok(settings)
    }
}

/// A line that is no property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line} is no property: write name=value, or begin it with #")]
pub struct InvalidSettings {
    line: usize,
}

impl Extend<(String, String)> for Settings {
    fn extend<T: IntoIterator<Item = (String, String)>>(&mut self, properties: T) {
        self.0.extend(properties);
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Settings {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(properties: T) -> Self {
        Self(properties.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl<N: Into<String>, V: Into<String>, const COUNT: usize> From<[(N, V); COUNT]> for Settings {
    fn from(properties: [(N, V); COUNT]) -> Self {
        properties.into_iter().collect()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

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
    for (name, value) in &settings.0 {
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

/// Client context of which only the log lines matter.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        report(&error, reason);
    }
}

impl ConsumerContext for Quiet {}

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
    if matches!(code, Some(Code::AllBrokersDown | Code::Fatal | Code::Authentication | Code::SaslAuthenticationFailed))
    {
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
            report(&told, "while asking");
            if Refusal::of(told.clone()).is_ok() {
                return Some(told);
            }
        }
    }
    None
}

/// Most errors that a consumer comes upon while it polls are news about connections, which it mends itself.
pub(crate) fn check(error: KafkaError) -> Result<(), SourceError> {
    report(&error, "while polling");
    if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
        return Err(unavailable(error));
    }
    // What brokers that are starting know of accounts may be incomplete: `told` judges a question that fails.
    let code = refusal::code(&error);
    if matches!(code, Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed)) {
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
