//! Group commit: one task gathers whatever has arrived and sends it as one statement.
//!
//! There is no timer: the running batch is the timer. A lone caller is served at once; under load the
//! batches grow, and with them what one commit carries. (A second batch on a second connection, sent while
//! the server works on the first, was tried: it gained nothing, since each was half as large.)
//!
//! Only a large request has a connection and a task of its own, so that the small ones go on while it is sent and written out
//! (R17). One such request is on its way at a time. Requests that share a stream stay in the order of arrival, whichever way they
//! go: the later one is not sent before the earlier one is answered. What else two requests may have in common (a command, a
//! condition) is judged under the append lock, as it is between two processes.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::Arc,
};

use es_core::{
    StreamId,
    backend::{Inline, KnownHead},
    telemetry::AppendMeter,
};
use tokio::{
    sync::mpsc,
    task::{self, JoinError, JoinSet},
};

use crate::{
    options::PostgresOptions,
    session::Session,
    write::{
        delivery::Delivery,
        parcel::{Parcel, Queued},
    },
};

/// How often the writer yields before it sends a batch, so that callers it has just answered can join it instead of waiting
/// for the next one. (16 callers: 0.91 of the bare limit instead of 0.76 with none. A single caller has no other to wait for.)
const YIELDS_BEFORE_A_BATCH: usize = 3;

/// The most requests that are held back, large ones and what follows them in their streams. Then nothing more is taken from
/// the queue.
const MOST_HELD: usize = 1_024;

pub(crate) struct Writer {
    queue: mpsc::Receiver<Queued>,
    arrived: Vec<Queued>,
    /// What has arrived and is not written yet, in the order of arrival.
    waiting: VecDeque<Queued>,
    /// How much of that could not go with the last batch.
    held: usize,
    small: Delivery,
    large: Large,
    most_appends: usize,
    most_bytes: usize,
}

/// The way of large requests.
#[derive(Default)]
struct Large {
    /// Unless it is on its way, or was not needed yet.
    idle: Option<Delivery>,
    /// One at the most. It ends with the writer.
    on_its_way: JoinSet<Arrived>,
    /// Where that one writes.
    streams: HashSet<StreamId>,
}

/// A delivery that is back, with what must be sent again.
type Arrived = (Delivery, Vec<Queued>);

impl Writer {
    pub(crate) fn new(
        session: Session,
        options: &PostgresOptions,
        queue: mpsc::Receiver<Queued>,
        head: KnownHead,
        meter: Arc<AppendMeter>,
        inline: Inline,
    ) -> Self {
        Self {
            queue,
            arrived: Vec::new(),
            waiting: VecDeque::new(),
            held: 0,
            small: Delivery::new(session, options.patience, head, meter, inline),
            large: Large::default(),
            most_appends: options.batch_appends,
            most_bytes: options.batch_bytes,
        }
    }

    /// Writes until the store is closed or dropped and nothing is queued any more.
    pub(crate) async fn run(mut self) {
        let (mut answered, mut is_stuck) = (0, false);
        while (!self.waiting.is_empty() && !is_stuck) || self.more().await {
            self.waiting.extend(self.arrived.drain(..));
            if answered > 1 {
                for _ in 0..YIELDS_BEFORE_A_BATCH {
                    task::yield_now().await;
                }
            }
            while self.waiting.len() < self.most_waiting()
                && let Ok(queued) = self.queue.try_recv()
            {
                self.waiting.push_back(queued);
            }
            if let Some(done) = self.large.on_its_way.try_join_next() {
                self.arrive(done);
            }
            let (parcel, large) = self.next_parcels();
            if let Some(large) = large {
                self.dispatch(large);
            }
            answered = parcel.callers.len();
            is_stuck = answered == 0;
            if !is_stuck {
                if !self.large.on_its_way.is_empty() {
                    self.small.expect_others(self.large.streams.iter());
                }
                let again = self.small.deliver(parcel).await;
                again.into_iter().rev().for_each(|queued| self.waiting.push_front(queued));
            }
        }
        if let Some(large) = self.large.idle {
            large.close().await;
        }
        self.small.close().await;
    }

    /// Waits for a request, or for the end of the large one that is on its way. `false` if neither is to come.
    async fn more(&mut self) -> bool {
        let most = self.most_waiting().saturating_sub(self.waiting.len());
        if self.large.on_its_way.is_empty() {
            return self.queue.recv_many(&mut self.arrived, most).await > 0;
        }
        let may_come = most > 0 && !(self.queue.is_closed() && self.queue.is_empty());
        tokio::select! {
            Some(done) = self.large.on_its_way.join_next() => self.arrive(done),
            _ = self.queue.recv_many(&mut self.arrived, most), if may_come => {}
        }
        true
    }

    /// How many may wait here. Those that are held back leave others their places, up to a limit.
    fn most_waiting(&self) -> usize {
        self.most_appends + self.held.min(MOST_HELD)
    }

