//! Orders that go to their end by themselves, and all ways in which they fail.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::service::{Service, answer, order, problem, program};

const RULES: &str = r#"
    [stock]
    opening = 3
    [payments]
    within_ms = 500
    declined = { USR-DECLINED = "the card has expired" }
    later = ["USR-LATER"]
    [shipments]
    failed = { USR-FAR = "no carrier goes there" }
"#;

async fn shop() -> Service {
    shop_in(tempfile::tempdir().unwrap()).await
}

async fn shop_in(directory: TempDir) -> Service {
    let rules = directory.path().join("rules.toml");
    std::fs::write(&rules, RULES).unwrap();
    Service::start_in(directory, &["--rules", rules.to_str().unwrap()]).await
}

/// Places an order of `quantity` lamps; returns its id.
async fn place(service: &Service, customer: &str, quantity: u32) -> String {
    let placed = service.post("/api/orders").json(&order(customer, quantity)).send().await.unwrap();
    let placed = answer(placed, StatusCode::CREATED).await;
    assert_eq!(placed["status"], "PENDING");
    placed["orderId"].as_str().unwrap().to_owned()
}

/// The order once it has this status, and its customer was told so.
async fn told(service: &Service, id: &str, status: &str, key: &str) -> Value {
    let (begun, key) = (Instant::now(), format!("{id}-{key}"));
    while !messages(service).iter().any(|message| message["key"] == key) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{key} is not in {:?}", messages(service));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    service.until(&format!("/api/orders/{id}"), |order| order["status"] == status).await
}

/// What has happened to the order, its payment and its shipment.
async fn timeline(service: &Service, id: &str) -> Vec<String> {
    let timeline = service.json(&format!("/api/orders/{id}/timeline")).await;
    let steps = timeline["steps"].as_array().unwrap().iter();
    steps.map(|step| step["event"].as_str().unwrap().to_owned()).collect()
}

