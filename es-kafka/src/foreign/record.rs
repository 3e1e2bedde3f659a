//! A record of another system: as it comes from Kafka, and as a dead letter keeps it.

use es_core::codec;
use rdkafka::{
    Message,
    message::{BorrowedHeaders, BorrowedMessage, OwnedHeaders},
};
use serde::{Deserialize, Serialize};

use crate::headers::{UnreadableName, headers_of};

/// All of a record.
pub(crate) struct Record<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// Its timestamp, in milliseconds since 1970.
    pub(crate) millis: Option<i64>,
    pub(crate) key: Option<&'a [u8]>,
    /// Those whose names can be read.
    pub(crate) headers: Vec<(&'a str, Option<&'a [u8]>)>,
    pub(crate) value: Option<&'a [u8]>,
    /// What else it has.
    pub(crate) unreadable: Option<Unreadable>,
}

/// That a record has a header whose name cannot be read.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) name: UnreadableName,
    /// All of its headers, as they are; `None` for a record that a dead letter keeps.
    pub(crate) headers: Option<OwnedHeaders>,
}

impl<'a> Record<'a> {
    pub(crate) fn of(message: &'a BorrowedMessage<'_>) -> Self {
        let (mut headers, mut unreadable) = (Vec::new(), None);
        for header in headers_of(message) {
            match header {
                Ok(header) => headers.push((header.key, header.value)),
                Err(name) => unreadable = unreadable.or(Some(name)),
            }
        }
        let all = |name| Unreadable { name, headers: message.headers().map(BorrowedHeaders::detach) };
        Self {
            topic: message.topic(),
            partition: message.partition(),
            offset: message.offset(),
            millis: message.timestamp().to_millis(),
            key: message.key(),
            headers,
            value: message.payload(),
            unreadable: unreadable.map(all),
        }
    }

    /// The first header of this name, in any case, as `content-type` may be written.
    fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).and_then(|(_, value)| *value)
    }

    pub(crate) fn has(&self, header: &str) -> bool {
        self.find(header).is_some()
    }

    /// The header as a text.
    pub(crate) fn text(&self, header: &str) -> Result<Option<&'a str>, String> {
        let text = self.find(header).map(std::str::from_utf8).transpose();
        text.map_err(|_| format!("header {header} is not UTF-8"))
    }

    /// The header, which must be there.
    pub(crate) fn required(&self, header: &str) -> Result<&'a str, String> {
        let text = self.text(header)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| format!("header {header} is missing"))
    }

    /// The header, if it is there and a text.
    pub(crate) fn optional(&self, header: &str) -> Option<&'a str> {
        self.text(header).ok().flatten().filter(|text| !text.is_empty())
    }
}

/// A record that could not be read, as the payload of the event that stands for it. Texts stay texts, so that people can read and edit
/// them. A header whose name is no text is left out, and its number kept: without the number the record is read, without that header.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Raw {
    reason: String,
    topic: String,
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<Bytes>,
    headers: Vec<(String, Option<Bytes>)>,
    #[serde(rename = "unreadableHeader", default, skip_serializing_if = "Option::is_none")]
    unreadable: Option<UnreadableName>,
    value: Option<Bytes>,
}

/// Bytes of a record.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Bytes {
    Text(String),
    #[serde(with = "hex")]
    Hex(Vec<u8>),
}

impl Bytes {
    fn of(bytes: &[u8]) -> Self {
        std::str::from_utf8(bytes).map_or_else(|_| Self::Hex(bytes.to_vec()), |text| Self::Text(text.to_owned()))
    }

    fn get(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Hex(bytes) => bytes,
        }
    }
}

impl Raw {
    pub(crate) fn of(record: &Record<'_>, reason: String) -> Self {
        let headers = record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(Bytes::of)));
        Self {
            reason,
            topic: record.topic.to_owned(),
            partition: record.partition,
            offset: record.offset,
            timestamp: record.millis,
            key: record.key.map(Bytes::of),
            headers: headers.collect(),
            unreadable: record.unreadable.as_ref().map(|unreadable| unreadable.name),
            value: record.value.map(Bytes::of),
        }
    }

    pub(crate) fn record(&self) -> Record<'_> {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_ref().map(Bytes::get)));
        Record {
            topic: &self.topic,
            partition: self.partition,
            offset: self.offset,
            millis: self.timestamp,
            key: self.key.as_ref().map(Bytes::get),
            headers: headers.collect(),
            value: self.value.as_ref().map(Bytes::get),
            unreadable: self.unreadable.map(|name| Unreadable { name, headers: None }),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers")
    }

    pub(crate) fn decode(payload: &[u8]) -> Result<Self, String> {
        codec::decode(payload).map_err(|misfit| format!("the dead letter does not hold a record: {misfit}"))
    }
}

/// Two digits for each byte.
pub(crate) mod hex {
    use std::fmt::Write as _;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(crate) fn text(bytes: &[u8]) -> String {
        bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&text(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let pairs = text.as_bytes().chunks(2);
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok()
        };
        pairs.map(byte).collect::<Option<_>>().ok_or_else(|| D::Error::custom("not hexadecimal"))
    }
}
