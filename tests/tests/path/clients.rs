//! Clients that place orders over HTTP, and drive some of them further.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet};

/// Clients that place orders.
pub(crate) struct Clients {
    tasks: JoinSet<()>,
    placed: watch::Receiver<u64>,
}

impl Clients {
    /// `clients` of them place `orders` orders together. Every tenth order takes further steps, and every request of every
    /// hundredth order is sent twice under the same key.
    pub(crate) fn start(url: &str, clients: u64, orders: u64) -> Self {
        Self::start_at(url, clients, 0..orders)
    }

    /// The same for the orders with these numbers.
    pub(crate) fn start_at(url: &str, clients: u64, orders: Range<u64>) -> Self {
        let (placed, watching) = watch::channel(0);
        let (http, next) = (Client::new(), Arc::new(AtomicU64::new(orders.start)));
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let (http, next, placed) = (http.clone(), next.clone(), placed.clone());
            let (url, orders) = (url.to_owned(), orders.clone());
            tasks.spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= orders.end {
                        break;
                    }
                    order(&http, &url, number).await;
                    placed.send_modify(|placed| *placed += 1);
                }
            });
        }
        Self { tasks, placed: watching }
    }

    /// Returns when `orders` orders are placed.
    pub(crate) async fn placed(&mut self, orders: u64) {
        self.placed.wait_for(|placed| *placed >= orders).await.expect("the clients are at work");
    }

    /// Returns when all orders are placed.
    pub(crate) async fn done(self) {
        self.tasks.join_all().await;
    }
}

async fn order(http: &Client, url: &str, number: u64) {
    let quantity = 1 + number % 3;
    let total = format!("{}.{:02}", (quantity * 4999) / 100, (quantity * 4999) % 100);
    let body = format!(
        r#"{{"userId":"USR-{}","items":[{{"productId":"PROD-{}","quantity":{quantity},"price":49.99}}],"totalAmount":{total}}}"#,
        number % 997,
        number % 13
    );
    let place = async || {
        let request = http.post(format!("{url}/api/orders?drive=manual")).header("content-type", "application/json");
        let request = request.header("idempotency-key", format!("order-{number}"));
        answer(request.body(body.clone()).send().await, StatusCode::CREATED).await
    };
    let placed = place().await;
    if number.is_multiple_of(100) {
        assert_eq!(place().await, placed, "the same key and body return the first answer");
    }
    if number.is_multiple_of(10) {
        let id = placed["orderId"].as_str().expect("an order has an id").to_owned();
        let steps = ["pay", "reserve", "ship", "complete"];
        let far = usize::try_from(number / 10 % 5).expect("small");
        for step in &steps[..far] {
            answer(http.post(format!("{url}/api/orders/{id}/{step}")).send().await, StatusCode::OK).await;
        }
        if far == 2 {
            answer(http.post(format!("{url}/api/orders/{id}/cancel")).send().await, StatusCode::OK).await;
        }
    }
}

async fn answer(response: reqwest::Result<Response>, expected: StatusCode) -> Value {
    let response = response.expect("the service answers");
    let status = response.status();
    let body: Value = response.json().await.unwrap_or_else(|error| json!({ "not JSON": error.to_string() }));
    assert_eq!(status, expected, "{body}");
    body
}
