//! Which problem each error of a command or a query is.

use std::error::Error;

use axum::http::StatusCode;
use es_core::{
    AppendError, DecideError, DecodeError, EncodeError, ExecuteError, InvalidStream, InvalidTag, LiveError, LoadError,
    QueryError, ReadError, WatchError, backend::InvalidAppend, error::with_causes,
};

use super::problem::Problem;

impl<E: Error + Into<Problem> + 'static> From<ExecuteError<E>> for Problem {
    fn from(error: ExecuteError<E>) -> Self {
        match error {
            ExecuteError::Rejected(refusal) => refusal.into(),
            ExecuteError::Stale(conflict) => {
                Self::new(StatusCode::PRECONDITION_FAILED, "urn:evenfold:stale", "The aggregate has changed")
                    .field("If-Match", conflict.to_string())
            }
            ExecuteError::Contended { .. } => Self::unavailable(&error),
            ExecuteError::Load(error) => error.into(),
            ExecuteError::Encode(error) => error.into(),
            ExecuteError::Tag(error) => invalid(&error),
            ExecuteError::Append(error) => error.into(),
            _ => Self::failed(&error),
        }
    }
}

impl<E: Error + Into<Problem> + 'static> From<DecideError<E>> for Problem {
    fn from(error: DecideError<E>) -> Self {
        match error {
            DecideError::Rejected(refusal) => refusal.into(),
            DecideError::Contended { .. } => Self::unavailable(&error),
            DecideError::VersionGiven => {
                Self::wrong_parameter(StatusCode::BAD_REQUEST, "If-Match", "a decision is about no one version")
            }
            DecideError::Query(error) => invalid(&error),
            DecideError::Event(error) => invalid(&error),
            DecideError::Read(error) => error.into(),
            DecideError::Append(error) => error.into(),
            _ => Self::failed(&error),
        }
    }
}

impl From<AppendError> for Problem {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict(conflict) => {
                Self::new(StatusCode::CONFLICT, "urn:evenfold:conflict", "The stream is not as expected")
                    .detail(conflict.to_string())
            }
            AppendError::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "urn:evenfold:key-reused",
                "The idempotency key belongs to another request",
            )
            .field("Idempotency-Key", "another request was made under this key"),
            AppendError::Invalid(error) => error.into(),
            AppendError::Unfoldable { projection, .. } => {
                tracing::info!(error = &error as &dyn Error, "events were refused");
                Self::new(StatusCode::CONFLICT, "urn:evenfold:unfoldable", "A read model refuses the events")
                    .detail(format!("the read model {projection} cannot have them"))
            }
            AppendError::InlineBehind { .. } | AppendError::Store(_) | AppendError::Closed => Self::unavailable(&error),
            _ => Self::failed(&error),
        }
    }
}

impl From<InvalidAppend> for Problem {
    fn from(error: InvalidAppend) -> Self {
        invalid(&error)
    }
}

impl From<EncodeError> for Problem {
    fn from(error: EncodeError) -> Self {
        invalid(&error)
    }
}

/// The request cannot be stored. The errors name places, not values.
fn invalid(error: &(dyn Error + 'static)) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "urn:evenfold:invalid", "The request breaks a rule")
        .detail(with_causes(error))
}

impl From<InvalidStream> for Problem {
    fn from(error: InvalidStream) -> Self {
        Self::wrong_parameter(StatusCode::BAD_REQUEST, "id", &error.to_string())
    }
}

/// A tag is made from what the client has sent, such as an id.
impl From<InvalidTag> for Problem {
    fn from(error: InvalidTag) -> Self {
        Self::wrong_parameter(StatusCode::BAD_REQUEST, "tag", &error.to_string())
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Stream(error) => error.into(),
            LoadError::Read(error) => error.into(),
            _ => Self::failed(&error),
        }
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        if matches!(error, ReadError::Store(_)) { Self::unavailable(&error) } else { Self::failed(&error) }
    }
}

impl From<DecodeError> for Problem {
    fn from(error: DecodeError) -> Self {
        Self::failed(&error)
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let problem = |status, kind, title| Self::new(status, kind, title).detail(error.to_string());
        match error {
            QueryError::Lagging { reached, wanted } => {
                problem(StatusCode::SERVICE_UNAVAILABLE, "urn:evenfold:lagging", "The read model lags")
                    .member("reached", reached)
                    .member("wanted", wanted)
            }
            QueryError::Building { reached, .. } => {
                problem(StatusCode::SERVICE_UNAVAILABLE, "urn:evenfold:building", "The read model is being built")
                    .member("reached", reached)
            }
            QueryError::OtherVersion { .. } | QueryError::NoField { .. } if error.is_transient() => problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "urn:evenfold:other-version",
                "Another version of the read model serves",
            ),
            QueryError::Replaced { .. } => problem(
                StatusCode::GONE,
                "urn:evenfold:replaced",
                "The read model was replaced since the page before: begin with the first page",
            ),
            QueryError::Store(_) => Self::unavailable(&error),
            _ => Self::failed(&error),
        }
    }
}

impl From<LiveError> for Problem {
    fn from(error: LiveError) -> Self {
        match error {
            LiveError::Read(error) => error.into(),
            LiveError::NoSuchVersion { .. } => {
                Self::wrong_parameter(StatusCode::BAD_REQUEST, "version", &error.to_string())
            }
            _ => Self::failed(&error),
        }
    }
}

impl From<WatchError> for Problem {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Query(error) => error.into(),
            WatchError::Log(error) => error.into(),
            WatchError::Replaced { .. } | WatchError::History { .. } | WatchError::OtherHistory { .. } => Self::new(
                StatusCode::GONE,
                "urn:evenfold:watch-ended",
                "The watch cannot go on from here: begin with the current state",
            )
            .detail(error.to_string()),
            _ => Self::failed(&error),
        }
    }
}
