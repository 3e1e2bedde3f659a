//! Request bodies in JSON, and problems that name the field.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::error::Category;

use super::problem::Problem;

/// A body in JSON that is a `T`, as an extractor.
///
/// | the body | status of the [`Problem`] |
/// |---|---|
/// | has another `Content-Type` than `application/json` | 415 |
/// | is no JSON, or was cut off | 400, with line and column |
/// | is no `T` | 422, with the path of the field, such as `items[0].price` |
/// | is larger than axum's [`DefaultBodyLimit`](axum::extract::DefaultBodyLimit) | 413 |
///
/// It must be the last argument of a handler. In another place the compiler says that the function is no `Handler`.
///
/// ```
/// use axum::http::StatusCode;
/// use evenfold::http::{CommandHeaders, JsonBody};
///
/// #[derive(serde::Deserialize)]
/// struct Booking {
///     seat: String,
/// }
///
/// async fn book(headers: CommandHeaders, JsonBody { value, bytes }: JsonBody<Booking>) -> StatusCode {
///     let Booking { seat } = value;
///     let context = headers.context(None, &bytes); // the same key with other bytes is another request
///     // …
/// #   let _ = (seat, context);
///     StatusCode::CREATED
/// }
/// # let _: axum::Router = axum::Router::new().route("/bookings", axum::routing::post(book));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonBody<T> {
    /// What the body says.
    pub value: T,
    /// The body itself: the content of an idempotent request.
    pub bytes: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = is_json(&request);
        let bytes = read(request, state).await?;
        if is_json { Ok(Self { value: parse(&bytes)?, bytes }) } else { Err(not_json()) }
    }
}

/// No body at all, or `{}`, as an extractor: for commands that need no more than their path.
///
/// If the client sends a field, the answer is a [`Problem`] (422) that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}

        let is_json = is_json(&request);
        let bytes = read(request, state).await?;
        if bytes.is_empty() {
            return Ok(Self);
        }
        if is_json { parse(&bytes).map(|Nothing {}| Self) } else { Err(not_json()) }
    }
}

fn is_json(request: &Request) -> bool {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.and_then(|media_type| media_type.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

fn not_json() -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "urn:evenfold:media-type", "The request is not JSON")
        .field("Content-Type", "expected application/json")
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "urn:evenfold:too-large", "The request is too large")
                .detail("the body is larger than the service accepts")
        }
        _ => malformed().detail("the body was cut off"),
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let body = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        problem(&path, &error.into_inner())
    })?;
    json.end().map_err(|error| problem(".", &error))?;
    Ok(body)
}

fn problem(path: &str, error: &serde_json::Error) -> Problem {
    let detail = error.to_string();
    if error.classify() != Category::Data {
        return malformed().detail(detail);
    }
    // Line and column are left out: the field tells the place better.
    let detail = detail.rsplit_once(" at line ").map_or(detail.as_str(), |(detail, _)| detail);
    // A missing field lies on no path: only serde's message has its name.
    let missing = detail.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    match (path, missing) {
        (".", None) => invalid().detail(detail),
        (".", Some(field)) => invalid().field(field, detail),
        (path, None) => invalid().field(path, detail),
        (path, Some(field)) => invalid().field(format!("{path}.{field}"), detail),
    }
}

fn malformed() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "urn:evenfold:malformed", "The request cannot be read")
}

fn invalid() -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "urn:evenfold:invalid", "The request breaks a rule")
}
