//! Runs the checker for a given time; `cargo xtask check` starts it with a server.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{Parser, ValueEnum};
use es_testing::checker::Size;
use tests::checker::{Ground, Part, Trial};

/// Runs random clients against a store while it is disrupted, and compares what they saw with every promise. It takes one seed
/// after the other, until the time is over or a promise is broken.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// The first seed; drawn at random if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Run this many seeds, however long it takes.
    #[arg(long)]
    runs: Option<u64>,
    /// Clients of a run, in all its processes.
    #[arg(long, default_value_t = 24)]
    clients: u32,
    /// Operations of each client.
    #[arg(long, default_value_t = 150)]
    operations: u32,
    /// How many disruptions a run has.
    #[arg(long, default_value_t = 4)]
    faults: u32,
    /// Which store.
    #[arg(long, value_enum, default_value_t = Store::Postgres)]
    store: Store,
    /// The directory for the histories of runs with findings.
    #[arg(long, default_value = "target/check")]
    directory: PathBuf,
    /// The part of a run that this process takes; for child processes only.
    #[arg(long, hide = true)]
    part: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Store {
    Postgres,
    Sqlite,
    Memory,
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    if let Some(part) = &arguments.part {
        serde_json::from_str::<Part>(part)?.take().await?;
        return Ok(ExitCode::SUCCESS);
    }
    std::fs::create_dir_all(&arguments.directory)?;
    let until = Instant::now() + Duration::try_from_secs_f64(arguments.minutes * 60.0)?;
    // The last bits of such an id are random.
    let first = arguments.seed.unwrap_or_else(|| uuid::Uuid::now_v7().as_u64_pair().1 & 0xffff_ffff);
    for seed in first.. {
        let ends = arguments.runs.map_or(Instant::now() >= until, |runs| seed - first >= runs);
        if ends {
            break;
        }
        let files = tempfile::tempdir()?;
        let report = prepare(&arguments, seed, &files).await.run(&std::env::current_exe()?).await?;
        println!("{report}");
        if !report.findings.is_empty() {
            report.findings.iter().for_each(|finding| println!("{finding}"));
            println!("history: {}", report.history.display());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn prepare(arguments: &Arguments, seed: u64, files: &tempfile::TempDir) -> Trial {
    let ground = match arguments.store {
        Store::Postgres => Ground::postgres(),
        Store::Sqlite => Ground::Sqlite(files.path().join("events.db")),
        Store::Memory => Ground::Memory,
    };
    let size = Size {
        clients: arguments.clients,
        operations: arguments.operations,
        processes: if arguments.store == Store::Memory { 1 } else { 3 },
        faults: arguments.faults,
        cut_sessions: arguments.store == Store::Postgres,
        crash_server: ground.may_crash(),
        ..Size::default()
    };
    Trial::prepare(seed, &size, ground, 2, &arguments.directory).await
}
