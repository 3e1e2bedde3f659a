//! The workloads, and what is claimed of each.

use std::time::Duration;

use crate::{
    contender::Work,
    entrant::{Bare, Entrant, Sending},
    peers::Peer,
};

/// Work that several participants do, one after the other, in every round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    /// How it is chosen on the command line.
    pub(crate) name: &'static str,
    /// What it is, for people.
    pub(crate) title: &'static str,
    /// The kind of work.
    pub(crate) work: Work,
    /// How many clients repeat it at once, in each process.
    pub(crate) clients: usize,
    /// How many processes they are in, when they are not in this one.
    pub(crate) processes: Option<usize>,
    /// How long every commit takes at least.
    pub(crate) commit_delay: Duration,
    /// Whom the claims are about.
    pub(crate) ours: Entrant,
    /// Whom it is compared with.
    pub(crate) reference: Entrant,
    /// Who takes part beside them.
    pub(crate) beside: Option<Entrant>,
    /// Whether peers take part.
    pub(crate) peers: bool,
    /// What is claimed.
    pub(crate) claims: Claims,
}

/// Ratios that are to be reached.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Claims {
    /// Throughput, at least so many times the reference's.
    pub(crate) throughput: Option<f64>,
    /// The 99th percentile of the latency, at most so many times the reference's.
    pub(crate) p99: Option<f64>,
    /// Throughput, at least so many times that of the best peer.
    pub(crate) of_best_peer: Option<f64>,
    /// Another workload, on which the ratio to the reference is not better than here (by more than noise).
    pub(crate) holds_up: Option<&'static str>,
}

impl Workload {
    /// Work next to the bare work.
    const fn new(name: &'static str, title: &'static str, work: Work, clients: usize, bare: Bare) -> Self {
        Self {
            name,
            title,
            work,
            clients,
            processes: None,
            commit_delay: Duration::ZERO,
            ours: Entrant::Ours,
            reference: Entrant::Bare(bare),
            beside: None,
            peers: false,
            claims: Claims { throughput: None, p99: None, of_best_peer: None, holds_up: None },
        }
    }

    const fn with_peers(self) -> Self {
        Self { peers: true, ..self }
    }

    fn claims(self, throughput: f64, p99: Option<f64>, of_best_peer: Option<f64>) -> Self {
        Self { claims: Claims { throughput: Some(throughput), p99, of_best_peer, holds_up: None }, ..self }
    }

    /// The same workload while every commit takes so many milliseconds: the ratio must not fall.
    fn delayed(self, name: &'static str, title: &'static str, milliseconds: u64) -> Self {
        let claims = Claims { holds_up: Some(self.name), ..Claims::default() };
        let commit_delay = Duration::from_millis(milliseconds);
        Self { name, title, commit_delay, peers: false, claims, ..self }
    }

    /// Whether its clients are too few to keep the processors busy.
    pub(crate) fn is_for_few(&self) -> bool {
        self.clients <= 4 && !self.work.is_one_piece() && !self.is_embedded()
    }

    /// Whether it is about a database in this process, which has no server.
    pub(crate) fn is_embedded(&self) -> bool {
        self.ours == Entrant::Embedded
    }

    /// Who takes part.
    pub(crate) fn entrants(&self) -> Vec<Entrant> {
        let peers =
            Peer::ALL.into_iter().filter(|peer| self.peers && peer.absent(self.work, self.is_embedded()).is_none());
        [self.ours, self.reference].into_iter().chain(self.beside).chain(peers.map(Entrant::Peer)).collect()
    }

    /// Which peers do not, and why.
    pub(crate) fn absent(&self) -> Vec<(&'static str, &'static str)> {
        let peers = Peer::ALL.into_iter().filter(|_| self.peers);
        peers.filter_map(|peer| Some((peer.name(), peer.absent(self.work, self.is_embedded())?))).collect()
    }
}

