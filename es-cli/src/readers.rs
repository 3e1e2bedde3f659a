//! `es readers`.

use chrono::{DateTime, Utc};
use clap::Args;
use es_core::{
    Position, ServiceStore,
    backend::{GenerationState, ReaderSummary, ShardSummary, counted},
};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    end::{CommandError, Outcome},
    output::{Format, Output},
    time,
};

/// How to list readers.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Readers {
    /// A line for each shard of a reader, with who holds the lease on it
    #[arg(long)]
    shards: bool,

    #[command(flatten)]
    format: Format,
}

/// What is known of a reader.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reader {
    pub(crate) name: String,
    kind: String,
    id: i64,
    /// `None`: a policy has no generations.
    version: Option<u32>,
    pub(crate) state: Option<&'static str>,
    /// Whether no generation of the read model serves yet.
    #[serde(skip)]
    pub(crate) is_first_build: bool,
    /// `None`: a consumer reads what another system writes.
    #[serde(flatten)]
    pub(crate) place: Option<Place>,
    pub(crate) paused: Option<Paused>,
    pub(crate) stopped_at: Vec<Stopped>,
    pub(crate) parked_keys: usize,
    pub(crate) dead_letters: u64,
    pub(crate) shards: Vec<Shard>,
}

/// Where it is in the log.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Place {
    pub(crate) position: u64,
    pub(crate) lag_events: u64,
    pub(crate) lag_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Paused {
    pub(crate) actor: String,
    pub(crate) reason: String,
    at: String,
}

