//! Whose lease still holds. This uses no wall clock: a wall clock can be set back.

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use es_core::{backend::Shard, read::heartbeat::Heartbeat};
use tokio::time::Instant;
use uuid::Uuid;

use crate::presence::Presence;

/// A shard's lease as the file has it.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    pub(crate) reader: i64,
    pub(crate) shard: Shard,
    /// `None`: the lease is free.
    pub(crate) owner: Option<Uuid>,
    /// The store in which the owner works.
    pub(crate) process: Option<Uuid>,
    pub(crate) fencing_token: i64,
    /// Heartbeat: grows while the owner is alive.
    pub(crate) beats: i64,
    /// How long `beats` may stay the same.
    pub(crate) ttl: Duration,
}

/// What one store knows of the leases in the file.
///
/// A lease is free when one of these is true:
/// - its owner released it;
/// - the store of its owner is closed or its process has ended: the kernel has dropped the file lock;
/// - its owner worked in this store and has dropped it;
/// - its owner works in another store, which is open but hangs: this store has seen the same row for the lease's length.
#[derive(Debug)]
pub(crate) struct Holders {
    presence: Presence,
    pub(crate) heartbeat: Heartbeat,
    sightings: Mutex<HashMap<(i64, Shard), Sighting>>,
}

/// The last state seen of a lease, and since when it is the same.
#[derive(Debug)]
struct Sighting {
    fencing_token: i64,
    beats: i64,
    since: Instant,
}

impl Holders {
    pub(crate) fn announce(database: &Path) -> io::Result<Self> {
        let presence = Presence::announce(database)?;
        Ok(Self { presence, heartbeat: Heartbeat::default(), sightings: Mutex::default() })
    }

    /// The name under which other stores see this one.
    pub(crate) fn process(&self) -> Uuid {
        self.presence.id()
    }

    /// How many other stores have the file open.
    pub(crate) fn others(&self) -> usize {
        self.presence.others()
    }

    /// Whether a live worker holds the shard of `holder`. The caller holds the write lock.
    pub(crate) fn is_held(&self, holder: &Holder) -> bool {
        match (holder.owner, holder.process) {
            (Some(_), Some(process)) if process == self.presence.id() => {
                self.heartbeat.is_kept(holder.reader, &holder.shard, holder.fencing_token)
            }
            (Some(_), Some(process)) => self.presence.lives(process) && !self.stands_still(holder),
            _ => false,
        }
    }

    fn stands_still(&self, holder: &Holder) -> bool {
        let mut sightings = self.sightings.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = sightings.entry((holder.reader, holder.shard.clone())).or_insert_with(|| Sighting {
            fencing_token: holder.fencing_token,
            beats: holder.beats,
            since: Instant::now(),
        });
        if (seen.fencing_token, seen.beats) != (holder.fencing_token, holder.beats) {
            *seen = Sighting { fencing_token: holder.fencing_token, beats: holder.beats, since: Instant::now() };
        }
        seen.since.elapsed() >= holder.ttl
    }

    /// Ends the presence of this store: its leases are free from now on.
    pub(crate) fn end(&self) {
        self.heartbeat.close();
        self.presence.end();
    }
}