/// All workloads, in the order of the report.
pub(crate) fn all() -> Vec<Workload> {
    let execute = |name, title, clients| Workload::new(name, title, Work::Execute, clients, Bare::Batch).with_peers();
    let one = Workload::new("execute-1", "Execute a command: 1 client", Work::Execute, 1, Bare::Insert).with_peers();
    let many = execute("execute-64", "Execute a command: 64 clients", 64);
    let uncached = "Execute a command, loaded each time: 64 clients";
    let hot = "Execute a command: 16 clients on one stream";
    let snapshot = |name, title, clients| {
        let one = Workload::new(name, title, Work::LoadSnapshot, clients, Bare::Read).with_peers();
        one.claims(0.85, None, Some(3.0))
    };
    let embedded = |name, title, clients| Workload {
        ours: Entrant::Embedded,
        ..Workload::new(name, title, Work::Execute, clients, Bare::Embedded).with_peers().claims(0.75, None, None)
    };
    // A relay that sends otherwise than by itself, and one as it is.
    let sending = |name, title, sending| Workload {
        ours: Entrant::Relayed(sending),
        reference: Entrant::Ours,
        ..Workload::new(name, title, Work::Publish, 1, Bare::Kafka)
    };
    let tables = |name, title, ours, bare| Workload {
        ours,
        ..Workload::new(name, title, Work::Tables, 1, bare).claims(0.8, None, None)
    };
    let embedded_model = |name, title, work| Workload {
        ours: Entrant::Embedded,
        ..Workload::new(name, title, work, 1, Bare::EmbeddedFold)
    };
    vec![
        one.claims(0.85, Some(1.5), None),
        execute("execute-16", "Execute a command: 16 clients", 16).claims(0.75, Some(2.0), Some(4.0)),
        many.claims(0.75, Some(2.0), Some(10.0)),
        execute("execute-256", "Execute a command: 256 clients", 256).claims(0.75, Some(2.0), Some(10.0)),
        Workload::new("uncached-64", uncached, Work::ExecuteUncached, 64, Bare::Batch).claims(0.5, None, None),
        Workload::new("one-stream-16", hot, Work::OneStream, 16, Bare::OneStream).with_peers().claims(
            0.5,
            None,
            Some(20.0),
        ),
        Workload::new("load-1000", "Load an aggregate of 1,000 events: 4 clients", Work::Load, 4, Bare::Read)
            .with_peers()
            .claims(0.85, None, Some(1.0)),
        snapshot("load-snapshot-1", "Load an aggregate of 1,020 events from a snapshot and a tail: 1 client", 1),
        snapshot("load-snapshot-4", "Load an aggregate of 1,020 events from a snapshot and a tail: 4 clients", 4),
        Workload {
            processes: Some(2),
            ..Workload::new(
                "processes-2",
                "Execute a command: 2 processes with 64 clients each",
                Work::Execute,
                64,
                Bare::LockedBatch,
            )
        }
        .claims(0.9, None, None),
        one.delayed("delay-1ms-1", "Execute a command: 1 client, a commit takes 1 ms", 1),
        one.delayed("delay-5ms-1", "Execute a command: 1 client, a commit takes 5 ms", 5),
        many.delayed("delay-1ms-64", "Execute a command: 64 clients, a commit takes 1 ms", 1),
        many.delayed("delay-5ms-64", "Execute a command: 64 clients, a commit takes 5 ms", 5),
        Workload {
            name: "projecting-64",
            title: "Execute a command: 64 clients, with and without a projector on the same store",
            ours: Entrant::Projected,
            reference: Entrant::Ours,
            peers: false,
            ..many
        },
        Workload {
            beside: Some(Entrant::Ours),
            ours: Entrant::Inlined,
            ..Workload::new(
                "inline-64",
                "Execute a command and fold its account's document in one transaction: 64 clients",
                Work::Execute,
                64,
                Bare::FoldedBatch,
            )
        }
        .claims(0.6, None, None),
        Workload {
            name: "watched-64",
            title: "Execute a command: 64 clients, with and without metrics",
            ours: Entrant::Watched,
            reference: Entrant::Ours,
            peers: false,
            ..many
        }
        .claims(0.98, None, None),
        Workload {
            beside: Some(Entrant::Unconditional),
            ..Workload::new(
                "boundary-64",
                "Append on the condition that no other client has used the same tag: 64 clients",
                Work::Boundary,
                64,
                Bare::TaggedBatch,
            )
        }
        .with_peers()
        .claims(0.5, None, None),
        embedded("sqlite-execute-1", "Execute a command on SQLite: 1 client", 1),
        embedded("sqlite-execute-16", "Execute a command on SQLite: 16 clients", 16),
        embedded("sqlite-execute-64", "Execute a command on SQLite: 64 clients", 64),
        Workload::new("import", "Import a history of 200,000 events", Work::Import, 1, Bare::Copy)
            .with_peers()
            .claims(0.8, None, None),
        Workload::new(
            "rebuild",
            "Rebuild a read model: 500,000 events, 50,000 documents",
            Work::Rebuild,
            1,
            Bare::Fold,
        )
        .claims(0.7, None, None),
        Workload {
            name: "rebuild-five",
            title: "Rebuild five read models at once, and one: 500,000 events, 50,000 documents each",
            ours: Entrant::Five,
            reference: Entrant::Ours,
            ..Workload::new("", "", Work::Rebuild, 1, Bare::Fold)
        }
        .claims(0.5, None, None),
        Workload::new(
            "catch-up",
            "Keep a read model: 500,000 events, 50,000 documents",
            Work::CatchUp,
            1,
            Bare::Upsert,
        )
        .claims(0.9, None, None),
        Workload::new("relay", "Publish 200,000 events to Kafka, exactly once", Work::Publish, 1, Bare::Kafka)
            .claims(0.7, None, None),
        sending("relay-none", "Publish 200,000 events uncompressed, and with lz4", Sending::Uncompressed),
        sending("relay-zstd", "Publish 200,000 events with zstd, and with lz4", Sending::Zstd),
        sending("relay-500", "Publish 200,000 events, 500 in a transaction, and 2,000", Sending::Batches(500)),
        sending("relay-8000", "Publish 200,000 events, 8,000 in a transaction, and 2,000", Sending::Batches(8_000)),
        Workload::new(
            "kafka",
            "Keep a read model from Kafka: 200,000 events, 3 partitions, 20,000 documents",
            Work::Follow,
            1,
            Bare::Kafka,
        )
        .claims(0.8, None, None),
        Workload {
            ours: Entrant::Merged,
            reference: Entrant::Ours,
            ..Workload::new(
                "kafka-merged",
                "Keep a read model from Kafka in log order, and per stream: 200,000 events, 3 partitions",
                Work::Follow,
                1,
                Bare::Kafka,
            )
        }
        .claims(0.7, None, None),
        tables("tables", "Keep a table: 200,000 events in batches of 1,000, 20,000 rows", Entrant::Ours, Bare::Upsert),
        tables(
            "sqlite-tables",
            "Keep a table on SQLite: 200,000 events in batches of 1,000, 20,000 rows",
            Entrant::Embedded,
            Bare::Embedded,
        ),
        Workload::new("saga", "Run 5,000 sagas of three steps, 64 at a time", Work::Sagas, 64, Bare::Batch)
            .claims(0.6, None, None),
        Workload::new("timers", "Set 20,000 timers of a second, and wake them", Work::Timers, 64, Bare::Batch)
            .claims(0.7, None, None),
        embedded_model(
            "sqlite-rebuild",
            "Rebuild a read model on SQLite: 500,000 events, 50,000 documents",
            Work::Rebuild,
        )
        .claims(0.7, None, None),
        embedded_model(
            "sqlite-catch-up",
            "Keep a read model on SQLite: 500,000 events, 50,000 documents",
            Work::CatchUp,
        )
        .claims(0.9, None, None),
    ]
}

/// The workloads that must not get slower while the log grows.
pub(crate) fn growth() -> Vec<Workload> {
    let grown = |name, title, work, clients| Workload {
        ours: Entrant::Sized(10_000_000),
        reference: Entrant::Sized(100_000),
        claims: Claims { throughput: Some(0.8), ..Claims::default() },
        ..Workload::new(name, title, work, clients, Bare::Read)
    };
    vec![
        grown("growth-execute-1", "Execute a command: 1 client", Work::Execute, 1),
        grown("growth-execute-64", "Execute a command: 64 clients", Work::Execute, 64),
        grown("growth-load-1000", "Load an aggregate of 1,000 events: 4 clients", Work::Load, 4),
        grown("growth-load-snapshot", "Load an aggregate from a snapshot and a tail: 4 clients", Work::LoadSnapshot, 4),
        grown("growth-head", "Ask for the last position: 1 client", Work::Head, 1),
        grown("growth-page", "Read 1,000 events of the log: 1 client", Work::Page, 1),
    ]
}
