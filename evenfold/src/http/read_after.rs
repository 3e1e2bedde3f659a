//! `?after=`: a read that waits for a write.

use std::time::Duration;

use axum::{
    extract::{FromRequestParts, Query},
    http::{StatusCode, request::Parts},
};
use es_core::{Projection, QueryError, ReadModel, ReadToken};
use serde::Deserialize;

use super::problem::Problem;

/// The read token in `?after=`, as an extractor; none where the parameter is missing.
///
/// A text that is no token is answered with 400 and a [`Problem`] that names the parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadAfter(pub Option<ReadToken>);

impl ReadAfter {
    /// Returns when `model` holds the write that returned the token (R13); at once if there is no token.
    ///
    /// # Errors
    /// [`QueryError::Lagging`] when that takes longer than `within`, and the errors of
    /// [`ReadModel::wait_for`].
    pub async fn wait<P: Projection>(self, model: &ReadModel<P>, within: Duration) -> Result<(), QueryError> {
        match self.0 {
            Some(token) => model.wait_for(token, within).await,
            None => Ok(()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ReadAfter {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Parameters {
            after: Option<String>,
        }

        let wrong = |rule: String| Problem::wrong_parameter(StatusCode::BAD_REQUEST, "after", &rule);
        let parameters = Query::<Parameters>::from_request_parts(parts, state).await;
        let Query(Parameters { after }) = parameters.map_err(|rejection| wrong(rejection.body_text()))?;
        let token = after.map(|text| text.parse::<ReadToken>()).transpose();
        token.map(Self).map_err(|error| wrong(error.to_string()))
    }
}