/// An event that the reader could not handle and has not passed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stopped {
    pub(crate) shard: String,
    pub(crate) position: u64,
    pub(crate) event_id: Uuid,
    pub(crate) cause: String,
    at: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shard {
    #[serde(rename = "shard")]
    name: String,
    position: u64,
    last_event_at: Option<String>,
    pub(crate) lease: Option<Lease>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lease {
    owner: Uuid,
    fencing_token: i64,
    since: String,
    held_for_seconds: f64,
    #[serde(skip)]
    held_for: String,
}

impl Readers {
    pub(crate) async fn run(self, store: &dyn ServiceStore, output: &mut Output) -> Result<Outcome, CommandError> {
        let readers = look(store).await?;
        if self.format.json {
            readers.iter().try_for_each(|reader| output.json(reader))?;
        } else if self.shards {
            let rows: Vec<_> =
                readers.iter().flat_map(|reader| reader.shards.iter().map(|shard| reader.row(shard))).collect();
            output.table(
                ["READER", "VERSION", "STATE", "SHARD", "POSITION", "LAST EVENT", "HOLDER", "HELD FOR"],
                &rows,
            )?;
        } else {
            let rows: Vec<_> = readers.iter().map(Reader::summary).collect();
            output.table(["READER", "KIND", "VERSION", "STATE", "POSITION", "LAG", "BEHIND", "HELD BY"], &rows)?;
        }
        output.flush()?;
        Ok(Outcome::Well)
    }
}

/// All readers of `store`.
pub(crate) async fn look(store: &dyn ServiceStore) -> Result<Vec<Reader>, CommandError> {
    let found = store.list_readers().await?;
    // The head is read last, so no position is greater than it.
    let head = store.head().await?;
    let now = Utc::now();
    let serves = |found: &ReaderSummary| found.generation.is_some_and(|it| it.state == GenerationState::Serving);
    let serving: Vec<_> = found.iter().filter(|found| serves(found)).map(|found| found.reader.name.clone()).collect();
    let mut readers: Vec<Reader> = Vec::with_capacity(found.len());
    for reader in found {
        let place = match reader.reached() {
            Some(position) => Some(Place {
                position: position.get(),
                lag_events: head.get().saturating_sub(position.get()),
                lag_seconds: behind(store, position, head, now).await?,
            }),
            None => None,
        };
        let mut reader = Reader::new(reader, place, now);
        reader.is_first_build = reader.is_building() && !serving.contains(&reader.name);
        reader.look_up(store).await?;
        readers.push(reader);
    }
    Ok(readers)
}

/// That `store` has a reader `name`; the error names those that it has.
pub(crate) async fn exists(store: &dyn ServiceStore, name: &str) -> Result<(), CommandError> {
    let mut known: Vec<_> = store.list_readers().await?.into_iter().map(|found| found.reader.name).collect();
    if known.iter().any(|known| known == name) {
        return Ok(());
    }
    // A read model that is rebuilt is there twice.
    known.dedup();
    let known = if known.is_empty() {
        "this store has no readers".to_owned()
    } else {
        format!("name one of {}", known.join(", "))
    };
    Err(CommandError::Missing(format!("there is no reader {name:?}: {known}")))
}

/// The age of the first event after `position`; clocks of two machines differ.
async fn behind(
    store: &dyn ServiceStore,
    position: Position,
    head: Position,
    now: DateTime<Utc>,
) -> Result<Option<f64>, CommandError> {
    if position >= head {
        return Ok(Some(0.0));
    }
    let next = store.read_log(position, 1).await?;
    Ok(next.first().map(|event| (now - event.recorded_at).as_seconds_f64().max(0.0)))
}

/// How many keys are parked; `None` if none is.
pub(crate) fn parked(keys: usize) -> Option<String> {
    match keys {
        0 => None,
        keys => Some(format!("{} parked", counted(keys, "key"))),
    }
}

/// In place of what a policy or a consumer does not have.
const NOTHING: &str = "-";

impl Reader {
    fn new(found: ReaderSummary, place: Option<Place>, now: DateTime<Utc>) -> Self {
        Self {
            kind: found.kind().to_owned(),
            id: found.reader.id,
            version: found.generation.map(|generation| generation.version),
            state: found.generation.map(|generation| generation.state.as_str()),
            is_first_build: false,
            place,
            paused: None,
            stopped_at: Vec::new(),
            parked_keys: 0,
            dead_letters: 0,
            shards: found.shards.iter().map(|shard| Shard::new(shard, now)).collect(),
            name: found.reader.name,
        }
    }

    /// What operators and failures have done to it.
    async fn look_up(&mut self, store: &dyn ServiceStore) -> Result<(), CommandError> {
        let paused = store.paused(&self.name).await?;
        self.paused = paused.map(|pause| Paused { actor: pause.actor, reason: pause.reason, at: time::text(pause.at) });
        let stops = store.stops(&self.name).await?;
        let stops = stops.into_iter().filter(|stop| stop.reader == self.id);
        self.stopped_at = stops
            .map(|stop| Stopped {
                shard: stop.shard.to_string(),
                position: stop.position.get(),
                event_id: stop.event_id,
                cause: stop.cause,
                at: time::text(stop.at),
            })
            .collect();
        let mut parked = store.parked_keys(&self.name).await?;
        parked.retain(|key| key.reader == self.id);
        self.parked_keys = parked.len();
        self.dead_letters = parked.iter().map(|key| key.letters).sum();
        Ok(())
    }

    fn state(&self) -> String {
        let hindered = match (&self.paused, &*self.stopped_at) {
            (Some(_), _) => Some("paused".to_owned()),
            (None, [stop, ..]) => Some(format!("stopped at {}", stop.position)),
            (None, []) => None,
        };
        let words = self.state.map(str::to_owned).into_iter().chain(hindered).chain(parked(self.parked_keys));
        let words: Vec<_> = words.collect();
        if words.is_empty() { NOTHING.to_owned() } else { words.join(", ") }
    }

    /// Whether it is a read model that is built beside the one that serves, or for the first time.
    pub(crate) fn is_building(&self) -> bool {
        self.state == Some(GenerationState::Building.as_str())
    }

    /// Its name in a sentence: what is being built is told apart from what serves.
    pub(crate) fn called(&self) -> String {
        match (self.is_building(), self.is_first_build) {
            (true, true) => format!("{}, as it is being built for the first time,", self.name),
            (true, false) => format!("{}, as it is being built,", self.name),
            (false, _) => self.name.clone(),
        }
    }

    /// Whether it is paused, or has stopped at an event.
    pub(crate) fn waits(&self) -> bool {
        self.paused.is_some() || !self.stopped_at.is_empty()
    }

    fn version(&self) -> String {
        self.version.map_or_else(|| NOTHING.to_owned(), |version| version.to_string())
    }

    /// Whether its source had anything to read when a worker opened it.
    pub(crate) fn has_shards(&self) -> bool {
        !self.shards.is_empty()
    }

    /// How many of its shards a worker holds.
    pub(crate) fn held(&self) -> usize {
        self.shards.iter().filter(|shard| shard.lease.is_some()).count()
    }

    fn summary(&self) -> [String; 8] {
        let held_by = match (self.held(), &*self.shards) {
            (0, []) => "no worker: no shard yet".to_owned(),
            (0, _) => "no worker".to_owned(),
            (_, [Shard { lease: Some(lease), .. }]) => format!("{} for {}", lease.owner, lease.held_for),
            (held, shards) => format!("workers: {held} of {}", counted(shards.len(), "shard")),
        };
        let [position, lag, behind] = match &self.place {
            Some(Place { position, lag_events, lag_seconds }) => {
                let behind = lag_seconds.map_or_else(|| "unknown".to_owned(), |seconds| format!("{seconds:.0} s"));
                [position.to_string(), lag_events.to_string(), behind]
            }
            None => [NOTHING; 3].map(str::to_owned),
        };
        [self.name.clone(), self.kind.clone(), self.version(), self.state(), position, lag, behind, held_by]
    }

    fn row(&self, shard: &Shard) -> [String; 8] {
        let lease = shard.lease.as_ref();
        [
            self.name.clone(),
            self.version(),
            self.state(),
            shard.name.clone(),
            shard.position.to_string(),
            shard.last_event_at.clone().unwrap_or_default(),
            lease.map_or_else(|| "no worker".to_owned(), |lease| lease.owner.to_string()),
            lease.map(|lease| lease.held_for.clone()).unwrap_or_default(),
        ]
    }
}

impl Shard {
    fn new(found: &ShardSummary, now: DateTime<Utc>) -> Self {
        Self {
            name: found.shard.to_string(),
            position: found.position.get(),
            last_event_at: found.recorded_at.map(time::text),
            lease: found.lease.map(|lease| Lease {
                owner: lease.owner,
                fencing_token: lease.fencing_token,
                since: time::text(lease.since),
                held_for_seconds: (now - lease.since).as_seconds_f64().max(0.0),
                held_for: time::duration(now - lease.since),
            }),
        }
    }
}
