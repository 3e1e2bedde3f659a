//! The parts of the service, its store (an embedded file or Postgres) and its source (the log or Kafka).

use std::{path::PathBuf, sync::Arc, time::Duration};

use evenfold::postgres::{ConnectError, PostgresStore};
use evenfold::sqlite::{OpenError, SqliteStore};
use evenfold::{Backoff, FailurePolicy, Service, ServiceBuilder, backend::STANDBY_LIMIT, service::StartError};
#[cfg(feature = "kafka")]
use evenfold::{
    ConsumerRunner, UnknownTypes,
    kafka::{KafkaRelay, UnusableSettings},
};

use crate::{
    cli::Parts,
    fulfilment::{Fulfilment, Ports},
    inventory::InventoryItem,
    notification::{Channels, FileNotifier, MailError, MailNotifier, Notification, Notifier},
    order::Order,
    payment::Payment,
    read_models::{
        AuditTrail, DailyRevenue, FirstDailyRevenue, OrderDetails, OrderSearch, OrderTimeline, OrdersByCustomer, Stock,
    },
    rules::Rules,
    shipment::Shipment,
};
#[cfg(feature = "kafka")]
use crate::{
    kafka::Kafka,
    provider::{self, PaymentProvider},
    read_models::OrderFunnel,
};

/// The name of the service.
const NAME: &str = "order-service";

/// An event that cannot be handled is tried again a few times; then only its own key waits, and an operator sees it.
const RETRIES: u32 = 3;
const RETRY_PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));

/// The service on the store that `parts` names, not started yet. The Kafka brokers need not answer yet.
///
/// # Errors
/// [`ServiceError`] when the store cannot be opened, or this program was built without Kafka.
pub async fn builder(parts: &Parts, rules: &Rules) -> Result<ServiceBuilder, ServiceError> {
    let (opening, outside) = (rules.stock.clone(), ports(parts, rules)?);
    let service = on_store(parts)
        .await?
        .aggregate::<Order>()
        .aggregate::<Payment>()
        .aggregate::<InventoryItem>()
        .aggregate::<Shipment>()
        .aggregate::<Notification>()
        .projection(OrderDetails)
        .projection(OrdersByCustomer)
        .projection(AuditTrail)
        .projection(Stock)
        .live(OrderTimeline)
        .live(OrderDetails)
        .saga(|shared| Fulfilment::new(shared, opening, outside))
        .on_failure(FailurePolicy::retry(RETRY_PAUSES, RETRIES).then_park())
        .standby_limit(parts.standby_limit.map_or(STANDBY_LIMIT, Duration::from_secs));
    let service =
        if parts.first_release { service.projection(FirstDailyRevenue) } else { service.projection(DailyRevenue) };
    with_kafka(service, parts)
}

/// What is outside: by the rules, until there is something real.
fn ports(parts: &Parts, rules: &Rules) -> Result<Ports, ServiceError> {
    let file: Arc<dyn Notifier> = Arc::new(FileNotifier::new(messages(parts)));
    let mail: Arc<dyn Notifier> = match &parts.mail {
        Some(url) => Arc::new(MailNotifier::new(url, &rules.mail)?),
        None => file.clone(),
    };
    let channels = Channels { mail, sms: file };
    Ok(Ports { gateway: Arc::new(rules.payments.clone()), carrier: Arc::new(rules.shipments.clone()), channels })
}

/// The file of messages: the one that was named, or one beside the embedded file.
pub fn messages(parts: &Parts) -> PathBuf {
    const NAME: &str = "messages.jsonl";
    let named = parts.messages.clone();
    named.unwrap_or_else(|| parts.db.as_deref().map_or_else(|| NAME.into(), |file| file.with_file_name(NAME)))
}

/// The service on its store, with the read model whose SQL depends on it.
async fn on_store(parts: &Parts) -> Result<ServiceBuilder, ServiceError> {
    if let Some(url) = &parts.store {
        let store = PostgresStore::connect(url).await?;
        return Ok(Service::builder(NAME, store.clone()).table_projection(OrderSearch, store));
    }
    let store = SqliteStore::open(parts.db.as_deref().unwrap_or("orders.db".as_ref())).await?;
    Ok(Service::builder(NAME, store.clone()).table_projection(OrderSearch, store))
}

#[cfg(feature = "kafka")]
fn with_kafka(service: ServiceBuilder, parts: &Parts) -> Result<ServiceBuilder, ServiceError> {
    let Some(kafka) = Kafka::of(parts)? else { return Ok(service) };
    let relay = KafkaRelay::new(&kafka.brokers).topic_prefix(&parts.topic_prefix).settings(kafka.settings.clone());
    let service = service.relay(relay).projection(OrderFunnel);
    let Some(topic) = &parts.payments_topic else { return Ok(service) };
    // The provider has more to tell than this service wants to know.
    let settings = |runner: ConsumerRunner<_>| runner.unknown_types(UnknownTypes::Ignore);
    Ok(service.consumer_with(provider::topic(kafka, topic, &parts.topic_prefix), PaymentProvider::new, settings))
}

#[cfg(not(feature = "kafka"))]
fn with_kafka(service: ServiceBuilder, parts: &Parts) -> Result<ServiceBuilder, ServiceError> {
    if parts.kafka.is_none() && parts.kafka_settings.is_none() { Ok(service) } else { Err(ServiceError::WithoutKafka) }
}

/// Whether `parts` name a Kafka.
///
/// # Errors
/// [`ServiceError`] when the file with the settings of its clients cannot be used.
pub fn has_kafka(parts: &Parts) -> Result<bool, ServiceError> {
    #[cfg(feature = "kafka")]
    return Ok(Kafka::of(parts)?.is_some());
    #[cfg(not(feature = "kafka"))]
    Ok(parts.kafka.is_some() || parts.kafka_settings.is_some())
}

/// Why the service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The embedded file cannot be opened.
    #[error("the file cannot be opened")]
    Sqlite(#[from] OpenError),
    /// The Postgres server cannot be used.
    #[error("the Postgres server cannot be used")]
    Postgres(#[from] ConnectError),
    /// Kafka was asked for, and this program was built without it.
    #[error("this program was built without Kafka: build it with `--features kafka`")]
    WithoutKafka,
    /// The settings of Kafka clients cannot be read.
    #[cfg(feature = "kafka")]
    #[error(transparent)]
    KafkaSettings(#[from] UnusableSettings),
    /// Mails cannot be sent so.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// What is registered does not fit together, or the store cannot be read.
    #[error(transparent)]
    Start(#[from] StartError),
}
