//! The transactional producer: its settings, its beginning, and what its errors mean.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, Producer},
};
use tokio_util::sync::CancellationToken;

use super::{deliveries::Deliveries, failure::PublishError, size};
use crate::{client, config::RelayConfig};

/// How long one step of a transaction may take before it counts as failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long an open transaction may still take once the shutdown is asked for (R16).
pub(super) const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
const INIT_SLICE: Duration = Duration::from_secs(10);
const SHORTEST_PAUSE: Duration = Duration::from_micros(250);
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// Time that gets shorter when the shutdown is asked for.
pub(super) struct Patience {
    since: Instant,
    deadline: Instant,
    hurried: bool,
}

impl Patience {
    pub(super) fn new() -> Self {
        let since = Instant::now();
        Self { since, deadline: since + PATIENCE, hurried: false }
    }

    /// How long to wait before the next look: brokers answer within milliseconds, or something keeps them for longer.
    pub(super) fn pause(&self) -> Duration {
        (self.since.elapsed() / 8).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }

    pub(super) fn is_over(&mut self, shutdown: &CancellationToken) -> bool {
        let now = Instant::now();
        if !self.hurried && shutdown.is_cancelled() {
            self.hurried = true;
            self.deadline = self.deadline.min(now + SHUTDOWN_GRACE);
        }
        now >= self.deadline
    }
}

/// Waits, then takes in what the brokers have reported meanwhile. A poll of the client that is given time spins for the last
/// millisecond of it.
pub(super) fn wait(producer: &BaseProducer<Deliveries>, pause: Duration) {
    std::thread::sleep(pause);
    producer.poll(Duration::ZERO);
}

/// Returns when the brokers have reported on every record, or `false` after a while.
pub(super) fn flush(producer: &BaseProducer<Deliveries>, shutdown: &CancellationToken) -> bool {
    let mut patience = Patience::new();
    while producer.in_flight_count() > 0 {
        if patience.is_over(shutdown) || producer.context().reports().may_not_write {
            return false;
        }
        // Without time to wait it only ends the lingering.
        _ = producer.flush(Duration::ZERO);
        wait(producer, patience.pause());
    }
    true
}

pub(super) fn classify(producer: &BaseProducer<Deliveries>, error: KafkaError) -> PublishError {
    use RDKafkaErrorCode as Code;
    // The first fatal error is the cause of all later ones.
    let error = match producer.client().fatal_error() {
        Some((code, _)) => KafkaError::Global(code),
        None => error,
    };
    match error.rdkafka_error_code() {
        Some(Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch) => PublishError::Fenced,
        _ => PublishError::Kafka(error),
    }
}

/// Fences every other producer of this name. In slices: a call that timed out continues when it is made again,
/// unless the brokers refuse this client.
pub(super) fn init(producer: &BaseProducer<Deliveries>, shutdown: &CancellationToken) -> Result<(), PublishError> {
    let mut patience = Patience::new();
    loop {
        let Err(error) = producer.init_transactions(INIT_SLICE) else { return Ok(()) };
        if let Some(denied) = denied(producer) {
            return Err(denied);
        }
        let is_retriable = matches!(&error, KafkaError::Transaction(error) if error.is_retriable());
        if !is_retriable || patience.is_over(shutdown) {
            return Err(classify(producer, error));
        }
    }
}

/// Credentials that the brokers refuse show up as a time-out, and only on the side as what they are.
fn denied(producer: &BaseProducer<Deliveries>) -> Option<PublishError> {
    let asked = Instant::now();
    // One poll may do no more than the client's own work.
    while asked.elapsed() < Duration::from_millis(200) && producer.context().reports().denied.is_none() {
        wait(producer, LONGEST_PAUSE);
    }
    producer.context().reports().denied.take().map(PublishError::Kafka)
}

pub(super) fn settings(config: &RelayConfig) -> ClientConfig {
    let (id, largest) = (config.transactional_id(), size::client_limit(config).to_string());
    let tuning = [
        ("linger.ms", "5"),
        ("compression.type", "lz4"),
        ("queue.buffering.max.messages", "100000"),
        ("queue.buffering.max.kbytes", "65536"),
        ("message.max.bytes", largest.as_str()),
        ("transaction.timeout.ms", "60000"),
        ("topic.metadata.refresh.interval.ms", "5000"),
    ];
    let invariants = [("transactional.id", id.as_str()), ("enable.idempotence", "true"), ("acks", "all")];
    client::layered(&config.brokers, &tuning, &config.settings, &invariants)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use rdkafka::{mocking::MockCluster, producer::BaseRecord};
    use rustix::time::{ClockId, clock_gettime};

    use super::*;

    fn processor_time() -> Duration {
        clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
    }

    /// Seen to fail with a poll of half a millisecond instead of the pause: it spins.
    #[test]
    fn a_relay_that_waits_for_brokers_leaves_the_processor_alone() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("order-events", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        let client = client::layered(&brokers, &[], &client::Settings::new(), &[]);
        let producer: BaseProducer<Deliveries> = client.create_with_context(Deliveries::default()).unwrap();
        let send = || producer.send(BaseRecord::with_opaque_to("order-events", 0).key("1").payload("{}")).unwrap();
        send();
        assert!(flush(&producer, &CancellationToken::new()));
        cluster.broker_round_trip_time(1, Duration::from_secs(2)).unwrap();
        send();
        let (began, before) = (Instant::now(), processor_time());
        assert!(flush(&producer, &CancellationToken::new()));
        let (waited, used) = (began.elapsed(), processor_time().saturating_sub(before));
        assert!(waited > Duration::from_secs(1) && used < waited / 5, "{used:?} of {waited:?}");
    }
}
