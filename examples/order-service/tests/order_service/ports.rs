//! A payment provider, a carrier and a mail server that do not answer at once, or refuse.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use evenfold::{CommandContext, MemoryStore, Service, async_trait, react::saga::Status};
use order_service::{
    carrier::{Carrier, CarrierError},
    fulfilment::{Fulfilment, Ports},
    gateway::{Charge, Charged, GatewayError, PaymentGateway},
    ids::{CustomerId, OrderId},
    inventory::InventoryItem,
    line::Line,
    money::Money,
    notification::{Channels, Message, Notification, Notifier, NotifyError},
    order::{Drive, Order, OrderCommand},
    payment::Payment,
    placing::Placing,
    rules::StockRules,
    shipment::Shipment,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What was asked under each key, and how often.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<Mutex<BTreeMap<(&'static str, String), u32>>>);

impl Asked {
    /// The first request under a key has no answer.
    fn is_first(&self, what: &'static str, key: &str) -> bool {
        let mut asked = self.0.lock().unwrap();
        let times = asked.entry((what, key.to_owned())).or_default();
        *times += 1;
        *times == 1
    }

    /// How often each was asked, with as many keys as there are numbers.
    fn times(&self, what: &str) -> Vec<u32> {
        let asked = self.0.lock().unwrap();
        asked.iter().filter(|((of, _), _)| *of == what).map(|(_, times)| *times).collect()
    }
}

#[async_trait]
impl PaymentGateway for Asked {
    async fn capture(&self, key: &str, _: &Charge) -> Result<Charged, GatewayError> {
        if self.is_first("capture", key) {
            return Err(GatewayError::Unavailable("no answer".into()));
        }
        Ok(Charged::Now)
    }

    async fn refund(&self, key: &str, _: &Charge) -> Result<(), GatewayError> {
        if self.is_first("refund", key) {
            return Err(GatewayError::Unavailable("no answer".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl Carrier for Asked {
    async fn schedule(&self, key: &str, _: &OrderId, customer: &CustomerId) -> Result<(), CarrierError> {
        if self.is_first("schedule", key) {
            return Err(CarrierError::Unavailable("no answer".into()));
        }
        if customer.as_ref() == "USR-FAR" {
            return Err(CarrierError::Refused("no carrier goes there".to_owned()));
        }
        Ok(())
    }

    async fn cancel(&self, _: &str, _: &OrderId) -> Result<(), CarrierError> {
        Ok(())
    }
}

#[async_trait]
impl Notifier for Asked {
    async fn send(&self, message: &Message) -> Result<(), NotifyError> {
        self.is_first("send", &message.key);
        Err(NotifyError::Permanent("no such mailbox".into()))
    }
}

async fn shop(asked: &Asked) -> Service {
    let notifier: Arc<dyn Notifier> = Arc::new(asked.clone());
    let channels = Channels { mail: notifier.clone(), sms: notifier };
    let ports = Ports { gateway: Arc::new(asked.clone()), carrier: Arc::new(asked.clone()), channels };
    let service = Service::builder("shop", MemoryStore::new())
        .aggregate::<Order>()
        .aggregate::<Payment>()
        .aggregate::<InventoryItem>()
        .aggregate::<Shipment>()
        .aggregate::<Notification>()
        .saga(|shared| Fulfilment::new(shared, StockRules::default(), ports));
    service.start().await.unwrap()
}

/// How the process of an order ends.
async fn fulfilled(service: &Service, customer: &str) -> Status {
    let (id, customer): (OrderId, CustomerId) = (OrderId::random(), customer.parse().unwrap());
    let (product, quantity) = ("PROD-1".parse().unwrap(), 2.try_into().unwrap());
    let lines = vec![Line { product, quantity, price: Money::of_cents(500) }];
    let drive = Drive::Saga { pay_within_ms: 60_000 };
    let place = OrderCommand::Place { customer: customer.clone(), lines, total: Money::of_cents(1_000), drive };
    let placing = Placing::new(service.store());
    placing.place(&id, &customer, &place, CommandContext::default()).await.unwrap();
    service.sagas::<Fulfilment>().ended(id.as_ref(), PATIENCE).await.unwrap().status
}

#[tokio::test]
async fn r20_what_does_not_answer_is_asked_again_under_the_same_key() {
    let asked = Asked::default();
    let service = shop(&asked).await;
    assert_eq!(fulfilled(&service, "USR-1").await, Status::Completed);
    assert_eq!([asked.times("capture"), asked.times("schedule"), asked.times("refund")], [vec![2], vec![2], vec![]]);
    assert_eq!(fulfilled(&service, "USR-FAR").await, Status::Compensated);
    assert_eq!(asked.times("refund"), [2]);
    service.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn an_order_does_not_fail_because_its_customer_cannot_be_told() {
    let asked = Asked::default();
    let service = shop(&asked).await;
    assert_eq!(fulfilled(&service, "USR-1").await, Status::Completed);
    assert_eq!(asked.times("send"), [1, 1, 1], "three messages, of which none can be sent");
    service.shutdown(PATIENCE).await.unwrap();
}
