//! Which faults come in which order: all of it follows from the seed.

use std::{fmt, time::Duration};

use fastrand::Rng;

use super::worker::Role;

/// How large a run is.
#[derive(Debug, Clone)]
pub struct Size {
    /// How many faults.
    pub faults: usize,
    /// 1 or 3.
    pub brokers: usize,
    /// How many events clients append each second.
    pub events: u32,
    /// Whether disks get slow or full, and clocks wrong: on Linux.
    pub shim: bool,
    /// Only faults of processes of this role.
    pub only: Option<Role>,
    /// How many relays there are: all but one stand by.
    pub relays: usize,
    /// For how long the load is ten times as high when all faults are over.
    pub spike: Duration,
}

impl Default for Size {
    fn default() -> Self {
        let (shim, spike) = (cfg!(target_os = "linux"), Duration::ZERO);
        Self { faults: 25, brokers: 1, events: 40, shim, only: None, relays: 2, spike }
    }
}

/// How many processes there are of a role.
pub(crate) fn processes(role: Role, size: &Size) -> usize {
    match role {
        Role::Relay => size.relays,
        Role::Projector | Role::Consumer | Role::Policy => 2,
    }
}

const ROLES: [Role; 4] = [Role::Relay, Role::Projector, Role::Policy, Role::Consumer];

/// Which process: its role, and its number among those.
pub(crate) type Worker = (Role, usize);

/// One fault. Brokers are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names and the text say it")]
pub enum Fault {
    KillWorker {
        worker: Worker,
        down: Duration,
    },
    StopWorker {
        worker: Worker,
        duration: Duration,
    },
    KillBroker {
        broker: usize,
        down: Duration,
    },
    StopBroker {
        broker: usize,
        duration: Duration,
    },
    Cut {
        broker: usize,
        duration: Duration,
    },
    Hold {
        broker: usize,
        requests: bool,
        answers: bool,
        duration: Duration,
        cut: bool,
    },
    Delay {
        broker: usize,
        by: Duration,
        duration: Duration,
    },
    /// Members of consumer groups come, and go after so long: killed, or in good order.
    Storm {
        role: Role,
        members: Vec<(Duration, bool)>,
    },
    /// The other system sends its last messages again, to another partition.
    Duplicates {
        count: usize,
    },
    /// The other system sends what no consumer can read.
    Garbage {
        count: usize,
    },
    SlowDisk {
        broker: usize,
        write: Duration,
        sync: Duration,
        duration: Duration,
    },
    FullDisk {
        broker: usize,
        duration: Duration,
    },
    BrokerClock {
        broker: usize,
        ahead_ms: i64,
        duration: Duration,
    },
    WorkerClock {
        worker: Worker,
        ahead_ms: i64,
        duration: Duration,
    },
}

impl Fault {
    /// The kind, for counting.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::KillWorker { .. } => "processes killed",
            Self::StopWorker { .. } => "processes stopped",
            Self::KillBroker { .. } => "brokers killed",
            Self::StopBroker { .. } => "brokers stopped",
            Self::Cut { .. } => "networks cut",
            Self::Hold { .. } => "networks held",
            Self::Delay { .. } => "networks slow",
            Self::Storm { .. } => "rebalance storms",
            Self::Duplicates { .. } => "duplicates",
            Self::Garbage { .. } => "garbage",
            Self::SlowDisk { .. } => "disks slow",
            Self::FullDisk { .. } => "disks full",
            Self::BrokerClock { .. } | Self::WorkerClock { .. } => "clocks wrong",
        }
    }

    /// What it concerns: two faults of one target do not overlap.
    pub(crate) fn target(&self) -> String {
        match self {
            Self::KillWorker { worker: (role, number), .. } | Self::StopWorker { worker: (role, number), .. } => {
                format!("{} {number}", role.name())
            }
            Self::KillBroker { broker, .. }
            | Self::StopBroker { broker, .. }
            | Self::SlowDisk { broker, .. }
            | Self::FullDisk { broker, .. } => format!("broker {broker}"),
            Self::Cut { broker, .. } | Self::Hold { broker, .. } | Self::Delay { broker, .. } => {
                format!("network of broker {broker}")
            }
            Self::Storm { role, .. } => format!("members of {}s", role.name()),
            Self::Duplicates { .. } | Self::Garbage { .. } => "foreign topic".to_owned(),
            Self::BrokerClock { broker, .. } => format!("clock of broker {broker}"),
            Self::WorkerClock { worker: (role, number), .. } => format!("clock of {} {number}", role.name()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target();
        match self {
            Self::KillWorker { down, .. } | Self::KillBroker { down, .. } => {
                write!(f, "kill -9 {target}, start it again after {down:?}")
            }
            Self::StopWorker { duration, .. } | Self::StopBroker { duration, .. } => {
                write!(f, "stop {target} for {duration:?}")
            }
            Self::Cut { duration, .. } => write!(f, "cut the {target} for {duration:?}"),
            Self::Hold { requests, answers, duration, cut, .. } => {
                let what = match (requests, answers) {
                    (true, true) => "all",
                    (true, false) => "requests",
                    _ => "answers",
                };
                let then = if *cut { ", then cut it" } else { "" };
                write!(f, "hold {what} in the {target} for {duration:?}{then}")
            }
            Self::Delay { by, duration, .. } => write!(f, "delay the {target} by {by:?} for {duration:?}"),
            Self::Storm { members, .. } => write!(f, "{} {target} come and go", members.len()),
            Self::Duplicates { count } => write!(f, "{count} messages again"),
            Self::Garbage { count } => write!(f, "{count} messages that cannot be read"),
            Self::SlowDisk { write, sync, duration, .. } => {
                write!(f, "slow disk of {target} for {duration:?}: {write:?} a write, {sync:?} a sync")
            }
            Self::FullDisk { duration, .. } => write!(f, "full disk of {target} for {duration:?}"),
            Self::BrokerClock { ahead_ms, duration, .. } | Self::WorkerClock { ahead_ms, duration, .. } => {
                write!(f, "{target} {ahead_ms} ms ahead for {duration:?}")
            }
        }
    }
}

/// The faults of a run, each with the pause before it.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What it follows from, beside the size.
    pub seed: u64,
    /// The faults.
    pub faults: Vec<(Duration, Fault)>,
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, size: &Size) -> Self {
        let mut rng = Rng::with_seed(seed);
        let faults = (0..size.faults).map(|_| (millis(&mut rng, 100..1_200), fault(&mut rng, size))).collect();
        Self { seed, faults }
    }
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