fn messages(service: &Service) -> Vec<Value> {
    let text = std::fs::read_to_string(service.directory.path().join("messages.jsonl")).unwrap_or_default();
    // The last line may be half written.
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[tokio::test]
async fn r20_an_order_goes_to_its_end_by_itself() {
    let service = shop().await;
    let id = place(&service, "USR-1", 2).await;
    told(&service, &id, "COMPLETED", "delivered").await;
    let expected = [
        "order.placed",
        "order.paid",
        "payment.captured",
        "order.reserved",
        "shipment.scheduled",
        "order.scheduled",
        "shipment.delivered",
        "order.completed",
    ];
    assert_eq!(timeline(&service, &id).await, expected);
    let stock = service.until("/api/stock/PROD-456", |stock| stock["dispatched"] == 2).await;
    assert_eq!((&stock["free"], &stock["reserved"]), (&json!(1), &json!(0)));
    let told: Vec<_> = messages(&service).iter().map(|message| message["channel"].clone()).collect();
    assert_eq!(told, ["mail", "sms", "mail"]);
}

#[tokio::test]
async fn r20_an_order_whose_payment_is_declined_is_cancelled() {
    let service = shop().await;
    let id = place(&service, "USR-DECLINED", 1).await;
    let order = told(&service, &id, "CANCELLED", "cancelled").await;
    assert_eq!(order["reason"], "the card has expired");
    assert_eq!(timeline(&service, &id).await, ["order.placed", "payment.declined", "order.cancelled"]);
    let text = messages(&service)[1]["text"].to_string();
    assert!(text.contains("the card has expired"), "{text}");
}

#[tokio::test]
async fn r20_an_order_of_more_than_there_is_gets_its_money_back_until_stock_is_replenished() {
    let service = shop().await;
    let id = place(&service, "USR-1", 4).await;
    let cancelled = told(&service, &id, "CANCELLED", "cancelled").await;
    assert_eq!(cancelled["reason"], "PROD-456: 4 pieces are ordered, and 3 are in stock");
    let expected = ["order.placed", "order.paid", "payment.captured", "payment.refunded", "order.cancelled"];
    assert_eq!(timeline(&service, &id).await, expected);
    let received = service.post("/api/stock/PROD-456").json(&json!({ "pieces": 1 })).send().await.unwrap();
    answer(received, StatusCode::OK).await;
    let id = place(&service, "USR-1", 4).await;
    told(&service, &id, "COMPLETED", "delivered").await;
}

#[tokio::test]
async fn r20_an_order_whose_shipment_fails_gives_back_money_and_stock() {
    let service = shop().await;
    let id = place(&service, "USR-FAR", 2).await;
    let cancelled = told(&service, &id, "CANCELLED", "cancelled").await;
    assert_eq!(cancelled["reason"], "no carrier goes there");
    let expected = [
        "order.placed",
        "order.paid",
        "payment.captured",
        "order.reserved",
        "shipment.failed",
        "payment.refunded",
        "order.cancelled",
    ];
    assert_eq!(timeline(&service, &id).await, expected);
    service.until("/api/stock/PROD-456", |stock| stock["free"] == 3 && stock["reserved"] == 0).await;
    let day = service.until("/api/revenue", |revenue| revenue["days"][0]["refunded"] == json!(99.98)).await;
    assert_eq!(day["days"][0]["net"], json!(0.0));
}

/// The timer outlives the process: another one wakes the saga.
#[tokio::test]
async fn r20_an_order_that_is_not_paid_in_time_is_cancelled_also_by_the_next_process() {
    let service = shop().await;
    let id = place(&service, "USR-LATER", 1).await;
    told(&service, &id, "PENDING", "received").await;
    service.signal("-KILL").await;
    let (_, directory) = service.ended().await;
    let service = shop_in(directory).await;
    let cancelled = told(&service, &id, "CANCELLED", "cancelled").await;
    assert_eq!(cancelled["reason"], "it was not paid in time");
    assert_eq!(timeline(&service, &id).await, ["order.placed", "order.cancelled"]);
}

#[tokio::test]
async fn the_steps_of_an_order_that_the_saga_drives_are_refused() {
    let service = shop().await;
    let id = place(&service, "USR-LATER", 1).await;
    for step in ["pay", "reserve", "ship", "complete", "cancel"] {
        let refused = problem(service.post(&format!("/api/orders/{id}/{step}")), 409, None).await;
        assert_eq!(refused["type"], "urn:order-service:driven");
    }
    problem(service.post("/api/orders?drive=backwards").json(&order("USR-1", 1)), 400, Some("drive")).await;
}

#[tokio::test]
async fn a_key_that_has_placed_a_manual_order_places_no_other() {
    let service = shop().await;
    let place = |query: &str| {
        service.post(&format!("/api/orders{query}")).header("Idempotency-Key", "K-1").json(&order("USR-1", 1))
    };
    let first = answer(place("?drive=manual").send().await.unwrap(), StatusCode::CREATED).await;
    problem(place(""), 422, Some("Idempotency-Key")).await;
    assert_eq!(answer(place("?drive=manual").send().await.unwrap(), StatusCode::CREATED).await, first);
}

/// (Seen to fail where a step waits for an event that has come before it began.)
#[tokio::test]
async fn the_saga_follows_the_steps_of_a_manual_order_however_fast_they_come() {
    let service = shop().await;
    let id = service.place("USR-1").await["orderId"].as_str().unwrap().to_owned();
    service.drive(&id, &["pay", "reserve", "ship", "complete"]).await;
    told(&service, &id, "COMPLETED", "delivered").await;
    service.until("/api/stock/PROD-456", |stock| stock["dispatched"] == 2).await;

    let id = service.place("USR-2").await["orderId"].as_str().unwrap().to_owned();
    service.drive(&id, &["pay", "cancel"]).await;
    told(&service, &id, "CANCELLED", "cancelled").await;
    let refunded = timeline(&service, &id).await.contains(&"payment.refunded".to_owned());
    assert_eq!(timeline(&service, &id).await.contains(&"payment.captured".to_owned()), refunded);
}

#[tokio::test]
async fn r20_orders_that_a_killed_process_has_left_are_fulfilled_once_by_the_next_one() {
    const ORDERS: usize = 12;
    let mut service = Service::start().await;
    let mut ids = Vec::new();
    for number in 0..ORDERS {
        ids.push(place(&service, &format!("USR-{number}"), 1).await);
        if number % 3 == 2 {
            service.signal("-KILL").await;
            let (_, directory) = service.ended().await;
            service = Service::start_in(directory, &[]).await;
        }
    }
    for id in &ids {
        told(&service, id, "COMPLETED", "delivered").await;
        let steps = timeline(&service, id).await;
        for event in ["order.paid", "payment.captured", "shipment.scheduled", "shipment.delivered", "order.completed"] {
            assert_eq!(steps.iter().filter(|step| *step == event).count(), 1, "{event} in {steps:?}");
        }
    }
    let stock = service.until("/api/stock/PROD-456", |stock| stock["dispatched"] == ORDERS).await;
    assert_eq!((&stock["free"], &stock["reserved"]), (&json!(10_000 - ORDERS), &json!(0)));
    let mut keys: Vec<_> = messages(&service).iter().map(|message| message["key"].to_string()).collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!((keys.len(), messages(&service).len()), (3 * ORDERS, 3 * ORDERS));
}

/// Places `orders`, of which every other fails somewhere, while each process (HTTP, saga, read models) is killed again and again; then all
/// have ended, and money, stock and messages are right.
async fn all_end(orders: usize) {
    const KILLS: usize = 12;
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("rules.toml");
    std::fs::write(&rules, RULES.replace("opening = 3", "opening = 100000")).unwrap();
    let (rules, path) = (rules.to_str().unwrap().to_owned(), directory.path().to_owned());
    let http = ["--only-http", "--rules", &rules];
    let start = |role: &str| program(&path, &[role, "--rules", &rules]).spawn().unwrap();
    let mut service = Service::start_in(directory, &http).await;
    let parts = ["saga", "project", "saga"];
    let mut others = parts.map(start);

    let (mut ids, mut kills) = (Vec::new(), 0);
    for number in 0..orders {
        let (customer, quantity) = match number % 8 {
            0 => ("USR-DECLINED", 1),
            1 => ("USR-FAR", 1),
            2 => ("USR-1", 200_000),
            3 if number % 5 == 0 => ("USR-LATER", 1),
            _ => ("USR-2", 1),
        };
        let placed = loop {
            // An order may have been placed by a process that was killed before it answered.
            let place = service.post("/api/orders").header("Idempotency-Key", format!("K-{number}"));
            // A customer has at most so many open orders.
            let customer =
                format!("{customer}{}", if customer == "USR-2" { format!("-{number}") } else { String::new() });
            if let Ok(response) = place.json(&order(&customer, quantity)).send().await
                && response.status() == StatusCode::CREATED
            {
                break serde_json::from_str::<Value>(&response.text().await.unwrap()).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        ids.push(placed["orderId"].as_str().unwrap().to_owned());
        if number * KILLS / orders > kills {
            kills = number * KILLS / orders;
            let victim = kills % 4;
            if victim == 3 {
                service.signal("-KILL").await;
                let (_, directory) = service.ended().await;
                service = Service::start_in(directory, &http).await;
            } else {
                others[victim].kill().await.unwrap();
                others[victim] = start(parts[victim]);
            }
        }
    }
    let ended = |order: &Value| order["status"] == "COMPLETED" || order["status"] == "CANCELLED";
    let (mut completed, mut keys) = (0, Vec::new());
    for id in &ids {
        let order = service.until(&format!("/api/orders/{id}"), ended).await;
        let is_completed = order["status"] == "COMPLETED";
        told(
            &service,
            id,
            if is_completed { "COMPLETED" } else { "CANCELLED" },
            if is_completed { "delivered" } else { "cancelled" },
        )
        .await;
        let steps = timeline(&service, id).await;
        let count = |event: &str| steps.iter().filter(|step| *step == event).count();
        let (captured, refunded) = (count("payment.captured"), count("payment.refunded"));
        assert!(captured <= 1 && refunded == captured - usize::from(is_completed), "{id}: {steps:?}");
        completed += usize::from(is_completed);
        keys.extend([
            format!("{id}-received"),
            format!("{id}-{}", if is_completed { "delivered" } else { "cancelled" }),
        ]);
    }
    assert!(completed > orders / 4 && completed < orders, "{completed} of {orders}");
    let stock = service.until("/api/stock/PROD-456", |stock| stock["dispatched"] == completed).await;
    assert_eq!((&stock["free"], &stock["reserved"]), (&json!(100_000 - completed), &json!(0)));
    let sent: Vec<_> = messages(&service).iter().map(|message| message["key"].as_str().unwrap().to_owned()).collect();
    let once: std::collections::BTreeSet<_> = sent.iter().collect();
    assert_eq!(once.len(), sent.len(), "a message was sent twice");
    assert!(keys.iter().all(|key| once.contains(key)), "a message is missing");
}

#[tokio::test]
async fn r20_orders_end_well_or_are_taken_back_while_all_processes_are_killed() {
    all_end(64).await;
}

/// The same at length.
#[tokio::test]
#[ignore = "it takes minutes"]
async fn r20_two_thousand_orders_end_well_or_are_taken_back_while_all_processes_are_killed() {
    all_end(2_000).await;
}
