//! Records of other systems that cannot be read: they are events too, so that failure policies and operators can deal with them.

use serde::Deserialize;

use crate::{codec, event::RecordedEvent};

/// The name of an event that stands for a record which its source could not read. Its payload is a JSON object with all of the record,
/// and with the `reason`.
pub const UNREADABLE: &str = "es_unreadable";

/// Whether `event` stands for a record that its source could not read.
pub(crate) fn is_unreadable(event: &RecordedEvent) -> bool {
    &*event.data.name == UNREADABLE
}

/// Why the record could not be read.
pub(crate) fn reason(event: &RecordedEvent) -> String {
    #[derive(Deserialize)]
    struct Unreadable {
        reason: String,
    }
    let told = codec::decode::<Unreadable>(&event.data.payload);
    told.map_or_else(|_| "its source gives no reason".to_owned(), |told| told.reason)
}