fn fault(rng: &mut Rng, size: &Size) -> Fault {
    let role = size.only.unwrap_or(ROLES[rng.usize(..ROLES.len())]);
    let worker = (role, rng.usize(..processes(role, size)));
    let broker = rng.usize(..size.brokers);
    let weight = match (size.only, size.shim) {
        (Some(Role::Projector | Role::Consumer), _) => 42,
        (Some(_), _) => 32,
        (None, true) => 100,
        (None, false) => 84,
    };
    match rng.u32(..weight) {
        0..16 => Fault::KillWorker { worker, down: millis(rng, 0..1_500) },
        // Past sessions and leases, and often past the limits of polls and transactions.
        16..32 => Fault::StopWorker { worker, duration: millis(rng, 500..8_000) },
        32..42 => {
            let role = size.only.unwrap_or(if rng.bool() { Role::Projector } else { Role::Consumer });
            let members = (0..rng.usize(2..5)).map(|_| (millis(rng, 200..2_500), rng.bool())).collect();
            Fault::Storm { role, members }
        }
        42..48 => Fault::KillBroker { broker, down: millis(rng, 0..2_000) },
        48..54 => Fault::StopBroker { broker, duration: millis(rng, 500..6_000) },
        54..61 => Fault::Cut { broker, duration: millis(rng, 100..5_000) },
        61..69 => {
            let (requests, answers) = [(true, true), (true, false), (false, true)][rng.usize(..3)];
            Fault::Hold { broker, requests, answers, duration: millis(rng, 500..6_000), cut: rng.bool() }
        }
        69..74 => Fault::Delay { broker, by: millis(rng, 10..400), duration: millis(rng, 500..5_000) },
        74..80 => Fault::Duplicates { count: rng.usize(1..20) },
        80..84 => Fault::Garbage { count: rng.usize(1..4) },
        84..89 => {
            let (write, sync) = (millis(rng, 1..50), millis(rng, 50..1_500));
            Fault::SlowDisk { broker, write, sync, duration: millis(rng, 1_000..5_000) }
        }
        89..93 => Fault::FullDisk { broker, duration: millis(rng, 500..4_000) },
        93..97 => Fault::BrokerClock { broker, ahead_ms: skew(rng, 2), duration: millis(rng, 1_000..8_000) },
        _ => Fault::WorkerClock { worker, ahead_ms: skew(rng, 4), duration: millis(rng, 1_000..8_000) },
    }
}

/// Seconds to an hour, in either direction: one of the first `sizes`. A broker's timers follow the wall clock, and when it is set back by an
/// hour they stand still for one.
fn skew(rng: &mut Rng, sizes: usize) -> i64 {
    let size = [2_000, 15_000, 600_000, 3_600_000][rng.usize(..sizes)];
    if rng.bool() { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_and_another_one_another() {
        let size = Size { faults: 200, ..Size::default() };
        let plan = Plan::new(7, &size);
        assert_eq!(plan.faults, Plan::new(7, &size).faults);
        assert_ne!(plan.faults, Plan::new(8, &size).faults);
        let kinds: std::collections::BTreeSet<_> = plan.faults.iter().map(|(_, fault)| fault.kind()).collect();
        assert!(kinds.len() >= 12, "{kinds:?}");
    }
}
