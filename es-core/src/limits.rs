//! The limits of sizes (R15).

/// The longest category, in bytes. It becomes part of a Kafka topic name, whose limit is 249.
pub const MAX_CATEGORY_BYTES: usize = 64;

/// The longest stream name (`<category>-<id>`), in bytes.
pub const MAX_STREAM_BYTES: usize = 255;

/// The largest number of events in one append.
pub const MAX_EVENTS: usize = 10_000;

/// The largest payload of one event, in bytes. With its metadata it fits into a Kafka record of
/// the default size (1 MiB).
pub const MAX_PAYLOAD_BYTES: usize = 1_000_000;

/// The largest encoded metadata of one event, in bytes.
pub const MAX_METADATA_BYTES: usize = 16_384;

/// The longest wire name of an event, in bytes.
pub const MAX_EVENT_NAME_BYTES: usize = 128;

/// The largest payload of one append, in bytes: all its events with their tags together.
pub const MAX_APPEND_BYTES: usize = 64 * 1024 * 1024;

/// How many bytes of payload end a page of events: it ends with the event that reaches them (R17). Several of the largest events
/// fit into a page.
pub const PAGE_BYTES: usize = 8 * 1024 * 1024;

/// How many documents a store may write with one statement: a larger commit may be a transaction of several.
pub const COMMIT_DOCUMENTS: usize = 20_000;

/// The largest number of tags of one event, and of tags and of names in one item of a query.
pub const MAX_TAGS: usize = 64;

/// The longest tag, in bytes.
pub const MAX_TAG_BYTES: usize = 255;

/// The largest number of items of one query, and of all queries of one condition together.
pub const MAX_QUERY_ITEMS: usize = 128;

/// How deep the JSON of an event, a document or a state may be nested. Every decoder can read that, also within an envelope.
pub const MAX_NESTING: usize = 100;

/// The longest key of a document, in bytes.
pub const MAX_KEY_BYTES: usize = 512;

/// The longest text in a secondary field of a document, in bytes. With key and field it fits into an entry of an index.
pub const MAX_FIELD_BYTES: usize = 1_024;

/// The most messages that one commit forgets ([`Inbox`](crate::backend::Inbox)): more than it handles, so that an inbox does not grow.
pub const INBOX_FORGETS: usize = 4_000;
