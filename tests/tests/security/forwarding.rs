//! The rights of a consumer that forwards, and of an operator who takes care of dead letters.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use es_core::{
    Act, EventOrder,
    backend::{Categories, EventSource, FailedEvent, Split, Subscription},
};
use es_kafka::{DeadLetterTopic, DeadRecordFilter, KafkaTopic, RecordField, ReplayTo, Settings};
use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tracing::instrument::WithSubscriber;
use uuid::Uuid;

use crate::{
    acls::Resource,
    broker::{Broker, Listener, Mechanism},
    rights::{PREFIX, Role, until},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// The log of one part.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl io::Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics with it").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Each without one of its rights on a topic of its own, and at last with all of them. Seen to fail: a consumer that may write
/// nowhere tried for ever, and an operator without a consumer group was told to grant that, or Write in place of Create.
#[tokio::test(flavor = "multi_thread")]
async fn who_forwards_or_takes_care_of_dead_letters_says_which_right_is_lacking() {
    let roles = [Role::Forwarder, Role::Letters];
    let cases = roles.into_iter().flat_map(|role| {
        let rights = role.rights().len();
        (0..=rights).map(move |lacks| (role, lacks, format!("{}-{lacks}", role.account())))
    });
    let cases: Vec<_> = cases.collect();
    let accounts: Vec<_> = cases.iter().map(|(.., account)| account.as_str()).collect();
    let Some(broker) = Broker::start(&accounts, &[]).await else { return };
    // Each case has topics that are named after its account.
    let rights = cases.iter().flat_map(|(role, lacks, account)| {
        let rights = role.rights_on(account).into_iter().enumerate().filter(|(index, _)| index != lacks);
        rights.map(|(_, right)| (account.clone(), right)).collect::<Vec<_>>()
    });
    broker.grant(rights);
    for (role, _, account) in &cases {
        broker.create_topic(account, &[("retention.ms", "-1")]).await;
        produce(&broker, account, &[], r#"{"type":"captured"}"#);
        if *role == Role::Letters {
            for topic in [format!("{account}.retry.1"), format!("{account}.dlq")] {
                broker.create_topic(&topic, &[("retention.ms", "-1")]).await;
            }
            let story = [
                ("handler", "provider"),
                ("original-topic", account),
                ("original-partition", "0"),
                ("original-offset", "0"),
            ];
            produce(&broker, &format!("{account}.dlq"), &story, "{}");
        }
    }
    let mut wrong = Vec::new();
    for (role, lacks, account) in cases {
        let settings = broker.settings(&account, Mechanism::Plain);
        let lacking = role.rights_on(&account).into_iter().nth(lacks);
        let began = Instant::now();
        let told = loop {
            let told = match role {
                Role::Forwarder => forwards(&broker, &account, settings.clone()).await,
                _ => takes_care(&broker, &account, settings.clone()).await,
            };
            // A broker acts on what it was granted a moment later.
            if lacking.is_some() || told.is_none() || began.elapsed() > PATIENCE {
                break told;
            }
        };
        let is_right = match (&lacking, &told) {
            (None, told) => told.is_none(),
            (Some(_), None) => false,
            (Some(right), Some(told)) => {
                let on = if right.resource == Resource::Group { "group" } else { "topic" };
                told.contains("grant") && told.contains(&format!("{:?}", right.operation)) && told.contains(on)
            }
        };
        if !is_right {
            wrong.push(format!("{account} without {lacking:?}: {told:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a consumer says that reads its first record, forwards it, and reads it again. `None` where it can, and sees the settings.
async fn forwards(broker: &Broker, account: &str, settings: Settings) -> Option<String> {
    let source = KafkaTopic::new(broker.address(Listener::Good), account)
        .settings(settings)
        .named_by(RecordField::json("/type"))
        .retry_after([Duration::from_millis(1)])
        .source(|source| PREFIX.clone_into(&mut source.group_prefix));
    let subscription = Subscription {
        reader: account.to_owned(),
        store: Uuid::nil(),
        categories: Categories::Only(vec!["provider"]),
        order: EventOrder::PerStream,
        split: Split::NONE,
        forwards: true,
    };
    let said = Said::default();
    let writes = said.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writes.clone()).finish();
    let reading = until(&source, &subscription, async |batch| {
        let Some(event) = batch.events.first() else { return Ok(false) };
        if batch.shard.source.ends_with(".retry.1") {
            return Ok(true);
        }
        let (shard, class) = (&batch.shard, "refused");
        let (reader, cause, attempts, is_lasting) = (account, "no", 1, false);
        source.forward(FailedEvent { reader, shard, event, cause, class, attempts, is_lasting }).await?;
        Ok(false)
    });
    let told = reading.with_subscriber(log).await;
    let said = String::from_utf8_lossy(&said.0.lock().expect("no test panics with it")).into_owned();
    told.or_else(|| said.lines().find(|line| line.contains("granted?")).map(str::to_owned))
}

/// What an operator is told who replays a letter to its handler, and to the topic.
async fn takes_care(broker: &Broker, account: &str, settings: Settings) -> Option<String> {
    let dead = DeadLetterTopic::new(broker.address(Listener::Good), account).settings(settings);
    let act = Act::new("ada", "ticket 7").expect("a reason");
    let done = async {
        let found = dead.list(&DeadRecordFilter::default()).await?;
        dead.replay(&found[..1], ReplayTo::Handler, &act).await?;
        dead.replay(&found[..1], ReplayTo::Topic, &act).await
    };
    done.await.err().map(|error| error.to_string())
}

fn produce(broker: &Broker, topic: &str, headers: &[(&str, &str)], value: &str) {
    let client = ClientConfig::new().set("bootstrap.servers", broker.internal()).create();
    let producer: BaseProducer = client.expect("a client");
    let headers = headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(*value) }));
    producer.send(BaseRecord::to(topic).key("a").payload(value).headers(headers)).expect("there is room");
    producer.flush(PATIENCE).expect("it is written");
}
