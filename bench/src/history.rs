//! The history that imports write: in memory, the same for all contenders.

use anyhow::Result;
use chrono::Utc;
use es_core::{Event, EventData, Metadata, StreamId};
use es_postgres::Imported;
use uuid::Uuid;

use crate::account::AccountEvent;

/// The events of each stream.
pub(crate) const EVENTS_PER_STREAM: usize = 10;

/// Deposits into accounts that take turns: the first event of each, then the second of each, and so on.
pub(crate) struct History {
    /// How many accounts they are.
    pub(crate) streams: usize,
    /// In order.
    pub(crate) events: Vec<Imported>,
}

impl History {
    pub(crate) fn of(streams: usize) -> Result<Self> {
        let deposit = AccountEvent::deposit();
        let stream = |_| Ok(StreamId::new(AccountEvent::CATEGORY, &Uuid::now_v7().to_string())?);
        let accounts = (0..streams).map(stream).collect::<Result<Vec<_>>>()?;
        let event = |stream: &StreamId| {
            Ok(Imported {
                stream: stream.clone(),
                id: Uuid::now_v7(),
                recorded_at: Utc::now(),
                // Each has a copy of its own, as if it came from elsewhere.
                data: EventData::of(&deposit)?,
                metadata: Metadata::default(),
                tags: Vec::new(),
            })
        };
        let events = (0..EVENTS_PER_STREAM).flat_map(|_| &accounts).map(event).collect::<Result<_>>()?;
        Ok(Self { streams, events })
    }
}
