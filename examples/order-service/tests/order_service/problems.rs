//! Requests that are refused, each with the status and the field.

use serde_json::{Value, json};

use crate::service::{Service, order, problem};

fn with(pointer: &str, value: Value) -> Value {
    let mut body = order("USR-123", 2);
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    body.pointer_mut(parent).unwrap()[field] = value;
    body
}

#[tokio::test]
async fn bodies_that_break_a_rule_name_the_field() {
    let service = Service::start().await;
    let mut without = order("USR-123", 2);
    without["items"][0].as_object_mut().unwrap().remove("price");
    for (body, field) in [
        (with("/totalAmount", json!(99.97)), "totalAmount"),
        (with("/totalAmount", json!("99.98")), "totalAmount"),
        (with("/totalAmount", json!(-99.98)), "totalAmount"),
        (with("/items", json!([])), "items"),
        (with("/items/0/quantity", json!(0)), "items[0].quantity"),
        (with("/items/0/quantity", json!(-1)), "items[0].quantity"),
        (with("/items/0/quantity", json!(1.5)), "items[0].quantity"),
        (with("/items/0/quantity", json!(1_000_001)), "items[0].quantity"),
        (with("/items/0/price", json!(-1)), "items[0].price"),
        (with("/items/0/price", json!(0.00001)), "items[0].price"),
        (with("/items/0/price", json!(1e13)), "items[0].price"),
        (with("/items/0/price", Value::Null), "items[0].price"),
        (with("/items/0/productId", json!("")), "items[0].productId"),
        (with("/items/0/productId", json!("a/b")), "items[0].productId"),
        (with("/items/0/colour", json!("red")), "items[0].colour"),
        (with("/userId", json!("x".repeat(65))), "userId"),
        (with("/userId", json!(7)), "userId"),
        (with("/coupon", json!("SAVE10")), "coupon"),
        (without, "items[0].price"),
        (json!({ "items": [], "totalAmount": 0 }), "userId"),
    ] {
        problem(service.post("/api/orders").json(&body), 422, Some(field)).await;
    }
    assert_eq!(service.readyz().await["head"], 0, "nothing was written");
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let service = Service::start().await;
    let post =
        |body: &str| service.post("/api/orders").header("content-type", "application/json").body(body.to_owned());
    let twice = format!("{0} {0}", order("USR-123", 2));
    for body in ["", "{", "{\"userId\":\n  'x'}", &twice, "nul"] {
        let malformed = problem(post(body), 400, None).await;
        assert!(malformed["detail"].as_str().unwrap().contains("line"), "{malformed}");
    }
    problem(post("[]"), 422, None).await;
    problem(service.post("/api/orders").body(order("USR-123", 2).to_string()), 415, Some("Content-Type")).await;
    let xml = service.post("/api/orders").header("content-type", "text/xml").body("<order/>");
    problem(xml, 415, Some("Content-Type")).await;
    let padded = format!("{}{}", " ".repeat(64 * 1024), order("USR-123", 2));
    problem(post(&padded), 413, None).await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems_too() {
    let service = Service::start().await;
    problem(service.get("/"), 404, None).await;
    problem(service.post("/api/orders/ORD-1/polish"), 404, None).await;
    problem(service.get("/api/orders/ORD-1/pay"), 405, None).await;
    problem(service.delete("/api/orders"), 405, None).await;
    let refused = service.delete("/api/orders").send().await.unwrap();
    assert_eq!(refused.headers()["allow"], "POST");
}

#[tokio::test]
async fn parameters_that_cannot_be_read_are_named() {
    let service = Service::start().await;
    for (path, parameter) in [
        ("/api/orders/ORD-1?after=7", "after"),
        ("/api/orders/ORD-1?after=p-7", "after"),
        ("/api/orders/ORD-1?version=latest", "version"),
        ("/api/orders/ORD-1?verison=1", "verison"),
        ("/api/orders/a%20b", "id"),
        ("/api/customers/a%2Fb/orders", "id"),
        ("/api/customers/USR-123/orders?cursor=zz", "cursor"),
        ("/api/customers/USR-123/orders?limit=0", "limit"),
        ("/api/customers/USR-123/orders?limit=101", "limit"),
        ("/api/revenue?from=yesterday", "from"),
        ("/api/revenue?from=2026-02-01&to=2026-01-01", "from"),
        ("/api/revenue?from=2000-01-01&to=2026-01-01", "from"),
        ("/api/audit?cursor=p1", "cursor"),
    ] {
        problem(service.get(path), 400, Some(parameter)).await;
    }
}
