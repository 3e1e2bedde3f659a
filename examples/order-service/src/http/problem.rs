//! What went wrong, as RFC 9457 tells it.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use es_core::{
    AppendError, BoxError, DecideError, DecodeError, ExecuteError, LoadError, Position, QueryError, ReadError,
    error::with_causes,
};
use serde::Serialize;

use crate::{order::OrderRefusal, placing::PlaceError};

/// A problem, `application/problem+json`.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: String,
    errors: Vec<FieldError>,
    lag: Option<Lag>,
}

/// What is wrong with a field of the request, or with a parameter or header.
#[derive(Debug, Serialize)]
struct FieldError {
    field: String,
    detail: String,
}

/// How far a read model is behind what a reader has asked for.
#[derive(Debug, Clone, Copy, Serialize)]
struct Lag {
    reached: Position,
    wanted: Position,
}

macro_rules! kinds {
    ($($name:ident = $status:ident $slug:literal $title:literal,)*) => {
        /// The kinds of problems. Clients tell them apart by their type.
        #[derive(Debug, Clone, Copy)]
        pub(super) enum Kind { $($name,)* }

        impl Kind {
            fn told(self) -> (StatusCode, &'static str, &'static str) {
                match self {
                    $(Self::$name => (StatusCode::$status, concat!("urn:order-service:", $slug), $title),)*
                }
            }
        }
    };
}

kinds! {
    Malformed = BAD_REQUEST "malformed" "The request cannot be read",
    Parameter = BAD_REQUEST "parameter" "A parameter or header is wrong",
    NotFound = NOT_FOUND "not-found" "There is no such thing",
    MethodNotAllowed = METHOD_NOT_ALLOWED "method-not-allowed" "The method does not apply",
    Illegal = CONFLICT "illegal-transition" "The order does not allow this step",
    TooManyOpen = CONFLICT "too-many-open-orders" "The customer has too many open orders",
    Stale = PRECONDITION_FAILED "stale" "The order has changed in the meantime",
    TooLarge = PAYLOAD_TOO_LARGE "too-large" "The request is too large",
    MediaType = UNSUPPORTED_MEDIA_TYPE "media-type" "The request is not JSON",
    Invalid = UNPROCESSABLE_ENTITY "invalid" "The request breaks a rule",
    KeyReused = UNPROCESSABLE_ENTITY "key-reused" "The idempotency key belongs to another request",
    Failed = INTERNAL_SERVER_ERROR "failed" "The service failed",
    Unavailable = SERVICE_UNAVAILABLE "unavailable" "The service cannot answer right now",
    Lagging = SERVICE_UNAVAILABLE "lagging" "The read model is behind",
    Building = SERVICE_UNAVAILABLE "building" "The read model is being built",
    OtherVersion = SERVICE_UNAVAILABLE "other-version" "Another version of the service has taken over",
    Replaced = GONE "replaced" "The read model was replaced since the page before: begin with the first page",
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), lag: None }
    }

    /// A problem with one field, parameter or header.
    pub(super) fn with(kind: Kind, field: impl Into<String>, detail: impl Into<String>) -> Self {
        let (field, detail) = (field.into(), detail.into());
        Self {
            errors: vec![FieldError { field: field.clone(), detail: detail.clone() }],
            ..Self::new(kind, format!("{field}: {detail}"))
        }
    }

    /// The order of that id was never placed.
    pub(super) fn unknown_order() -> Self {
        Self::new(Kind::NotFound, OrderRefusal::Unknown.to_string())
    }

    fn key_reused() -> Self {
        Self::with(Kind::KeyReused, "Idempotency-Key", "another request was made under this key")
    }

    /// The client can only try again; what happened is for those who run the service.
    pub(super) fn failed(kind: Kind, error: &dyn std::error::Error) -> Self {
        tracing::error!(error = with_causes(error), "a request failed");
        Self::new(kind, "the log of the service says why")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Members<'a> {
            r#type: &'a str,
            title: &'a str,
            status: u16,
            detail: String,
            #[serde(skip_serializing_if = "Vec::is_empty")]
            errors: Vec<FieldError>,
            #[serde(flatten)]
            lag: Option<Lag>,
        }

        let Self { kind, detail, errors, lag } = self;
        let (status, r#type, title) = kind.told();
        let members = Members { r#type, title, status: status.as_u16(), detail, errors, lag };
        let mut response = (status, Json(members)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<OrderRefusal> for Problem {
    fn from(refusal: OrderRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            OrderRefusal::Unknown => Self::unknown_order(),
            OrderRefusal::AlreadyPlaced | OrderRefusal::Illegal { .. } => Self::new(Kind::Illegal, detail),
            OrderRefusal::TooManyOpen => Self::new(Kind::TooManyOpen, detail),
            OrderRefusal::Empty => Self::with(Kind::Invalid, "items", detail),
            OrderRefusal::Total { .. } | OrderRefusal::TooExpensive => Self::with(Kind::Invalid, "totalAmount", detail),
        }
    }
}

impl From<ExecuteError<OrderRefusal>> for Problem {
    fn from(error: ExecuteError<OrderRefusal>) -> Self {
        match error {
            ExecuteError::Rejected(refusal) => refusal.into(),
            ExecuteError::Stale(conflict) => Self::with(Kind::Stale, "If-Match", conflict.to_string()),
            ExecuteError::Append(AppendError::KeyReused) => Self::key_reused(),
            ExecuteError::Contended { .. }
            | ExecuteError::Append(AppendError::Store(_) | AppendError::Closed)
            | ExecuteError::Load(LoadError::Read(ReadError::Store(_))) => Self::failed(Kind::Unavailable, &error),
            _ => Self::failed(Kind::Failed, &error),
        }
    }
}

impl From<PlaceError> for Problem {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Decide(DecideError::Rejected(refusal)) => refusal.into(),
            // The order is closed, or another customer's.
            PlaceError::Decide(DecideError::Append(AppendError::Conflict(_))) => OrderRefusal::AlreadyPlaced.into(),
            PlaceError::Decide(DecideError::Append(AppendError::KeyReused)) => Self::key_reused(),
            PlaceError::Decide(
                DecideError::Contended { .. }
                | DecideError::Append(AppendError::Store(_) | AppendError::Closed)
                | DecideError::Read(ReadError::Store(_)),
            ) => Self::failed(Kind::Unavailable, &error),
            _ => Self::failed(Kind::Failed, &error),
        }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Lagging { reached, wanted } => {
                Self { lag: Some(Lag { reached, wanted }), ..Self::new(Kind::Lagging, error.to_string()) }
            }
            QueryError::Building { .. } => Self::new(Kind::Building, error.to_string()),
            QueryError::OtherVersion { .. } => Self::new(Kind::OtherVersion, error.to_string()),
            QueryError::Replaced { .. } => Self::new(Kind::Replaced, error.to_string()),
            QueryError::Store(_) => Self::failed(Kind::Unavailable, &error),
            _ => Self::failed(Kind::Failed, &error),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        let kind = if matches!(error, ReadError::Store(_)) { Kind::Unavailable } else { Kind::Failed };
        Self::failed(kind, &error)
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        Self::failed(Kind::Failed, &error)
    }
}

/// What a fold says of an event that contradicts its document.
impl From<BoxError> for Problem {
    fn from(error: BoxError) -> Self {
        Self::failed(Kind::Failed, &*error)
    }
}
