//! The rights that each part needs, as `docs/kafka-security.md` lists them, and what it says without any one of them.

use std::time::{Duration, Instant};

use es_core::{
    Append, EventData, EventOrder, EventStore, Expected, MemoryStore, NewEvent, Position, StreamId,
    backend::{Batch, Categories, Checkpoint, Delivery, EventSource, SourceError, Split, Subscription},
    error::with_causes,
};
use es_kafka::{
    KafkaSource, KafkaSourceConfig, KafkaTopic, Reconcile, RecordField, Relay, RelayConfig, RelayError, RelayStatus,
    Settings,
};
use rdkafka::{
    ClientConfig,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    acls::{
        Operation::{self, Create, DescribeConfigs, Read, Write},
        Pattern::{self, Literal, Prefixed},
        Resource::{self, Group, Topic, TransactionalId},
        Right,
    },
    broker::{Broker, Listener, Mechanism},
};

/// What topics, groups and transactional ids of the service start with.
pub(crate) const PREFIX: &str = "shop.";
/// The topic of another system.
pub(crate) const PAYMENTS: &str = "payments";

const PATIENCE: Duration = Duration::from_mins(1);

/// Who runs with an account of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Relay,
    Reader,
    Consumer,
    /// A consumer that forwards.
    Forwarder,
    Operator,
    /// An operator who takes care of dead letters.
    Letters,
}

impl Role {
    pub(crate) const ALL: [Self; 6] =
        [Self::Relay, Self::Reader, Self::Consumer, Self::Forwarder, Self::Operator, Self::Letters];

    /// Those that have to do with what is forwarded are in a test of their own.
    const ON_THE_PATH: [Self; 4] = [Self::Relay, Self::Reader, Self::Consumer, Self::Operator];

    pub(crate) const fn account(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Reader => "reader",
            Self::Consumer => "consumer",
            Self::Operator => "operator",
            Self::Forwarder => "forwarder",
            Self::Letters => "letters",
        }
    }

    /// All that it needs.
    pub(crate) fn rights(self) -> Vec<Right> {
        self.rights_on(PAYMENTS)
    }

    /// All that it needs where this is the topic of another system.
    pub(crate) fn rights_on(self, payments: &str) -> Vec<Right> {
        let right = |resource: Resource, pattern: Pattern, name: &str, operation: Operation| Right {
            resource,
            name: name.to_owned(),
            pattern,
            operation,
        };
        let own = |resource, operation| right(resource, Prefixed, PREFIX, operation);
        let beside = |operation| right(Topic, Prefixed, &format!("{payments}."), operation);
        match self {
            Self::Relay => vec![
                own(Topic, Create),
                own(Topic, Write),
                own(Topic, Read),
                own(Topic, DescribeConfigs),
                own(TransactionalId, Write),
            ],
            Self::Reader => vec![own(Topic, Read), own(Group, Read)],
            Self::Consumer => vec![right(Topic, Literal, payments, Read), own(Group, Read)],
            Self::Forwarder => vec![
                right(Topic, Literal, payments, Read),
                own(Group, Read),
                beside(Create),
                beside(Write),
                beside(Read),
                beside(DescribeConfigs),
            ],
            Self::Letters => vec![beside(Read), beside(Write), beside(Create), right(Topic, Literal, payments, Write)],
            Self::Operator => vec![own(Topic, Read), own(Topic, DescribeConfigs)],
        }
    }
}

/// The table of the document, row by row.
#[test]
fn the_rights_are_those_of_the_document() {
    let text = include_str!("../../../docs/kafka-security.md");
    for role in Role::ALL {
        let listed = text.lines().filter(|line| line.starts_with(&format!("| {} |", role.account())));
        let listed: Vec<_> =
            listed.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>()[2..5].join(" ")).collect();
        let needed = role.rights().into_iter().map(|Right { resource, name, pattern, operation }| {
            let name = if pattern == Prefixed { format!("`{name}`…") } else { format!("`{name}`") };
            format!("{resource:?} {name} {operation:?}")
        });
        assert_eq!(listed, needed.collect::<Vec<_>>(), "{}", role.account());
    }
}

