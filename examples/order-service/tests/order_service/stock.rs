//! `/api/stock`.

use reqwest::StatusCode;
use serde_json::json;

use crate::service::{Service, answer, problem};

#[tokio::test]
async fn stock_is_replenished_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("rules.toml");
    std::fs::write(&rules, "[stock]\nopening = 5\nproducts = { PROD-1 = 0 }").unwrap();
    let service = Service::start_in(directory, &["--rules", rules.to_str().unwrap()]).await;
    let unseen = service.json("/api/stock/PROD-1").await;
    assert_eq!(unseen, json!({ "productId": "PROD-1", "free": 0, "reserved": 0, "dispatched": 0 }));

    let receive = |product: &str, pieces: u32| {
        service
            .post(&format!("/api/stock/{product}"))
            .header("Idempotency-Key", format!("{product}-{pieces}"))
            .json(&json!({ "pieces": pieces }))
    };
    let received = receive("PROD-1", 7).send().await.unwrap();
    assert_eq!(received.headers()["etag"], "\"2\"", "the stock was opened, and pieces were received");
    let received = answer(received, StatusCode::OK).await;
    assert_eq!(answer(receive("PROD-1", 7).send().await.unwrap(), StatusCode::OK).await, received);
    let found = service.json(&format!("/api/stock/PROD-1?after={}", received["token"].as_str().unwrap())).await;
    assert_eq!(found["free"], 7);

    answer(receive("PROD-2", 1).send().await.unwrap(), StatusCode::OK).await;
    service.settle().await;
    let first = service.json("/api/stock?limit=1").await;
    let second = service.json(&format!("/api/stock?limit=1&cursor={}", first["next"].as_str().unwrap())).await;
    let free =
        |page: &serde_json::Value| (page["products"][0]["productId"].clone(), page["products"][0]["free"].clone());
    assert_eq!([free(&first), free(&second)], [(json!("PROD-1"), json!(7)), (json!("PROD-2"), json!(6))]);

    for (pieces, field) in [(json!(0), "pieces"), (json!(-1), "pieces"), (json!("1"), "pieces")] {
        problem(service.post("/api/stock/PROD-1").json(&json!({ "pieces": pieces })), 422, Some(field)).await;
    }
    problem(service.get("/api/stock/a%20b"), 400, Some("id")).await;
    problem(service.get("/api/stock?limit=0"), 400, Some("limit")).await;
}
