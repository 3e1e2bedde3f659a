//! The one task that writes appends. Each transaction takes all appends that arrived while the one before it ran, so no
//! append waits for a timer.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use es_core::{
    AppendError, Backoff,
    backend::{Inline, InlineFolds, KnownHead},
    telemetry::{AppendMeter, spans},
};
use tokio::{
    sync::{Notify, mpsc},
    task,
    time::{Instant, sleep, timeout},
};
use tracing::Instrument;

use crate::{
    connections::Connections,
    end::End,
    error::{Failure, may_pass},
    inline::Behind,
    options::SqliteOptions,
    queue::{Outcome, Prepared, Queued, Waiting},
    verdict::Written,
};

/// How often the writer yields before it writes a batch, so that callers it has just answered can join it instead of waiting
/// for the next one. (A single caller has no other to wait for.)
const YIELDS_BEFORE_A_BATCH: usize = 3;

/// The shortest and the longest pause between two tries.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(40), Duration::from_secs(1));

/// The most deferred appends. At this number no more are taken from the queue.
const MAX_DEFERRED: usize = 1024;

/// If no append arrives for this long, the next large one begins.
const IDLE: Duration = Duration::from_millis(2);

#[derive(Debug)]
pub(crate) struct AppendWriter {
    pub(crate) options: SqliteOptions,
    pub(crate) queue: mpsc::Receiver<Queued>,
    /// Deferred appends in queue order: large ones that wait for their turn, and later appends to their streams.
    pub(crate) deferred: VecDeque<Queued>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) head: KnownHead,
    pub(crate) end: End,
    pub(crate) meter: Arc<AppendMeter>,
    pub(crate) inline: Inline,
    pub(crate) closing: Arc<Notify>,
}

/// A part of a batch, and those who wait for what becomes of it.
struct Part {
    batch: Vec<Prepared>,
    waiting: Vec<Waiting>,
    /// A failed try may be committed nevertheless: if only the sync of the commit fails, its frames are in the write-ahead log, and the
    /// process that recovers the log finds them. This is safe: the next try finds its events in the log and writes nothing (R6).
    own: Written,
}

impl Part {
    fn new(batch: Vec<Queued>) -> Self {
        let (batch, waiting): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|queued| (queued.prepared, queued.waiting)).unzip();
        let own = Written::new(batch.len());
        Self { batch, waiting, own }
    }

    /// The entries of which `are_first` says so, and the others.
    fn divided(self, are_first: &[bool]) -> (Self, Self) {
        let (first_own, second_own) = self.own.divided(are_first);
        let (mut first, mut second) = (Self::new(Vec::new()), Self::new(Vec::new()));
        (first.own, second.own) = (first_own, second_own);
        for ((prepared, waiting), is_first) in self.batch.into_iter().zip(self.waiting).zip(are_first) {
            let part = if *is_first { &mut first } else { &mut second };
            part.batch.push(prepared);
            part.waiting.push(waiting);
        }
        (first, second)
    }
}

impl AppendWriter {
    /// Writes until the queue is closed or has no sender left, and then until it is empty.
    pub(crate) async fn run(mut self) {
        // All others wait while a large append runs, so small ones then get as much time as it took before the next large
        // one begins: under a steady load of large appends a few small ones are delayed, not all.
        let mut small_until = Instant::now();
        let mut answered = 0;
        loop {
            if self.deferred.is_empty() {
                let Some(first) = self.next().await else { break };
                self.deferred.push_back(first);
            } else {
                tokio::select! {
                    biased;
                    () = self.closing.notified() => self.queue.close(),
                    () = std::future::ready(()) => {}
                }
            }
            if answered > 1 {
                for _ in 0..YIELDS_BEFORE_A_BATCH {
                    task::yield_now().await;
                }
            }
            let batch = self.next_batch();
            answered = batch.len();
            let has_small = !batch.is_empty();
            if has_small {
                self.write(batch).await;
            }
            if Instant::now() < small_until && (has_small || self.another_arrives().await) {
                continue;
            }
            if self.deferred.front().is_some_and(|first| first.prepared.is_large())
                && let Some(large) = self.deferred.pop_front()
            {
                let began = Instant::now();
                self.write(vec![large]).await;
                small_until = Instant::now() + began.elapsed();
            }
        }
    }

