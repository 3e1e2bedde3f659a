//! The changes of an order, as server-sent events.

use std::time::Duration;

use reqwest::{RequestBuilder, Response};
use serde_json::Value;
use tokio::time::timeout;

use crate::service::{Service, problem};

/// Only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that has subscribed.
struct Events {
    response: Response,
    unread: String,
}

impl Events {
    async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, unread: String::new() }
    }

    /// The id and the status of the order in the next event; `None` at the end.
    async fn next(&mut self) -> Option<(String, String)> {
        loop {
            if let Some((event, rest)) = self.unread.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let (id, data, rest) = (field("id: "), field("data: "), rest.to_owned());
                self.unread = rest;
                if let (Some(id), Some(data)) = (id, data) {
                    let order: Value = serde_json::from_str(&data).unwrap();
                    return Some((id, order["status"].as_str().unwrap().to_owned()));
                }
                continue;
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("an event in time").unwrap()?;
            self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

#[tokio::test]
async fn the_changes_of_an_order_come_as_they_happen_and_after_a_break_from_there_on() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let id = placed["orderId"].as_str().unwrap();
    let path = format!("/api/orders/{id}/changes");
    let mut events = Events::of(service.get(&format!("{path}?after={}", placed["token"].as_str().unwrap()))).await;
    let (first, status) = events.next().await.unwrap();
    assert_eq!(status, "PENDING");
    service.place("USR-123").await;
    service.drive(id, &["pay"]).await;
    assert_eq!(events.next().await.unwrap().1, "PAYMENT_OK");
    drop(events);

    service.drive(id, &["reserve"]).await;
    let mut again = Events::of(service.get(&path).header("Last-Event-ID", first)).await;
    let mut status = again.next().await.unwrap().1;
    while status != "RESERVED" {
        assert_eq!(status, "PAYMENT_OK", "what has changed since, and nothing before");
        status = again.next().await.unwrap().1;
    }

    // The end of the process does not wait for clients that listen.
    service.interrupt().await;
    while again.next().await.is_some() {}
}

#[tokio::test]
async fn an_order_that_was_not_placed_has_no_changes() {
    let service = Service::start().await;
    problem(service.get("/api/orders/ORD-unknown/changes"), 404, None).await;
    let unreadable = service.get("/api/orders/ORD-unknown/changes").header("Last-Event-ID", "p7");
    problem(unreadable, 400, Some("Last-Event-ID")).await;
}
