//! The headers of a record, read without a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rdkafka::{
    Message,
    message::{Header, Headers},
};
use serde::{Deserialize, Serialize};

/// A header whose name is not UTF-8, by its number: neither its name nor its value can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("the name of its header {0} is not UTF-8")]
pub(crate) struct UnreadableName(usize);

/// The headers of `record`, in their order.
///
/// The client panics at a name that is not UTF-8, which Kafka allows, and has no other way to such a header (rdkafka 0.39,
/// `BorrowedHeaders::try_get`). Outside of here the panic would end the thread of a reader: it would be opened again, come to the same
/// record, and so on for ever. The panic hook of the process prints the panic all the same, without anything of the record; a program
/// that is built with `panic = "abort"` ends at it.
pub(crate) fn headers_of(record: &impl Message) -> impl Iterator<Item = Result<Header<'_, &[u8]>, UnreadableName>> {
    record.headers().into_iter().flat_map(|headers| {
        (0..headers.count()).filter_map(move |place| {
            // The client holds nothing while it reads a name: what unwinds leaves nothing half done.
            let read = catch_unwind(AssertUnwindSafe(|| headers.try_get(place)));
            read.map_err(|_| UnreadableName(place + 1)).transpose()
        })
    })
}
