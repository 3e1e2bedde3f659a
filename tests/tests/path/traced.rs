//! One trace from HTTP through the store and Kafka to the read models, and on into what follows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

use es_core::{Projection, service::RELAY, testing::subscribe};
use order_service::{
    fulfilment,
    read_models::{NAMES, Stock},
};
use reqwest::Client;
use serde_json::{Value, json};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    filter::LevelFilter,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

use crate::{compare, ground::Ground};

/// The fields of each span, and its name under `span`.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<BTreeMap<&'static str, String>>>>);

/// Which one a span is.
struct Place(usize);

struct Fields<'a>(&'a mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Seen {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = BTreeMap::from([("span", attributes.metadata().name().to_owned())]);
        attributes.record(&mut Fields(&mut fields));
        let mut all = self.0.lock().expect("no panic");
        context.span(id).expect("it is there").extensions_mut().insert(Place(all.len()));
        all.push(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).expect("it is there");
        if let Some(Place(place)) = span.extensions().get() {
            values.record(&mut Fields(&mut self.0.lock().expect("no panic")[*place]));
        }
    }
}

impl Seen {
    /// The spans in the trace of `traceparent`: name, and whose it is.
    fn of(&self, traceparent: &str) -> BTreeSet<String> {
        let all = self.0.lock().expect("no panic");
        let mine = all.iter().filter(|span| span.get("traceparent").is_some_and(|found| found == traceparent));
        let named = |span: &BTreeMap<&str, String>| {
            let whose = ["route", "decision", "aggregate", "relay", "consumer", "policy", "saga"];
            let whose = whose.iter().find_map(|field| span.get(field)).map_or("", String::as_str);
            format!("{} {whose}", span["span"]).trim_end().to_owned()
        };
        mine.map(named).collect()
    }
}

/// (Seen to fail without the header of the Kafka record: nothing was folded in the trace. One thread, since the subscriber is that
/// thread's.)
#[tokio::test]
async fn a_trace_goes_from_http_through_kafka_to_the_fold_and_on_into_what_follows() {
    let seen = Seen::default();
    let subscriber = tracing_subscriber::registry().with(seen.clone().with_filter(LevelFilter::DEBUG));
    let _subscribed = subscribe(subscriber);
    let ground = Ground::new().await;
    let (url, _serving) = ground.serve().await;
    let parts = ground.start(NAMES.into_iter().chain(fulfilment::PARTS).chain([RELAY])).await;
    let client = Client::new();
    let post = async |path: &str, body: &Value, traceparent: &str| {
        let request = client.post(format!("{url}{path}")).json(body).header("traceparent", traceparent);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{answer:?}");
        let answer = answer.json::<Value>().await.expect("JSON");
        compare::caught_up(&parts).await;
        answer
    };
    let [placing, paying] = ["4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"];
    let [placing, paying] = [placing, paying].map(|trace| format!("00-{trace}-00f067aa0ba902b7-01"));
    let item = json!({ "productId": "PROD-456", "quantity": 2, "price": 49.99 });
    let order = json!({ "userId": "USR-123", "items": [item], "totalAmount": 99.98 });
    // A read model from Kafka serves once its topic is there.
    let received = client.post(format!("{url}/api/stock/PROD-456")).json(&json!({ "pieces": 1 })).send().await;
    assert!(received.expect("an answer").status().is_success());
    let placed = post("/api/orders?drive=manual", &order, &placing).await;
    let pay = format!("/api/orders/{}/pay", placed["orderId"].as_str().expect("an id"));
    post(&pay, &json!({}), &paying).await;

    // Nothing happens to the stock.
    let folds = NAMES.into_iter().filter(|name| *name != Stock::NAME).map(|name| format!("fold {name}"));
    let folds: Vec<_> = folds.collect();
    let expected = |more: &[&str]| -> BTreeSet<String> {
        let common = ["append", "write", "publish order-service", "fold fulfilment", "react fulfilment"];
        common.iter().chain(more).map(|span| (*span).to_owned()).chain(folds.clone()).collect()
    };
    assert_eq!(seen.of(&placing), expected(&["request /api/orders", "decide place-order"]));
    let steps = [
        "request /api/orders/{id}/pay",
        "execute order",
        "perform fulfilment",
        "execute saga_fulfilment",
        "fold perform-fulfilment",
        "fold saga-fulfilment",
        "execute notification",
        "execute payment",
    ];
    assert_eq!(seen.of(&paying), expected(&steps));
    parts.shutdown(Duration::from_secs(10)).await.expect("in good order");
}
