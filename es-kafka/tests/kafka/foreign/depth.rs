//! What a running consumer tells of the dead-letter topic.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use es_core::{
    Act, Consumer, ConsumerRunner, PolicyError, Recorded,
    telemetry::{DEAD_TOPIC_AGE, DEAD_TOPIC_RECORDS, Metric},
};
use es_kafka::{DeadLetterTopic, DeadRecordFilter};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::{
    forward::DELAY,
    picky::{Seen, forwards, reaches, run},
    setup::{Foreign, PaymentMessage},
};
use crate::setup::{PATIENCE, brokers};

/// Refuses everything. No other test has a consumer of this name, whose metrics these are.
struct Refuser;

#[async_trait]
impl Consumer for Refuser {
    const NAME: &'static str = "refuser";
    type Message = PaymentMessage;

    async fn handle(&self, _: &Recorded<PaymentMessage>) -> Result<(), PolicyError> {
        Err(PolicyError::Permanent("no".into()))
    }
}

/// What a gauge of the consumer shows; below zero before it shows anything.
fn shown(metrics: &PrometheusHandle, metric: Metric) -> f64 {
    let text = metrics.render();
    let series = format!("{}{{consumer=\"{}\"}} ", metric.name, Refuser::NAME);
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.map_or(-1.0, |value| value.parse().unwrap())
}

/// What operators have done with them is seen too.
#[tokio::test(flavor = "multi_thread")]
async fn the_dead_letters_of_a_consumer_are_told_with_the_age_of_the_first() {
    let metrics = PrometheusBuilder::new().install_recorder().expect("no other test has one");
    let waiting = async |records: f64| {
        let deadline = Instant::now() + PATIENCE;
        while (shown(&metrics, DEAD_TOPIC_RECORDS) - records).abs() > f64::EPSILON {
            let found = shown(&metrics, DEAD_TOPIC_RECORDS);
            assert!(Instant::now() < deadline, "{found} wait, and not {records}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        shown(&metrics, DEAD_TOPIC_AGE)
    };
    let foreign = Foreign::new(1).await;
    let source = foreign.source().check_topics_every(DELAY);
    let runner = ConsumerRunner::new(Refuser, source, foreign.store.clone()).on_failure(forwards());
    let running = run(runner, Seen::default());
    let none = waiting(0.0).await;
    assert!(none.abs() < f64::EPSILON, "{none}");
    foreign.pay(0, "a", 1, 1);
    waiting(1.0).await;
    foreign.pay(0, "a", 2, 2);
    let age = waiting(2.0).await;
    assert!(age > 0.0 && age < PATIENCE.as_secs_f64(), "{age}");

    let dead = DeadLetterTopic::new(brokers(), &*foreign.topic);
    let act = Act::new("ada", "ticket 7").unwrap();
    let found = dead.list(&DeadRecordFilter::default()).await.unwrap();
    dead.discard(&found[..1], &act).await.unwrap();
    waiting(1.0).await;
    foreign.pay(0, "a", 3, 3);
    waiting(2.0).await;
    dead.discard(&dead.list(&DeadRecordFilter::default()).await.unwrap(), &act).await.unwrap();
    let none = waiting(0.0).await;
    assert!(none.abs() < f64::EPSILON, "{none}");
    reaches(&foreign, Refuser::NAME, foreign.shard(0), 3).await;
    running.stop().await;
}