    /// The longest batch of small requests within the limits, and a large one if its way is free. What must come after
    /// something else stays, in order.
    fn next_parcels(&mut self) -> (Parcel, Option<Queued>) {
        let (mut parcel, mut large) = (Parcel::default(), None);
        let mut bytes = 0;
        let mut behind = self.large.streams.clone();
        let mut left = VecDeque::new();
        for Queued { request, caller } in mem::take(&mut self.waiting) {
            // The caller has dropped its future before anything was sent: it gets nothing.
            if caller.answer.is_closed() {
                continue;
            }
            let blocked = request.streams().any(|stream| behind.contains(stream));
            let refused = if blocked {
                Some(request)
            } else if request.is_large() {
                let is_free = large.is_none() && self.large.on_its_way.is_empty();
                if is_free && !request.streams().any(|stream| parcel.batch.writes_to(stream)) {
                    // What comes later for these streams must wait for its end.
                    behind.extend(request.streams().cloned());
                    large = Some(Queued { request, caller });
                    continue;
                }
                Some(request)
            } else {
                let more = bytes + request.bytes();
                let fits =
                    parcel.callers.is_empty() || (more <= self.most_bytes && parcel.callers.len() < self.most_appends);
                let refused = if fits { parcel.batch.offer(request).err() } else { Some(request) };
                if refused.is_none() {
                    bytes = more;
                }
                refused
            };
            match refused {
                None => parcel.callers.push(caller),
                Some(request) => {
                    // Whatever else comes for these streams must be written after it.
                    behind.extend(request.streams().cloned());
                    left.push_back(Queued { request, caller });
                }
            }
        }
        self.held = left.len();
        self.waiting = left;
        (parcel, large)
    }

    /// Sends a large request off.
    fn dispatch(&mut self, large: Queued) {
        self.large.streams = large.request.streams().cloned().collect();
        let mut delivery = self.large.idle.take().unwrap_or_else(|| self.small.another());
        let parcel = Parcel::of_one(large);
        self.large.on_its_way.spawn(async move {
            let again = delivery.deliver(parcel).await;
            (delivery, again)
        });
    }

    /// Takes note that a large request was answered.
    fn arrive(&mut self, done: Result<Arrived, JoinError>) {
        self.small.expect_others(self.large.streams.iter());
        self.large.streams.clear();
        // If it panicked its caller knows, and the connection is gone.
        if let Ok((delivery, again)) = done {
            self.large.idle = Some(delivery);
            again.into_iter().rev().for_each(|queued| self.waiting.push_front(queued));
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use std::{iter, time::Duration};

    use es_core::{
        Append, AppendError, Appended, EventData, Expected, NewEvent,
        write::rooms::{LARGE_BYTES, Rooms},
    };
    use sqlx::postgres::PgConnectOptions;
    use tokio::sync::oneshot;

    use super::*;
    use crate::write::{parcel::Caller, request::Request};

    type Answer = oneshot::Receiver<Result<Vec<Appended>, AppendError>>;

    fn writer() -> Writer {
        let session = Session::new(PgConnectOptions::new(), "es".into(), Duration::ZERO);
        let (queue, head) = (mpsc::channel(1).1, KnownHead::default());
        let inline = Inline::default();
        Writer::new(session, &PostgresOptions::new(""), queue, head, Arc::default(), inline)
    }

    /// A request for each of these streams, and those who wait for the answers. A capital is a large one.
    async fn requests(writer: &mut Writer, streams: &str) -> Vec<Answer> {
        let rooms = Rooms::new(1, 1);
        let mut answers = Vec::new();
        for name in streams.chars() {
            let bytes = if name.is_uppercase() { 700_000 } else { 2 };
            let payload = format!("\"{}\"", "x".repeat(bytes));
            let data = EventData { name: "test.happened".into(), schema_version: 1, payload: payload.into() };
            let stream = StreamId::new("test", &name.to_lowercase().to_string()).unwrap();
            let events = vec![NewEvent::new(data.clone()), NewEvent::new(data)];
            let request = Request::of_one(Append::new(stream.clone(), Expected::Any, events)).unwrap();
            assert_eq!(request.bytes() > LARGE_BYTES, name.is_uppercase());
            let (answer, outcome) = oneshot::channel();
            let room = rooms.enter(iter::once(&stream), 0).room().await.unwrap();
            writer.waiting.push_back(Queued { request, caller: Caller { answer, _room: room } });
            answers.push(outcome);
        }
        answers
    }

    fn names(requests: &[Request]) -> String {
        let name = |request: &Request| {
            let name = request.streams().next().unwrap().id().to_owned();
            if request.is_large() { name.to_uppercase() } else { name }
        };
        requests.iter().map(name).collect()
    }

    /// What goes next, and what is left.
    fn next(writer: &mut Writer) -> (String, Option<String>, String) {
        let (parcel, large) = writer.next_parcels();
        let large = large.map(|large| {
            writer.large.streams = large.request.streams().cloned().collect();
            names(&[large.request])
        });
        let left: Vec<_> = writer.waiting.drain(..).collect();
        let (requests, callers): (Vec<_>, Vec<_>) = left.into_iter().map(|left| (left.request, left.caller)).unzip();
        let left = names(&requests);
        let back = requests.into_iter().zip(callers).map(|(request, caller)| Queued { request, caller });
        writer.waiting.extend(back);
        (names(&parcel.batch.into_requests()), large, left)
    }

    #[tokio::test]
    async fn r17_large_requests_go_their_own_way_and_streams_keep_their_order() {
        let mut writer = writer();
        let _answers = requests(&mut writer, "aAabBCbcd").await;
        // Two large ones have a small one of their stream before them, so the third one goes.
        assert_eq!(next(&mut writer), ("abd".into(), Some("C".into()), "AaBbc".into()));
        // One is on its way: nothing of its stream goes, and no other large one.
        writer.large.on_its_way.spawn(std::future::pending());
        assert_eq!(next(&mut writer), (String::new(), None, "AaBbc".into()));
        writer.large.on_its_way = JoinSet::new();
        writer.large.streams.clear();
        assert_eq!(next(&mut writer), ("c".into(), Some("A".into()), "aBb".into()));
    }
}
