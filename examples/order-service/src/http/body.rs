//! Request bodies: JSON, and problems that name the field.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::{
    MAX_BODY_BYTES,
    problem::{Kind, Problem},
};

/// A body that is a JSON `T`.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let is_json = is_json(&request);
        let bytes = read(request, state).await?;
        if is_json { parse(&bytes).map(Self) } else { Err(not_json()) }
    }
}

/// No body at all, or `{}`.
pub(super) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        #[derive(serde::Deserialize)]
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
    Kind::MediaType.in_field("Content-Type", "expected application/json")
}

async fn read<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes, Problem> {
    Bytes::from_request(request, state).await.map_err(|rejection| match rejection.into_response().status() {
        StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge.because(format!("the limit is {MAX_BODY_BYTES} bytes")),
        _ => Kind::Malformed.because("the body was cut off"),
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
        return Kind::Malformed.because(detail);
    }
    // The field says better where it is than line and column do.
    let detail = detail.rsplit_once(" at line ").map_or(detail.as_str(), |(detail, _)| detail);
    // A missing field lies on no path: serde tells its name only in words.
    let missing = detail.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`'));
    match (path, missing) {
        (".", None) => Kind::Invalid.because(detail),
        (".", Some(field)) => Kind::Invalid.in_field(field, detail),
        (path, None) => Kind::Invalid.in_field(path, detail),
        (path, Some(field)) => Kind::Invalid.in_field(format!("{path}.{field}"), detail),
    }
}
