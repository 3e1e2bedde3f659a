//! `POST /api/orders/{id}/…`, and what follows.

use reqwest::StatusCode;
use serde_json::json;

use crate::service::{Service, answer, problem};

/// The wire names of the events in the log, but for those of sagas and messages, once `last` is among them.
async fn log(service: &Service, last: &str) -> Vec<String> {
    let page = service.until("/api/audit?limit=100", |page| page.to_string().contains(last)).await;
    let events = page["entries"].as_array().unwrap().iter().map(|entry| entry["event"].as_str().unwrap().to_owned());
    events.filter(|event| !event.starts_with("saga.") && !event.starts_with("notification.")).collect()
}

#[tokio::test]
async fn an_order_is_driven_to_its_end_and_everything_follows() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let id = placed["orderId"].as_str().unwrap();
    let steps = [
        ("pay", "PAYMENT_OK", "payment.captured"),
        ("reserve", "RESERVED", "inventory.reserved"),
        ("ship", "SCHEDULED", "shipment.scheduled"),
        ("complete", "COMPLETED", "shipment.delivered"),
    ];
    for (version, (step, status, followed)) in steps.iter().enumerate() {
        let taken = service.post(&format!("/api/orders/{id}/{step}")).send().await.unwrap();
        assert_eq!(taken.headers()["etag"].to_str().unwrap(), format!("\"{}\"", version + 2));
        let taken = answer(taken, StatusCode::OK).await;
        assert_eq!((&taken["orderId"], &taken["status"]), (&json!(id), &json!(status)));
        assert_eq!(taken["version"], version + 2);
        log(&service, followed).await;
    }
    let expected = [
        "order.placed",
        "order.paid",
        "payment.captured",
        "order.reserved",
        "inventory.received",
        "inventory.reserved",
        "order.scheduled",
        "shipment.scheduled",
        "order.completed",
        "inventory.dispatched",
        "shipment.delivered",
    ];
    assert_eq!(log(&service, "shipment.delivered").await, expected);
}

#[tokio::test]
async fn a_cancelled_order_gives_back_what_it_had() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let id = placed["orderId"].as_str().unwrap();
    service.drive(id, &["pay", "reserve", "ship"]).await;
    service.happened(id, "shipment.scheduled").await;
    service.drive(id, &["cancel"]).await;
    // It is told last.
    service.until("/api/audit?limit=100", |page| page.to_string().contains("saga.compensated")).await;
    let log = log(&service, "payment.refunded").await;
    for event in ["shipment.cancelled", "inventory.released", "payment.refunded"] {
        assert_eq!(log.iter().filter(|found| *found == event).count(), 1, "{log:?}");
    }
    service.settle().await;
    let day = &service.json("/api/revenue").await["days"][0];
    assert_eq!((&day["captured"], &day["refunded"], &day["net"]), (&json!(99.98), &json!(99.98), &json!(0.0)));
}

#[tokio::test]
async fn steps_out_of_turn_are_conflicts() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let id = placed["orderId"].as_str().unwrap();
    let refused = problem(service.post(&format!("/api/orders/{id}/ship")), 409, None).await;
    assert_eq!(refused["detail"], "an order that is PENDING cannot become SCHEDULED");
    service.drive(id, &["cancel"]).await;
    for step in ["pay", "reserve", "ship", "complete", "cancel"] {
        problem(service.post(&format!("/api/orders/{id}/{step}")), 409, None).await;
    }
    problem(service.post("/api/orders/ORD-unknown/pay"), 404, None).await;
}

#[tokio::test]
async fn a_stale_if_match_is_a_failed_precondition() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let pay = format!("/api/orders/{}/pay", placed["orderId"].as_str().unwrap());
    problem(service.post(&pay).header("If-Match", "\"2\""), 412, Some("If-Match")).await;
    problem(service.post(&pay).header("If-Match", "1"), 400, Some("If-Match")).await;
    problem(service.post(&pay).header("If-Match", "W/\"1\""), 400, Some("If-Match")).await;
    answer(service.post(&pay).header("If-Match", "\"1\"").send().await.unwrap(), StatusCode::OK).await;
    problem(service.post(&pay).header("If-Match", "\"1\""), 412, Some("If-Match")).await;
    problem(service.post(&pay).header("If-Match", "*"), 409, None).await;
}

#[tokio::test]
async fn a_step_that_is_repeated_under_its_key_gets_the_first_answer() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let order = format!("/api/orders/{}", placed["orderId"].as_str().unwrap());
    let post = |step: &str| service.post(&format!("{order}/{step}")).header("Idempotency-Key", "K-1");
    let first = answer(post("pay").header("If-Match", "\"1\"").send().await.unwrap(), StatusCode::OK).await;
    let again = answer(post("pay").header("If-Match", "\"1\"").send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(again, first);
    problem(post("cancel"), 422, Some("Idempotency-Key")).await;
}

#[tokio::test]
async fn a_step_takes_no_fields() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let pay = format!("/api/orders/{}/pay", placed["orderId"].as_str().unwrap());
    problem(service.post(&pay).json(&json!({ "amount": 1 })), 422, Some("amount")).await;
    problem(service.post(&pay).body("amount=1"), 415, Some("Content-Type")).await;
    answer(service.post(&pay).json(&json!({})).send().await.unwrap(), StatusCode::OK).await;
}

#[tokio::test]
async fn headers_become_metadata_and_travel_with_what_follows() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let order = format!("/api/orders/{}", placed["orderId"].as_str().unwrap());
    let (correlation, trace) =
        ("018f6f3e-7c0a-7d6b-9a52-0b3d0f3c2a11", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let pay =
        service.post(&format!("{order}/pay")).header("X-Correlation-Id", correlation).header("traceparent", trace);
    answer(pay.send().await.unwrap(), StatusCode::OK).await;
    let reserve = service.post(&format!("{order}/reserve"));
    problem(reserve.header("X-Correlation-Id", "me"), 400, Some("X-Correlation-Id")).await;

    let paid = service.json(&format!("{order}/events")).await["events"][1].clone();
    assert_eq!(
        (&paid["metadata"]["correlation_id"], &paid["metadata"]["traceparent"]),
        (&json!(correlation), &json!(trace))
    );
    let page = service.until("/api/audit", |page| page.to_string().contains("payment.captured")).await;
    let entries = page["entries"].as_array().unwrap();
    let captured = entries.iter().find(|entry| entry["event"] == "payment.captured").unwrap();
    assert_eq!(captured["correlationId"], json!(correlation));
    // The saga has reacted to what it has done before, which follows from the payment.
    let cause = entries.iter().find(|entry| entry["eventId"] == captured["causationId"]);
    assert!(cause.is_none_or(|cause| cause["correlationId"] == json!(correlation)), "{page}");
}
