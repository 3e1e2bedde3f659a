//! What a backend is built of: the ports that it implements, and the words in them that no application names.
//!
//! A store implements [`EventStore`](crate::EventStore), [`SnapshotStore`], [`AggregateStore`], [`Documents`], [`Generations`],
//! [`Leases`] and [`Inspect`], and [`TableStore`] if it is an SQL database; a source implements [`EventSource`]. A store that folds
//! read models with its appends keeps [`InlineModels`]. The suites that it has to pass are in the crate `es-testing`.

pub use crate::{
    codec::{Misfit, Unencodable},
    counted::counted,
    error::{BoxError, StoreMoved},
    event::{Categories, EventSchema},
    head::KnownHead,
    inspect::{
        Finding, GenerationSummary, Inspect, LeaseSummary, ReaderSummary, Severity, ShardSummary, StreamSummary,
    },
    limits::*,
    of_engine::{is_of_engine, likewise, of_engine},
    react::commands::{CommandAnswer, CommandMessage, CommandTopic},
    read::{
        engine_error::Location,
        inline::{
            Inline, InlineBehind, InlineDue, InlineFailure, InlineFold, InlineFolds, InlineModel, InlineModels,
            InlineObstacle, InlineRegistration, InlineState,
        },
        known_progress::KnownProgress,
        read_model::{
            Acts, Amendment, Changeover, Changes, Checkpoint, CommitError, DeclaredField, Documents, EnsureError,
            Exceptions, Extent, FailedLetter, FieldChange, FieldKind, FieldPlace, FieldScan, FieldValue, FoundDocument,
            GenerationSet, GenerationState, Generations, Hold, Inbox, InvalidFieldValue, Lease, Leases, NewLetter,
            Progress, PromoteError, Promotion, ReadModelError, ReadModelStore, Reader, Redemption, Served, Shard,
            Share, Situation, Slice, StoredDocument, Taken, Takeover, Treatment, check_payload,
        },
        source::{
            Batch, BatchEvents, Delivery, EventFeed, EventSource, FailedEvent, Forwarded, SourceError, Split,
            Subscription, unreadable::UNREADABLE,
        },
        tables::{CommitTablesError, CreateTablesError, TableReading, TableStore, TableWrite, WriteError},
        worker_state::{Failure, Handling, STANDBY_LIMIT, STANDBY_RETRY, StateReport},
    },
    schema::Undecodable,
    stream::{RESERVED_PREFIX, check_category},
    tag::{ConditionPart, InvalidQuery, QueryItem},
    witness::{Ending, Witness},
    write::{
        append::{CommandKey, Fingerprint, InvalidAppend, Remembered, command_id, validate_together},
        snapshot::{AggregateStore, Folded, LoadedStream, Snapshot, SnapshotError, SnapshotStore},
        store::{CommandRecord, Verdict, check_contiguous, is_last_page},
    },
};
