//! The plan of a run: a pure function of its seed.

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::{operation::Operation, size::Size};
use es_core::StreamId;

/// A fault that is injected into a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The sessions of all stores are cut.
    Sessions,
    /// The server is killed and restarts.
    Server,
    /// The process with this number is killed and started again.
    Process(u32),
}

impl Fault {
    /// Whether calls of other processes may fail because of it.
    pub fn affects_all(self) -> bool {
        !matches!(self, Self::Process(_))
    }
}

/// Everything that clients and faults do in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The seed from which it was made.
    pub seed: u64,
    /// Its size.
    pub size: Size,
    /// The operations of each client, in order.
    pub clients: Vec<Vec<Operation>>,
    /// The faults in order, each with the number of operations of all clients after which it is injected.
    pub faults: Vec<(u64, Fault)>,
}

impl Plan {
    /// The plan for `seed`.
    pub fn new(seed: u64, size: &Size) -> Self {
        let client = |client: u32| {
            let mut rng = Rng::with_seed(mixed(seed, u64::from(client) + 1));
            (0..size.operations).map(|number| Operation::random(&mut rng, size, number)).collect()
        };
        let clients = (0..size.clients).map(client).collect();
        let mut rng = Rng::with_seed(mixed(seed, 0));
        let kinds = kinds(&mut rng, size);
        let mut faults: Vec<_> =
            kinds.iter().cycle().take(size.faults as usize).map(|kind| fault(&mut rng, size, *kind)).collect();
        faults.sort_by_key(|(after, _)| *after);
        Self { seed, size: size.clone(), clients, faults }
    }

    /// How many operations all clients do together.
    pub fn operations(&self) -> u64 {
        u64::from(self.size.clients) * u64::from(self.size.operations)
    }

    /// The clients of a process.
    pub fn clients_of(&self, process: u32) -> impl Iterator<Item = u32> {
        let processes = self.size.processes.max(1);
        (0..self.size.clients).filter(move |client| client % processes == process)
    }

    /// The readers of a process. Their numbers follow those of the clients.
    pub fn readers_of(&self, process: u32) -> impl Iterator<Item = u32> {
        let first = self.size.clients + process * self.size.readers;
        first..first + self.size.readers
    }

    /// The number of the reader of the whole log in the history.
    pub fn last_reader(&self) -> u32 {
        self.size.clients + self.size.processes.max(1) * self.size.readers
    }

    /// The stream with this number: the hot ones come first.
    pub fn stream(&self, number: u32) -> StreamId {
        let kind = if number < self.size.hot_streams { "hot" } else { "cold" };
        StreamId::new("checker", &format!("{kind}-{number}")).expect("a valid name")
    }
}

/// The kinds of faults of this run in random order. They take turns, so a few faults already include each kind.
fn kinds(rng: &mut Rng, size: &Size) -> Vec<Fault> {
    let allowed = [
        (Fault::Sessions, size.cut_sessions),
        (Fault::Server, size.crash_server),
        (Fault::Process(0), size.processes > 1 && size.clients > 0),
    ];
    let mut kinds: Vec<_> = allowed.into_iter().filter_map(|(kind, allowed)| allowed.then_some(kind)).collect();
    rng.shuffle(&mut kinds);
    kinds
}

/// No fault in the first and the last tenth of the operations, so that calls are in progress at each fault.
fn fault(rng: &mut Rng, size: &Size, kind: Fault) -> (u64, Fault) {
    let operations = u64::from(size.clients) * u64::from(size.operations);
    let after = rng.u64(operations / 10..=operations * 9 / 10);
    let fault = if let Fault::Process(_) = kind { Fault::Process(rng.u32(1..size.processes)) } else { kind };
    (after, fault)
}

/// A seed for one part of a plan. (The finaliser of splitmix64: adjacent inputs give independent seeds.)
pub(super) fn mixed(seed: u64, part: u64) -> u64 {
    let mut mixed = seed ^ part.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_stands_for_one_plan() {
        let size = Size { faults: 5, cut_sessions: true, processes: 3, ..Size::default() };
        assert_eq!(Plan::new(1, &size), Plan::new(1, &size));
        assert_ne!(Plan::new(1, &size).clients, Plan::new(2, &size).clients);
        assert_ne!(Plan::new(1, &size).faults, Plan::new(2, &size).faults);
    }

    #[test]
    fn a_few_faults_are_one_of_each_kind() {
        let size = Size { faults: 3, cut_sessions: true, crash_server: true, processes: 2, ..Size::default() };
        let mut faults: Vec<String> =
            Plan::new(1, &size).faults.iter().map(|(_, fault)| format!("{fault:?}")).collect();
        faults.sort();
        assert_eq!(faults, ["Process(1)", "Server", "Sessions"]);
    }

    #[test]
    fn every_client_belongs_to_one_process() {
        let plan = Plan::new(1, &Size { clients: 7, processes: 3, ..Size::default() });
        let mut clients: Vec<u32> = (0..3).flat_map(|process| plan.clients_of(process)).collect();
        clients.sort_unstable();
        assert_eq!(clients, (0..7).collect::<Vec<_>>());
        assert_eq!(plan.readers_of(2).collect::<Vec<_>>(), [11, 12]);
        assert_eq!(plan.last_reader(), 13);
    }
}
