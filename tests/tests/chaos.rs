//! A service on Postgres and on Kafka clusters of the tests' own, while both, and the service, are disturbed. `cargo xtask chaos` does
//! that for longer.

#[path = "chaos/cluster.rs"]
mod cluster;
#[path = "chaos/planted.rs"]
mod planted;
#[path = "chaos/short.rs"]
mod short;

use std::path::Path;

use tests::chaos::{Plant, Report, Size, Trial};
use tokio::sync::{Mutex, MutexGuard};

/// The program that takes part in runs.
const PROGRAM: &str = env!("CARGO_BIN_EXE_chaos");

/// Where the logs of runs with findings are kept.
const DIRECTORY: &str = env!("CARGO_TARGET_TMPDIR");

/// A seed that was never tried: the last bits of such an id are random.
fn seed() -> u64 {
    uuid::Uuid::now_v7().as_u64_pair().1 & 0xffff_ffff
}

/// One after the other: each run has a dozen processes, and what it does has to happen within seconds.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

async fn run(seed: u64, size: &Size, plant: Option<Plant>) -> Report {
    let trial = Trial::new(seed, size, plant, Path::new(DIRECTORY));
    let report = trial.run(Path::new(PROGRAM), |line| println!("{line}")).await.expect("files and processes");
    println!("{report}");
    report.findings.iter().for_each(|finding| println!("{finding}"));
    report
}
