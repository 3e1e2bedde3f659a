//! What the payment provider tells, in a Kafka topic of its own: an order is paid when the provider has captured its payment.

mod play;

pub use play::{ProviderError, play};

#[cfg(feature = "kafka")]
use evenfold::kafka::{KafkaTopic, RecordField};
use evenfold::{Consumer, Event, ExecuteError, PolicyError, Recorded, Repository, Resources, async_trait, reaction};

#[cfg(feature = "kafka")]
use crate::kafka::Kafka;
use crate::order::{Order, OrderCommand, OrderRefusal};

/// A message of the payment provider, in plain JSON: `{"type": "captured", "eventId": "E-1", "order": "ORD-1"}`, and more that does
/// not matter here.
#[derive(Debug, Clone, PartialEq, Eq, Event)]
#[event(category = "provider")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ProviderMessage {
    #[event(name = "captured")]
    Captured { order: String },
}

/// Pays the orders whose payments were captured.
#[derive(Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub struct PaymentProvider {
    pub orders: Repository<Order>,
}

impl PaymentProvider {
    /// Commands go to the aggregates of the same service.
    pub fn new(service: &Resources) -> Self {
        Self { orders: service.repository() }
    }
}

#[async_trait]
impl Consumer for PaymentProvider {
    const NAME: &'static str = "payment-provider";
    type Message = ProviderMessage;

    async fn handle(&self, message: &Recorded<ProviderMessage>) -> Result<(), PolicyError> {
        let ProviderMessage::Captured { order } = &message.data;
        let context = reaction(message, Self::NAME, "pay")?;
        match self.orders.execute_with(order.as_str(), OrderCommand::Pay, context).await {
            Ok(_) => Ok(()),
            // It was cancelled meanwhile, or a client has paid it. An order that does not exist is for an operator to see.
            Err(ExecuteError::Rejected(refusal)) if !matches!(refusal, OrderRefusal::Unknown) => {
                tracing::warn!(order, %refusal, "a captured payment pays no order");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The topic of the provider, with the types and ids of its messages. The consumer group has the prefix of those of the readers, so that
/// one right is enough for all.
#[cfg(feature = "kafka")]
pub fn topic(kafka: Kafka, topic: &str, group_prefix: &str) -> KafkaTopic {
    let topic = KafkaTopic::new(kafka.brokers, topic).settings(kafka.settings);
    let topic = topic.source(|source| group_prefix.clone_into(&mut source.group_prefix));
    topic.named_by(RecordField::json("/type")).identified_by(RecordField::json("/eventId"))
}
