//! The ids that clients see.

use std::{fmt, str::FromStr};

use evenfold::{IdempotencyKey, StreamId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that cannot be an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to 64 letters, digits, '-' or '_'")]
pub struct InvalidId;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
                let well_formed = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
                if well_formed { Ok(Self(text)) } else { Err(InvalidId) }
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                text.to_owned().try_into()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// An order, for example `ORD-0199c0ffee…`.
    OrderId
}

id! {
    /// A customer, for example `USR-123`.
    CustomerId
}

id! {
    /// A product, for example `PROD-456`.
    ProductId
}

impl OrderId {
    /// A new id. Later ids are greater.
    pub fn random() -> Self {
        Self::of_uuid(Uuid::now_v7())
    }

    /// The id of the order that a request under `key` places. It is the same each time, so a repeated request finds the
    /// order that the first one placed.
    pub fn of_request(key: &IdempotencyKey) -> Self {
        Self::of_uuid(Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_str().as_bytes()))
    }

    /// The id of the order of a stream. The streams of its payment and its shipment have the same id as its own.
    ///
    /// # Errors
    /// [`InvalidId`] when the id of the stream is no id of an order.
    pub fn of_stream(stream: &StreamId) -> Result<Self, InvalidId> {
        stream.id().parse()
    }

    fn of_uuid(uuid: Uuid) -> Self {
        Self(format!("ORD-{}", uuid.simple()))
    }
}
