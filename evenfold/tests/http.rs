//! A service over HTTP, made of the extractors and responses of `evenfold::http`.

use std::time::Duration;

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, Request, StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use evenfold::{
    FoldResult, Position, WatchError,
    http::{CommandHeaders, ETag, Problem, ReadAfter, health_routes},
    prelude::*,
};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tower::ServiceExt;

#[derive(Debug, Clone, PartialEq, Event)]
#[event(category = "seat")]
enum SeatEvent {
    #[event(name = "seat.taken")]
    Taken { by: String },
}

#[derive(Debug, thiserror::Error)]
#[error("the seat is taken by {0}")]
struct Occupied(String);

impl From<Occupied> for Problem {
    fn from(refusal: Occupied) -> Self {
        Problem::new(StatusCode::CONFLICT, "urn:seats:occupied", "The seat is taken").detail(refusal.to_string())
    }
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Seat {
    taken_by: Option<String>,
}

impl Aggregate for Seat {
    type Command = String;
    type Event = SeatEvent;
    type Error = Occupied;

    fn handle(&self, by: &String) -> Result<Vec<SeatEvent>, Occupied> {
        match &self.taken_by {
            Some(by) => Err(Occupied(by.clone())),
            None => Ok(vec![SeatEvent::Taken { by: by.clone() }]),
        }
    }

    fn apply(&mut self, event: &SeatEvent) {
        let SeatEvent::Taken { by } = event;
        self.taken_by = Some(by.clone());
    }
}

struct Seats;

impl Projection for Seats {
    const NAME: &'static str = "seats";
    type Event = SeatEvent;
    type Document = String;

    fn keys(&self, event: &Recorded<SeatEvent>) -> Keys {
        Keys::one(event.stream.id())
    }

    fn fold(&self, by: &mut Option<String>, event: &Recorded<SeatEvent>) -> FoldResult {
        let SeatEvent::Taken { by: new } = &event.data;
        *by = Some(new.clone());
        Ok(())
    }
}

async fn take(
    State((seats, _)): State<(Repository<Seat>, ReadModel<Seats>)>,
    Path(seat): Path<String>,
    headers: CommandHeaders,
    by: String,
) -> Result<impl IntoResponse, Problem> {
    let context = headers.context(Some("test"), by.as_bytes());
    let receipt = seats.execute_with(&seat, by, context).await?;
    Ok((ETag::from(receipt), Json(receipt)))
}

async fn show(
    State((_, seats)): State<(Repository<Seat>, ReadModel<Seats>)>,
    Path(seat): Path<String>,
    after: ReadAfter,
) -> Result<impl IntoResponse, Problem> {
    after.wait(&seats, Duration::ZERO).await?;
    Ok(Json(seats.get(&seat).await?))
}

fn service() -> Router {
    let store = MemoryStore::new();
    let parts = (Repository::new(store.clone()), ReadModel::new(store));
    Router::new().route("/seats/{seat}", post(take)).route("/seats/{seat}", get(show)).with_state(parts)
}

async fn answer(service: &Router, request: Request<Body>) -> (StatusCode, HeaderMap, Value) {
    let (parts, body) = service.clone().oneshot(request).await.expect("infallible").into_parts();
    let body = body.collect().await.expect("the whole body").to_bytes();
    (parts.status, parts.headers, serde_json::from_slice(&body).expect("JSON"))
}

fn request(seat: &str, by: &'static str, headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::post(format!("/seats/{seat}"));
    headers
        .iter()
        .fold(request, |request, (name, value)| request.header(*name, *value))
        .body(by.into())
        .expect("a request")
}

#[tokio::test]
async fn a_command_answers_with_its_version_and_a_refusal_is_the_applications_own_problem() {
    let service = service();
    let (status, headers, receipt) = answer(&service, request("1", "Ada", &[])).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[header::ETAG], "\"1\"");
    assert_eq!(receipt["token"], "p1");
    let (status, headers, problem) = answer(&service, request("1", "Bob", &[])).await;
    assert_eq!((status, &problem["type"]), (StatusCode::CONFLICT, &"urn:seats:occupied".into()));
    assert_eq!(problem["detail"], "the seat is taken by Ada");
    assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json");
}

#[tokio::test]
async fn r6_a_repeated_request_gets_its_first_receipt_and_another_one_under_its_key_is_refused() {
    let service = service();
    let key = [("Idempotency-Key", "k")];
    let (_, _, first) = answer(&service, request("1", "Ada", &key)).await;
    let (status, _, second) = answer(&service, request("1", "Ada", &key)).await;
    assert_eq!((status, &second["repeated"], &second["position"]), (StatusCode::OK, &true.into(), &first["position"]));
    let (status, _, problem) = answer(&service, request("1", "Bob", &key)).await;
    assert_eq!((status, &problem["type"]), (StatusCode::UNPROCESSABLE_ENTITY, &"urn:evenfold:key-reused".into()));
}

