//! Errors as problem documents (RFC 9457, Problem Details for HTTP APIs).

use std::{borrow::Cow, error::Error};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// An answer of the type `application/problem+json`.
///
/// Every error of a command or a query converts into one with `?`; an application adds a `From` for its own
/// refusals. An error that the client cannot correct is logged with its causes, and the client gets only its kind.
#[derive(Debug, Clone)]
pub struct Problem(Box<Content>);

#[derive(Debug, Clone)]
struct Content {
    status: StatusCode,
    kind: Cow<'static, str>,
    title: Cow<'static, str>,
    detail: Option<String>,
    errors: Vec<FieldError>,
    more: Map<String, Value>,
}

/// What is wrong with one field, parameter or header of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FieldError {
    /// Which one.
    pub field: String,
    /// What is wrong with it.
    pub detail: String,
}

impl Problem {
    /// A problem with a `kind` for clients (a URI, the member `type`) and a `title` for people.
    pub fn new(status: StatusCode, kind: impl Into<Cow<'static, str>>, title: impl Into<Cow<'static, str>>) -> Self {
        let (kind, title) = (kind.into(), title.into());
        Self(Box::new(Content { status, kind, title, detail: None, errors: Vec::new(), more: Map::new() }))
    }

    /// Adds the details of this occurrence.
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds what is wrong with a field to the member `errors`; the first one is also the detail, unless there is one.
    pub fn field(mut self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        self.0.detail.get_or_insert_with(|| format!("{field}: {detail}"));
        self.0.errors.push(FieldError { field, detail });
        self
    }

    /// Adds a member of the application's own. A value that JSON cannot hold is left out.
    pub fn member(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.0.more.insert(name.into(), value);
        }
        self
    }

    /// A parameter or header that breaks `rule`.
    pub(super) fn wrong_parameter(status: StatusCode, name: &str, rule: &str) -> Self {
        Self::new(status, "urn:evenfold:parameter", "A parameter or header is wrong").field(name, rule)
    }

    /// The service failed in a way that the client cannot correct (500): `error` goes to the log.
    pub fn failed(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "urn:evenfold:failed", "The service failed")
            .detail("the log of the service says why")
    }

    /// Trying again later may help (503, `Retry-After: 1`): `error` goes to the log.
    pub fn unavailable(error: &(dyn Error + 'static)) -> Self {
        tracing::warn!(error, "a request cannot be answered right now");
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "urn:evenfold:unavailable", "The service cannot answer right now")
            .detail("the log of the service says why")
    }

    /// The status code.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Members {
            r#type: Cow<'static, str>,
            title: Cow<'static, str>,
            status: u16,
            #[serde(skip_serializing_if = "Option::is_none")]
            detail: Option<String>,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            errors: Vec<FieldError>,
            #[serde(flatten)]
            more: Map<String, Value>,
        }

        let Content { status, kind, title, detail, errors, more } = *self.0;
        let members = Members { r#type: kind, title, status: status.as_u16(), detail, errors, more };
        let mut response = (status, Json(members)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
