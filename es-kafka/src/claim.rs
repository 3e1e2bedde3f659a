//! What a record says of a payload that is in object storage.

use std::fmt::Write as _;

use es_core::{RecordedEvent, backend::MAX_PAYLOAD_BYTES};
use rdkafka::{
    Message,
    message::{Header, OwnedHeaders},
};
use sha2::{Digest, Sha256};

use crate::headers::headers_of;

/// Where the payload is: the extension `dataref` of `CloudEvents`.
const REFERENCE: &str = "ce_dataref";
/// How many bytes it has.
const LENGTH: &str = "ce_datalength";
/// Its SHA-256, in hexadecimal digits.
const SHA256: &str = "ce_datasha256";

/// How many headers a claim has.
pub(crate) const HEADERS: usize = 3;
/// What they take at most, beside the reference.
pub(crate) const HEADER_BYTES: usize = REFERENCE.len() + LENGTH.len() + SHA256.len() + 20 + 64;

/// Where a payload is, and what proves that it is the one that was put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) reference: String,
    pub(crate) length: usize,
    sha256: String,
}

impl Claim {
    /// That the payload of `event` is at `reference`.
    pub(crate) fn of(event: &RecordedEvent, reference: String) -> Self {
        let payload = &event.data.payload;
        Self { reference, length: payload.len(), sha256: sha256(payload) }
    }

    /// What differs between `payload` and the one that was put there; `None`: it is the same.
    pub(crate) fn difference(&self, payload: &[u8]) -> Option<String> {
        if payload.len() != self.length {
            return Some(self.other_length(payload.len()));
        }
        (sha256(payload) != self.sha256).then(|| "it has another SHA-256".to_owned())
    }

    pub(crate) fn other_length(&self, found: impl std::fmt::Display) -> String {
        format!("it has {found} bytes, and not {}", self.length)
    }

    /// Adds what it says to the headers of a record.
    pub(crate) fn put(&self, headers: OwnedHeaders) -> OwnedHeaders {
        let length = self.length.to_string();
        [(REFERENCE, &self.reference), (LENGTH, &length), (SHA256, &self.sha256)]
            .into_iter()
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value.as_str()) }))
    }

    /// What `text` finds in the headers of a record; `None`: the value of the record is the payload.
    ///
    /// # Errors
    /// If they cannot be read. No header is repeated.
    pub(crate) fn read<'a>(text: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Self>, String> {
        let Some(reference) = text(REFERENCE) else { return Ok(None) };
        let length = text(LENGTH).ok_or_else(|| format!("header {LENGTH} is missing"))?;
        let length: usize = length.parse().map_err(|reason| format!("header {LENGTH}: {reason}"))?;
        if length > MAX_PAYLOAD_BYTES {
            return Err(format!("header {LENGTH}: no payload has more than {MAX_PAYLOAD_BYTES} bytes"));
        }
        let sha256 = text(SHA256).ok_or_else(|| format!("header {SHA256} is missing"))?;
        Ok(Some(Self { reference: reference.to_owned(), length, sha256: sha256.to_owned() }))
    }
}

/// How many bytes the payload of `record` has, wherever it is.
pub(crate) fn payload_bytes(record: &impl Message) -> usize {
    let value = record.payload().map_or(0, <[u8]>::len);
    if value > 0 {
        return value;
    }
    let length = headers_of(record).filter_map(Result::ok).find(|header| header.key == LENGTH);
    let length =
        length.and_then(|header| header.value).and_then(|length| std::str::from_utf8(length).ok()?.parse().ok());
    length.map_or(0, |length: usize| length.min(MAX_PAYLOAD_BYTES))
}

fn sha256(payload: &[u8]) -> String {
    Sha256::digest(payload).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