#[tokio::test]
async fn a_version_that_is_no_longer_current_fails_its_precondition() {
    let service = service();
    let (status, _, problem) = answer(&service, request("1", "Ada", &[("If-Match", "\"4\"")])).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (StatusCode::PRECONDITION_FAILED, &"If-Match".into()));
    let (status, ..) = answer(&service, request("1", "Ada", &[("If-Match", "\"0\"")])).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn r15_what_is_wrong_with_a_request_is_named() {
    let service = service();
    for (name, value) in [("If-Match", "4"), ("Idempotency-Key", ""), ("X-Correlation-Id", "7")] {
        let (status, _, problem) = answer(&service, request("1", "Ada", &[(name, value)])).await;
        assert_eq!((status, &problem["errors"][0]["field"]), (StatusCode::BAD_REQUEST, &name.into()));
    }
    let (status, _, problem) =
        answer(&service, Request::get("/seats/1?after=x").body(Body::empty()).expect("a request")).await;
    assert_eq!((status, &problem["errors"][0]["field"]), (StatusCode::BAD_REQUEST, &"after".into()));
    let (status, ..) = answer(&service, request("1", "Ada", &[("traceparent", "nonsense")])).await;
    assert_eq!(status, StatusCode::OK, "a trace that cannot be read is no reason to refuse");
}

#[test]
fn a_decision_that_is_given_a_version_is_the_clients_mistake() {
    let problem = Problem::from(evenfold::DecideError::<Occupied>::VersionGiven);
    assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn r13_a_read_that_cannot_wait_long_enough_says_how_far_the_model_is() {
    let service = service();
    let (status, headers, problem) =
        answer(&service, Request::get("/seats/1?after=p1").body(Body::empty()).expect("a request")).await;
    assert_eq!((status, &problem["type"]), (StatusCode::SERVICE_UNAVAILABLE, &"urn:evenfold:building".into()));
    assert_eq!(headers[header::RETRY_AFTER], "1");
    assert_eq!(problem["reached"], 0);
}

/// Seen to fail where every search by a missing field was answered with 500.
#[test]
fn r13_a_search_by_a_field_that_does_not_serve_yet_may_be_tried_again() {
    let search = |serving| {
        let error = evenfold::QueryError::NoField { projection: "seats", field: "by", serving, ours: 2 };
        Problem::from(error).into_response()
    };
    let early = search(1);
    assert_eq!(early.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(early.headers()[header::RETRY_AFTER], "1");
    assert_eq!(search(2).status(), StatusCode::INTERNAL_SERVER_ERROR, "the projection does not declare it");
}

#[test]
fn a_watch_that_ends_says_whether_it_may_go_on() {
    let lost = || evenfold::ReadError::Store("the connection was lost".into());
    let building = evenfold::QueryError::Building { projection: "seats", reached: Position::ZERO };
    let at = Position::new(1);
    for (error, status) in [
        (WatchError::Unregistered { projection: "seats" }, StatusCode::INTERNAL_SERVER_ERROR),
        (WatchError::Query(building), StatusCode::SERVICE_UNAVAILABLE),
        (WatchError::Log(lost()), StatusCode::SERVICE_UNAVAILABLE),
        (WatchError::Replaced { projection: "seats" }, StatusCode::GONE),
        (WatchError::History { reached: at, end: Position::ZERO }, StatusCode::GONE),
    ] {
        let text = error.to_string();
        assert_eq!(Problem::from(error).status(), status, "{text}");
    }
}

#[tokio::test]
async fn health_routes_say_whether_the_service_lives_and_is_ready() {
    let seats = Service::builder("seats", MemoryStore::new()).aggregate::<Seat>().projection(Seats);
    let seats = seats.start().await.expect("it starts");
    seats.repository::<Seat>().execute("1", "Ada".into()).await.expect("executed");
    seats.settled(Duration::from_secs(30)).await.expect("it settles");
    let router: Router = Router::new().merge(health_routes(&seats));
    let ask = async |path: &str| {
        let (status, _, body) = answer(&router, Request::get(path).body(Body::empty()).expect("a request")).await;
        (status, body)
    };
    let (status, ready) = ask("/readyz").await;
    assert_eq!((status, &ready["ready"], &ready["reasons"]), (StatusCode::OK, &true.into(), &Value::Array(vec![])));
    let part = &ready["status"]["parts"][0];
    assert_eq!(
        (&part["name"], &part["kind"], &part["state"]),
        (&"seats".into(), &"projection".into(), &"running".into())
    );
    assert_eq!((&part["position"], &part["lag"], &ready["status"]["head"]), (&1.into(), &0.into(), &1.into()));
    assert_eq!(ask("/healthz").await.0, StatusCode::OK);

    seats.shutdown(Duration::from_secs(30)).await.expect("it ends");
    assert_eq!(ask("/healthz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, ready) = ask("/readyz").await;
    assert_eq!(
        (status, &ready["reasons"][0]),
        (StatusCode::SERVICE_UNAVAILABLE, &"the service is shutting down".into())
    );
}
