//! `GET /metrics`.

use reqwest::StatusCode;

use crate::service::Service;

#[tokio::test]
async fn what_was_done_is_counted() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let id = placed["orderId"].as_str().unwrap();
    service.drive(id, &["pay", "reserve"]).await;
    service.happened(id, "payment.captured").await;
    service.settle().await;
    let answer = service.get("/metrics").send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    let text = answer.text().await.unwrap();
    for line in [
        r#"execute_duration_seconds_count{aggregate="order",outcome="written"} 2"#,
        r#"execute_duration_seconds_count{aggregate="payment",outcome="written"} 1"#,
        r#"decide_duration_seconds_count{decision="place-order",outcome="written"} 1"#,
        r#"events_processed_total{consumer="order-details",event_type="order.placed",status="ok"} 1"#,
        r#"events_processed_total{consumer="audit-trail",event_type="payment.captured",status="ok"} 1"#,
        r#"reader_leases_held{consumer="fulfilment"} 1"#,
        "append_queue_depth 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}