/// The brokers' answer to a part that lacks one right is told as what to grant. That each is missed shows that none is too many.
#[tokio::test(flavor = "multi_thread")]
async fn each_part_says_which_right_it_lacks() {
    let lacking = |role: Role, lacks: usize| format!("{}-without-{lacks}", role.account());
    let cases: Vec<_> = Role::ON_THE_PATH
        .into_iter()
        .flat_map(|role| (0..role.rights().len()).map(move |lacks| (role, lacks)))
        .collect();
    let accounts: Vec<_> = cases.iter().map(|(role, lacks)| lacking(*role, *lacks)).collect();
    let names: Vec<&str> = accounts.iter().map(String::as_str).chain(Role::ON_THE_PATH.map(Role::account)).collect();
    let Some(broker) = Broker::start(&names, &[]).await else { return };
    let whole = Role::ON_THE_PATH.into_iter().flat_map(|role| {
        let account = move |right| (role.account().to_owned(), right);
        role.rights().into_iter().map(account)
    });
    let lacks_one = cases.iter().flat_map(|(role, lacks)| {
        let rights = role.rights().into_iter().enumerate().filter(|(index, _)| index != lacks);
        rights.map(|(_, right)| (lacking(*role, *lacks), right)).collect::<Vec<_>>()
    });
    broker.grant(lacks_one.chain(whole));
    broker.create_topic(PAYMENTS, &[("retention.ms", "-1")]).await;
    tell_payment(&broker, "E-1", "ORD-1");
    let log = log().await;
    let began = Instant::now();
    // A broker acts on what it was granted a moment later, and on all of it at once.
    while let Err(error) = published(&broker, log.clone(), "relay", "shop.all-").await {
        assert!(began.elapsed() < PATIENCE, "it has all rights: {error}");
    }
    let mut wrong = Vec::new();
    for (role, lacks) in cases {
        let right = role.rights().swap_remove(lacks);
        // It reads back what was published before, if anything was.
        let prefix = if right.operation == Read { "shop.all-".to_owned() } else { format!("shop.{lacks}-") };
        let told = told_by(&broker, log.clone(), role, &lacking(role, lacks), &prefix).await;
        let says = format!("{:?}", right.operation);
        let on = match right.resource {
            Topic => "topic",
            Group => "group",
            TransactionalId => "transactional id",
        };
        match told {
            Some(told) if told.contains("grant") && told.contains(&says) && told.contains(on) => {}
            told => wrong.push(format!("{role:?} without {right:?}: {told:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a part says that runs with this account. `None` where all is well.
async fn told_by(broker: &Broker, log: MemoryStore, role: Role, account: &str, prefix: &str) -> Option<String> {
    let settings = broker.settings(account, Mechanism::Plain);
    match role {
        Role::Relay => match published(broker, log.clone(), account, prefix).await {
            Err(error @ RelayError::Refused { .. }) => Some(error.to_string()),
            Err(error) => panic!("{account}: {error:?}"),
            // It goes on, and tells operators.
            Ok(config) => findings(&RelayStatus::of(&log, &config).await.expect("it may read the topics")),
        },
        Role::Reader => {
            let config = KafkaSourceConfig {
                topic_prefix: "shop.all-".to_owned(),
                group_prefix: prefix.to_owned(),
                settings,
                ..KafkaSourceConfig::new(broker.address(Listener::Good), "orders")
            };
            refused(&KafkaSource::new(config), "order", account).await
        }
        Role::Consumer => {
            let source = KafkaTopic::new(broker.address(Listener::Good), PAYMENTS)
                .settings(settings)
                .named_by(RecordField::json("/type"))
                .source(|source| prefix.clone_into(&mut source.group_prefix));
            refused(&source, "provider", account).await
        }
        Role::Forwarder | Role::Letters => unreachable!("they have a test of their own"),
        Role::Operator => {
            let config = RelayConfig {
                create_topics: false,
                topic_prefix: "shop.all-".to_owned(),
                settings,
                ..RelayConfig::new(broker.address(Listener::Good), "orders")
            };
            let status = match RelayStatus::of(&log, &config).await {
                Err(error) => Some(error.to_string()),
                Ok(status) => findings(&status),
            };
            match Reconcile::new(log, config).run(None, |_| {}).await {
                Err(error) if !error.is_transient() => Some(error.to_string()),
                Err(error) => panic!("{account}: {error:?}"),
                Ok(_) => status,
            }
        }
    }
}

fn findings(status: &RelayStatus) -> Option<String> {
    let advice: Vec<_> = status.findings.iter().filter_map(|finding| finding.advice.clone()).collect();
    (!advice.is_empty()).then(|| advice.join(" "))
}

async fn log() -> MemoryStore {
    let log = MemoryStore::new();
    let data = EventData { name: "order.placed".into(), schema_version: 1, payload: "{}".into() };
    let stream = StreamId::new("order", "1").expect("a name");
    log.append(Append::new(stream, Expected::Any, vec![NewEvent::new(data)])).await.expect("it is in memory");
    log
}

/// Runs a relay until it has published.
pub(crate) async fn published(
    broker: &Broker,
    log: MemoryStore,
    account: &str,
    prefix: &str,
) -> Result<RelayConfig, RelayError> {
    let settings = broker.settings(account, Mechanism::Plain);
    publish(log, broker.address(Listener::Good), settings, prefix).await
}

pub(crate) async fn publish(
    log: MemoryStore,
    brokers: String,
    settings: Settings,
    prefix: &str,
) -> Result<RelayConfig, RelayError> {
    let config = RelayConfig { topic_prefix: prefix.to_owned(), settings, ..RelayConfig::new(brokers, "orders") };
    let (relay, shutdown) = (Relay::new(log, config.clone()), CancellationToken::new());
    let mut published = relay.published();
    let stops = shutdown.clone();
    let mut running = tokio::spawn(async move { relay.run(stops).await });
    tokio::select! {
        ended = &mut running => return Err(ended.expect("it runs").expect_err("no shutdown was asked for")),
        Ok(_) = published.wait_for(|position| *position > Position::ZERO) => {}
        () = tokio::time::sleep(PATIENCE) => panic!("the relay neither publishes nor ends: {config:?}"),
    }
    shutdown.cancel();
    running.await.expect("it runs").expect("it publishes");
    Ok(config)
}

/// What a source says that its reader cannot read the first event of. `None` where it can.
pub(crate) async fn refused(source: &dyn EventSource, category: &'static str, reader: &str) -> Option<String> {
    let subscription = Subscription {
        reader: reader.to_owned(),
        store: Uuid::nil(),
        categories: Categories::Only(vec![category]),
        order: EventOrder::PerStream,
        split: Split::NONE,
        forwards: false,
    };
    until(source, &subscription, async |batch| Ok(!batch.events.is_empty())).await
}

/// What `source` says that does not come to a batch with which `is_enough` is content. `None` where it does.
pub(crate) async fn until(
    source: &dyn EventSource,
    subscription: &Subscription,
    is_enough: impl AsyncFn(&Batch) -> Result<bool, SourceError>,
) -> Option<String> {
    let began = Instant::now();
    loop {
        // As a worker does: what is transient is tried again.
        match read(source, subscription, &is_enough, began + PATIENCE).await {
            Ok(()) => return None,
            Err(error) if error.is_transient() && began.elapsed() < PATIENCE => {}
            Err(error) => {
                return Some(if error.is_transient() {
                    format!("late: {}", with_causes(&error))
                } else {
                    error.to_string()
                });
            }
        }
    }
}

async fn read(
    source: &dyn EventSource,
    subscription: &Subscription,
    is_enough: &impl AsyncFn(&Batch) -> Result<bool, SourceError>,
    until: Instant,
) -> Result<(), SourceError> {
    let mut feed = source.open(subscription).await?;
    loop {
        match tokio::time::timeout_at(until.into(), feed.next()).await {
            Err(_) => return Err(SourceError::Unavailable("it is silent".into())),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(Delivery::Assigned(shards))) => {
                for shard in shards {
                    feed.start(&shard, &Checkpoint::default()).await?;
                }
            }
            Ok(Ok(Delivery::Batch(batch))) => {
                if is_enough(&batch).await? {
                    return Ok(());
                }
            }
            Ok(Ok(_)) => {}
        }
    }
}

/// Tells as the payment provider that a payment was captured.
pub(crate) fn tell_payment(broker: &Broker, id: &str, order: &str) {
    let client = ClientConfig::new().set("bootstrap.servers", broker.internal()).create();
    let producer: BaseProducer = client.expect("a client");
    let message = format!(r#"{{"type":"captured","eventId":"{id}","order":"{order}"}}"#);
    producer.send(BaseRecord::to(PAYMENTS).key(order).payload(&message)).expect("there is room");
    producer.flush(PATIENCE).expect("it is written");
}
