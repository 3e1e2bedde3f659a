//! The queries.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::service::{Service, answer, order, problem};

#[tokio::test]
async fn an_order_is_shown_as_of_each_version() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let order = format!("/api/orders/{}", placed["orderId"].as_str().unwrap());
    let paid = service.drive(placed["orderId"].as_str().unwrap(), &["pay"]).await;
    let now = service.json(&format!("{order}?after={}", paid["token"].as_str().unwrap())).await;
    assert_eq!((&now["status"], &now["version"]), (&json!("PAYMENT_OK"), &json!(2)));
    assert_eq!(service.json(&format!("{order}?version=2")).await, now);
    let then = service.json(&format!("{order}?version=1")).await;
    assert_eq!((&then["status"], &then["version"], &then["userId"]), (&json!("PENDING"), &json!(1), &json!("USR-123")));
    for version in ["0", "3", "18446744073709551615"] {
        problem(service.get(&format!("{order}?version={version}")), 404, None).await;
    }
    problem(service.get("/api/orders/ORD-unknown"), 404, None).await;
}

#[tokio::test]
async fn the_stream_shows_what_is_stored() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let path = format!("/api/orders/{}/events", placed["orderId"].as_str().unwrap());
    let event = service.json(&path).await["events"][0].clone();
    assert_eq!(
        (&event["type"], &event["schemaVersion"], &event["version"]),
        (&json!("order.placed"), &json!(2), &json!(1))
    );
    assert_eq!(event["data"]["total"], "99.98");
    assert_eq!(event["metadata"]["actor"], "USR-123");
    problem(service.get("/api/orders/ORD-unknown/events"), 404, None).await;
}

#[tokio::test]
async fn a_timeline_shows_each_step_at_once() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    let id = placed["orderId"].as_str().unwrap();
    let path = format!("/api/orders/{id}/timeline");
    let events = |timeline: &Value| {
        let steps = timeline["steps"].as_array().unwrap().iter();
        steps.map(|step| step["event"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(events(&service.json(&path).await), ["order.placed"]);
    service.drive(id, &["pay"]).await;
    assert_eq!(events(&service.json(&path).await)[..2], ["order.placed", "order.paid"]);
    service.happened(id, "payment.captured").await;
    assert_eq!(events(&service.json(&path).await), ["order.placed", "order.paid", "payment.captured"]);
    problem(service.get("/api/orders/ORD-unknown/timeline"), 404, None).await;
}

#[tokio::test]
async fn a_read_model_that_is_behind_says_how_far_it_is() {
    let service = Service::start().await;
    service.place("USR-123").await;
    let late = service.get("/api/orders/ORD-unknown?after=p99");
    let refused = late.send().await.unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    let refused = crate::service::answer(refused, reqwest::StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!((&refused["reached"], &refused["wanted"]), (&json!(1), &json!(99)));
}

#[tokio::test]
async fn a_customers_orders_come_in_pages_and_in_order() {
    let service = Service::start().await;
    let mut placed = Vec::new();
    for _ in 0..5 {
        placed.push(service.place("USR-123").await);
        service.place("USR-1234").await;
    }
    service.settle().await;
    let (mut found, mut pages, mut next) = (Vec::new(), 0, String::new());
    loop {
        let page = service.json(&format!("/api/customers/USR-123/orders?limit=2{next}")).await;
        found.extend(page["orders"].as_array().unwrap().iter().map(|order| order["orderId"].clone()));
        pages += 1;
        let Some(cursor) = page["next"].as_str() else { break };
        next = format!("&cursor={cursor}");
    }
    let placed: Vec<Value> = placed.into_iter().map(|placed| placed["orderId"].clone()).collect();
    assert_eq!((found, pages), (placed, 3));
    assert_eq!(service.json("/api/customers/USR-999/orders").await["orders"], json!([]));
}

#[tokio::test]
async fn revenue_is_counted_by_day() {
    let service = Service::start().await;
    let placed = service.place("USR-123").await;
    service.place("USR-123").await;
    service.drive(placed["orderId"].as_str().unwrap(), &["pay"]).await;
    let is_captured = |revenue: &Value| revenue["days"][0]["captured"] == json!(99.98);
    let revenue = service.until("/api/revenue", is_captured).await;
    let (today, day) = (revenue["to"].as_str().unwrap(), &revenue["days"][0]);
    assert_eq!(*day, json!({ "date": today, "placed": 2, "captured": 99.98, "refunded": 0.0, "net": 99.98 }));
    let same = service.json(&format!("/api/revenue?from={today}&to={today}")).await;
    assert_eq!(same["days"], revenue["days"]);
    assert_eq!(service.json("/api/revenue?from=2020-01-01&to=2020-12-31").await["days"], json!([]));
}

#[tokio::test]
async fn the_audit_trail_comes_in_pages() {
    let service = Service::start().await;
    for _ in 0..5 {
        service.place("USR-123").await;
    }
    service.settle().await;
    let first = service.json("/api/audit?limit=3").await;
    let second = service.json(&format!("/api/audit?limit=3&cursor={}", first["next"])).await;
    let positions: Vec<_> =
        [first, second.clone()].iter().flat_map(|page| page["entries"].as_array().unwrap().clone()).collect();
    let positions: Vec<_> = positions.iter().map(|entry| entry["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, [1, 2, 3, 4, 5]);
    assert_eq!(service.json("/api/audit?cursor=5").await, json!({ "entries": [], "next": 5 }));
}

#[tokio::test]
async fn orders_are_searched_sorted_and_paged() {
    let service = Service::start().await;
    for quantity in [3, 1, 2, 2, 5] {
        let placed = service
            .post("/api/orders?drive=manual")
            .json(&order(if quantity == 2 { "USR-2" } else { "USR-1" }, quantity));
        let placed = answer(placed.send().await.unwrap(), StatusCode::CREATED).await;
        if quantity == 5 {
            service.drive(placed["orderId"].as_str().unwrap(), &["pay", "cancel"]).await;
        }
    }
    service.settle().await;
    let amounts = |page: &Value| -> Vec<f64> {
        page["orders"].as_array().unwrap().iter().map(|order| order["totalAmount"].as_f64().unwrap()).collect()
    };
    let search = async |query: &str| service.json(&format!("/api/orders/search?{query}")).await;
    let all = search("sort=amount").await;
    assert_eq!(amounts(&all), [49.99, 99.98, 99.98, 149.97, 249.95]);
    let first = search("sort=amount&descending=true&limit=2").await;
    let second =
        search(&format!("sort=amount&descending=true&limit=2&cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!((amounts(&first), &first["count"]), (vec![249.95, 149.97], &json!(5)));
    assert_eq!((amounts(&second), &second["count"]), (vec![99.98, 99.98], &json!(5)));
    assert_eq!(amounts(&search("customer=USR-2").await), [99.98, 99.98]);
    assert_eq!(amounts(&search("status=CANCELLED").await), [249.95]);
    assert_eq!(amounts(&search("least=99.98&most=149.97&customer=USR-1").await), [149.97]);
    assert_eq!(search("until=2000-01-01T00:00:00Z").await["count"], 0);
    assert_eq!(search("since=2000-01-01T00:00:00Z").await["count"], 5);
    for (parameter, field) in
        [("status=PAID", "status"), ("sort=size", "sort"), ("cursor=x", "cursor"), ("least=x", "least")]
    {
        problem(service.get(&format!("/api/orders/search?{parameter}")), 400, Some(field)).await;
    }
    problem(service.get(&format!("/api/orders/search?cursor=999-{}", "ORD-1")), 410, None).await;
}
