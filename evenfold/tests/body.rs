//! Bodies that are refused, each with its status and the field.

#![expect(clippy::unwrap_used, reason = "that is how a test fails")]

use axum::{
    Router,
    body::Body,
    extract::DefaultBodyLimit,
    http::{Request, StatusCode, header},
    routing::post,
};
use evenfold::http::{JsonBody, NoBody};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;
use tower::ServiceExt;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Booking {
    seats: Vec<Seat>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seat {
    row: u8,
}

/// The status, and the JSON of the answer.
async fn send(path: &str, media_type: Option<&str>, body: &str) -> (StatusCode, Value) {
    let book = async |JsonBody { value, bytes }: JsonBody<Booking>| {
        let rows = value.seats.iter().map(|seat| u32::from(seat.row)).sum::<u32>();
        format!("{rows} in {} bytes", bytes.len())
    };
    let routes = Router::new()
        .route("/book", post(book))
        .route("/cancel", post(async |_: NoBody| "done"))
        .layer(DefaultBodyLimit::max(64));
    let mut request = Request::post(path);
    if let Some(media_type) = media_type {
        request = request.header(header::CONTENT_TYPE, media_type);
    }
    let response = routes.oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let (status, is_problem) =
        (response.status(), response.headers()[header::CONTENT_TYPE] == "application/problem+json");
    assert_eq!(is_problem, !status.is_success());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| String::from_utf8(bytes.to_vec()).unwrap().into()))
}

#[tokio::test]
async fn a_body_comes_as_a_value_and_as_its_bytes() {
    let (status, answer) =
        send("/book", Some("Application/JSON; charset=utf-8"), r#"{"seats":[{"row":7},{"row":8}]}"#).await;
    assert_eq!((status, answer), (StatusCode::OK, "15 in 31 bytes".into()));
    assert_eq!(send("/cancel", None, "").await.0, StatusCode::OK);
    assert_eq!(send("/cancel", Some("application/json"), "{}").await.0, StatusCode::OK);
}

/// Seen to fail where the end of the JSON was not looked for.
#[tokio::test]
async fn what_is_refused_names_the_field() {
    let json = Some("application/json");
    let too_large = " ".repeat(65);
    for (path, media_type, body, status, field) in [
        ("/book", json, r#"{"seats":[{"row":7},{}]}"#, 422, Some("seats[1].row")),
        ("/book", json, r#"{"seats":[{"row":700}]}"#, 422, Some("seats[0].row")),
        ("/book", json, r#"{"seats":[],"coupon":1}"#, 422, Some("coupon")),
        ("/book", json, "{}", 422, Some("seats")),
        ("/book", json, "7", 422, None),
        ("/book", json, r#"{"seats":"#, 400, None),
        ("/book", json, r#"{"seats":[]} {}"#, 400, None),
        ("/book", json, "", 400, None),
        ("/book", json, &too_large, 413, None),
        ("/book", None, r#"{"seats":[]}"#, 415, Some("Content-Type")),
        ("/book", Some("text/plain"), r#"{"seats":[]}"#, 415, Some("Content-Type")),
        ("/cancel", json, r#"{"why":1}"#, 422, Some("why")),
        ("/cancel", None, "{}", 415, Some("Content-Type")),
    ] {
        let (got, problem) = send(path, media_type, body).await;
        assert_eq!((got.as_u16(), problem["errors"][0]["field"].as_str()), (status, field), "{body}: {problem}");
        assert!(problem["detail"].is_string(), "{problem}");
        assert_eq!(problem["detail"].as_str().unwrap().contains(" line "), status == 400, "{problem}");
    }
}
