//! The version of an aggregate as an entity tag.

use std::convert::Infallible;

use axum::{
    http::{HeaderValue, header},
    response::{IntoResponseParts, ResponseParts},
};
use es_core::{Receipt, Version};

/// `ETag: "3"`, which a client sends back as `If-Match: "3"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ETag(pub Version);

impl From<Receipt> for ETag {
    fn from(receipt: Receipt) -> Self {
        Self(receipt.version)
    }
}

impl IntoResponseParts for ETag {
    type Error = Infallible;

    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        // Digits in quotes are always a valid header.
        if let Ok(value) = HeaderValue::try_from(format!("\"{}\"", self.0)) {
            response.headers_mut().insert(header::ETAG, value);
        }
        Ok(response)
    }
}
