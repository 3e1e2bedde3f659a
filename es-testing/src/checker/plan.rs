//! What a run does: a pure function of its seed.

use fastrand::Rng;
use serde::{Deserialize, Serialize};

use super::{operation::Operation, size::Size};
use es_core::StreamId;

/// What is done to a run from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blow {
    /// The sessions of all stores are cut.
    Sessions,
    /// The server is killed and comes up again.
    Server,
    /// This process is killed and started again.
    Process(u32),
}

impl Blow {
    /// Whether calls of processes that live on may fail by it.
    pub fn is_felt_by_all(self) -> bool {
        !matches!(self, Self::Process(_))
    }
}

/// What everybody does in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it was made from.
    pub seed: u64,
    /// How large it is.
    pub size: Size,
    /// What each client does, in order.
    pub clients: Vec<Vec<Operation>>,
    /// After how many operations, of all clients together, what is disrupted; in order.
    pub blows: Vec<(u64, Blow)>,
}

impl Plan {
    /// The plan that `seed` stands for.
    pub fn new(seed: u64, size: &Size) -> Self {
        let client = |client: u32| {
            let mut rng = Rng::with_seed(mixed(seed, u64::from(client) + 1));
            (0..size.operations).map(|number| Operation::random(&mut rng, size, number)).collect()
        };
        let clients = (0..size.clients).map(client).collect();
        let mut rng = Rng::with_seed(mixed(seed, 0));
        let kinds = kinds(&mut rng, size);
        let mut blows: Vec<_> =
            kinds.iter().cycle().take(size.blows as usize).map(|kind| blow(&mut rng, size, *kind)).collect();
        blows.sort_by_key(|(after, _)| *after);
        Self { seed, size: size.clone(), clients, blows }
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

    /// The readers of a process, numbered behind the clients.
    pub fn readers_of(&self, process: u32) -> impl Iterator<Item = u32> {
        let first = self.size.clients + process * self.size.readers;
        first..first + self.size.readers
    }

    /// The number under which the reader of the whole log stands in the history.
    pub fn last_reader(&self) -> u32 {
        self.size.clients + self.size.processes.max(1) * self.size.readers
    }

    /// The stream with this number: the hot ones come first.
    pub fn stream(&self, number: u32) -> StreamId {
        let kind = if number < self.size.hot_streams { "hot" } else { "cold" };
        StreamId::new("checker", &format!("{kind}-{number}")).expect("a valid name")
    }
}

/// The kinds of blows that may fall, in the order in which they take turns: a few blows are one of each.
fn kinds(rng: &mut Rng, size: &Size) -> Vec<Blow> {
    let allowed = [
        (Blow::Sessions, size.cut_sessions),
        (Blow::Server, size.crash_server),
        (Blow::Process(0), size.processes > 1 && size.clients > 0),
    ];
    let mut kinds: Vec<_> = allowed.into_iter().filter_map(|(kind, allowed)| allowed.then_some(kind)).collect();
    rng.shuffle(&mut kinds);
    kinds
}

/// The first and the last tenth are left in peace, so that something is under way.
fn blow(rng: &mut Rng, size: &Size, kind: Blow) -> (u64, Blow) {
    let operations = u64::from(size.clients) * u64::from(size.operations);
    let after = rng.u64(operations / 10..=operations * 9 / 10);
    let blow = if let Blow::Process(_) = kind { Blow::Process(rng.u32(1..size.processes)) } else { kind };
    (after, blow)
}

/// A seed for one part of a plan (the finaliser of splitmix64: neighbours become strangers).
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
        let size = Size { blows: 5, cut_sessions: true, processes: 3, ..Size::default() };
        assert_eq!(Plan::new(1, &size), Plan::new(1, &size));
        assert_ne!(Plan::new(1, &size).clients, Plan::new(2, &size).clients);
        assert_ne!(Plan::new(1, &size).blows, Plan::new(2, &size).blows);
    }

    #[test]
    fn a_few_blows_are_one_of_each_kind() {
        let size = Size { blows: 3, cut_sessions: true, crash_server: true, processes: 2, ..Size::default() };
        let mut blows: Vec<String> = Plan::new(1, &size).blows.iter().map(|(_, blow)| format!("{blow:?}")).collect();
        blows.sort();
        assert_eq!(blows, ["Process(1)", "Server", "Sessions"]);
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