    /// Whether another append arrives within [`IDLE`].
    async fn another_arrives(&mut self) -> bool {
        if self.deferred.len() >= MAX_DEFERRED {
            return false;
        }
        match timeout(IDLE, self.queue.recv()).await {
            Ok(Some(next)) => {
                self.deferred.push_back(next);
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    /// The small appends that have arrived, without those that follow a large one in the same stream.
    fn next_batch(&mut self) -> Vec<Queued> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        let (mut deferred, mut streams) = (VecDeque::new(), HashSet::new());
        let mut earlier = mem::take(&mut self.deferred);
        while batch.len() < self.options.batch_appends
            && bytes < self.options.batch_bytes
            && deferred.len() < MAX_DEFERRED
        {
            let Some(queued) = earlier.pop_front().or_else(|| self.queue.try_recv().ok()) else { break };
            if queued.prepared.is_large() || queued.prepared.streams().any(|stream| streams.contains(stream)) {
                streams.extend(queued.prepared.streams().cloned());
                deferred.push_back(queued);
            } else {
                bytes += queued.prepared.bytes;
                batch.push(queued);
            }
        }
        deferred.append(&mut earlier);
        self.deferred = deferred;
        batch
    }

    async fn next(&mut self) -> Option<Queued> {
        tokio::select! {
            biased;
            () = self.closing.notified() => self.queue.close(),
            next = self.queue.recv() => return next,
        }
        self.queue.recv().await
    }

    async fn write(&mut self, batch: Vec<Queued>) {
        let began = Instant::now();
        let mut parts = vec![Part::new(batch)];
        while let Some(mut part) = parts.pop() {
            match self.write_part(&mut part, began).await {
                Err(Failure::Behind(Behind { behind, written })) if written.contains(&false) => {
                    tracing::debug!(?behind, "what need not be written is answered first");
                    let (written, others) = part.divided(&written);
                    parts.extend([written, others]);
                }
                outcome => self.answer(part, outcome),
            }
        }
    }

    /// Writes `part` until there is an outcome or patience ends. For a read model that is behind it `began` with the batch.
    async fn write_part(&mut self, part: &mut Part, began: Instant) -> Result<Vec<Outcome>, Failure> {
        let (started, mut failures) = (Instant::now(), 0);
        let span = spans::write(part.batch.iter().flat_map(|prepared| &prepared.appends));
        loop {
            failures += 1;
            let pause = BACKOFF.pause(failures);
            match self.try_write(&part.batch, &mut part.own).instrument(span.clone()).await {
                Err(Failure::Database(error))
                    if may_pass(&error) && started.elapsed() + pause < self.options.patience =>
                {
                    tracing::warn!(%error, ?pause, "a batch of appends failed and is tried again");
                    sleep(pause).await;
                }
                // Its projector is about to catch up.
                Err(Failure::Behind(Behind { behind, written }))
                    if behind.may_pass()
                        && !written.contains(&false)
                        && began.elapsed() + pause < self.options.patience =>
                {
                    sleep(pause).await;
                }
                outcome => return outcome,
            }
        }
    }

    fn answer(&self, Part { batch, waiting, .. }: Part, outcome: Result<Vec<Outcome>, Failure>) {
        match outcome {
            Ok(outcomes) => {
                let is_new = |outcome: &Outcome| outcome.iter().flatten().any(|appended| !appended.repeated);
                let written = batch.iter().zip(&outcomes).filter(|(_, outcome)| is_new(outcome));
                let appends = written.flat_map(|(prepared, _)| &prepared.appends);
                self.meter.committed(appends.map(|append| append.events.len()).sum());
                for (waiting, outcome) in waiting.into_iter().zip(outcomes) {
                    waiting.answer(outcome);
                }
            }
            Err(Failure::Closed) => waiting.into_iter().for_each(|waiting| waiting.answer(Err(AppendError::Closed))),
            Err(Failure::Behind(Behind { behind, .. })) => {
                for waiting in waiting {
                    waiting.answer(Err(behind.clone().into()));
                }
            }
            Err(Failure::Replaced(replaced)) => {
                for waiting in waiting {
                    waiting.answer(Err(Failure::Replaced(replaced.clone()).into()));
                }
            }
            Err(failure) => {
                let shared = Arc::new(failure);
                for waiting in waiting {
                    waiting.answer(Err(AppendError::Store(shared.clone().into())));
                }
            }
        }
    }

    /// The outcomes, once everything they report as written is durable (R5).
    async fn try_write(&mut self, batch: &[Prepared], own: &mut Written) -> Result<Vec<Outcome>, Failure> {
        let mut turn = self.connections.turn().await?;
        let mut folded = InlineFolds::new();
        let outcomes = if self.inline.models.is_empty() {
            self.end.write(turn.connection(), batch, own).await?
        } else {
            let written = self.end.write_and_fold(turn.connection(), batch, own, &self.inline.models).await?;
            let outcomes;
            (outcomes, folded) = match written {
                Ok(written) => written,
                Err(behind) => {
                    // Nothing was written, and the connection is in no transaction.
                    turn.committed()?;
                    return Err(Failure::Behind(behind));
                }
            };
            outcomes
        };
        turn.committed()?;
        self.inline.committed(folded);
        let written = outcomes.iter().flatten().flatten().map(|appended| appended.position).max().unwrap_or_default();
        self.head.raise(written);
        Ok(outcomes)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use std::{collections::VecDeque, sync::Arc};

    use es_core::{Append, EventData, Expected, NewEvent, StreamId, backend::KnownHead};
    use tokio::sync::Notify;

    use super::{AppendWriter, End, Inline, Written};
    use crate::{
        SqliteStore,
        connections::Connections,
        file::File,
        queue::{Prepared, Queue},
    };

    #[tokio::test]
    async fn r6_after_a_commit_that_seemed_to_fail_the_caller_gets_a_first_outcome() {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteStore::options(directory.path().join("events.db"));
        let file = File::at(&options.path).unwrap();
        let connection = file.create().await.unwrap();
        let mut writer = AppendWriter {
            queue: Queue::new(&options).1,
            options,
            deferred: VecDeque::new(),
            connections: Arc::new(Connections::new(file, connection, 1).unwrap()),
            head: KnownHead::default(),
            end: End::default(),
            meter: Arc::default(),
            inline: Inline::default(),
            closing: Arc::new(Notify::new()),
        };
        let append = |id: &str, expected| {
            let data = EventData { name: "test.happened".into(), schema_version: 1, payload: "{}".into() };
            Append::new(StreamId::new("test", id).unwrap(), expected, vec![NewEvent::new(data)])
        };
        let (known, remembered) = (append("a", Expected::NoStream), append("b", Expected::Any));
        let together = vec![append("c", Expected::NoStream), append("d", Expected::Any)];
        // The last entry is the second one again, from another caller.
        let batch = [vec![known], vec![remembered.clone()], together, vec![remembered]];
        let batch = batch.map(|appends| Prepared::new(appends).unwrap());
        let repeated = |outcomes: Vec<super::Outcome>| {
            let appended = outcomes.into_iter().flat_map(|outcome| outcome.unwrap());
            appended.map(|appended| (appended.position.get(), appended.repeated)).collect::<Vec<_>>()
        };
        let mut own = Written::new(batch.len());
        let outcome = [(1, false), (2, false), (3, false), (4, false), (2, true)];
        for _try in 0..3 {
            assert_eq!(repeated(writer.try_write(&batch, &mut own).await.unwrap()), outcome);
        }
        let mut later = Written::new(batch.len());
        assert_eq!(repeated(writer.try_write(&batch, &mut later).await.unwrap()), outcome.map(|(at, _)| (at, true)));
    }
}
