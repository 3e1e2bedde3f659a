//! Runs the chaos suite; `cargo xtask chaos` starts it with a database.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use tests::chaos::{Part, Plant, Size, Trial};

/// Runs a service on Postgres and on brokers of its own while faults disturb all of it, and looks for what was lost, repeated or
/// reordered afterwards.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many faults.
    #[arg(long, default_value_t = 100)]
    faults: usize,
    /// The seed from which they follow; drawn at random if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How many brokers: 1 or 3.
    #[arg(long, default_value_t = 1, value_parser = brokers)]
    brokers: usize,
    /// How many events clients append each second.
    #[arg(long, default_value_t = 40)]
    events: u32,
    /// For how many seconds the load is ten times as high after the faults.
    #[arg(long, default_value_t = 0)]
    spike: u64,
    /// Leaves out slow and full disks and wrong clocks.
    #[arg(long)]
    no_shim: bool,
    /// What is wrong on purpose.
    #[arg(long, value_enum)]
    plant: Option<Plant>,
    /// The directory for the logs of runs with findings.
    #[arg(long, default_value = "target/chaos")]
    directory: PathBuf,
    /// Keeps the logs of a run without findings too.
    #[arg(long)]
    keep: bool,
    /// The part of a run that this process takes; for child processes only.
    #[arg(long, hide = true)]
    part: Option<String>,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        if let Some(part) = &arguments.part {
            serde_json::from_str::<Part>(part)?.take().await?;
            return Ok(ExitCode::SUCCESS);
        }
        let seed = arguments.seed.unwrap_or_else(|| uuid::Uuid::now_v7().as_u64_pair().1 & 0xffff_ffff);
        println!("seed {seed}");
        let size = Size {
            faults: arguments.faults,
            brokers: arguments.brokers,
            events: arguments.events,
            shim: Size::default().shim && !arguments.no_shim,
            spike: std::time::Duration::from_secs(arguments.spike),
            ..Size::default()
        };
        let mut trial = Trial::new(seed, &size, arguments.plant, &arguments.directory);
        trial.keep(arguments.keep);
        let report = trial.run(&std::env::current_exe()?, |line| println!("{line}")).await?;
        println!("{report}");
        report.findings.iter().for_each(|finding| println!("{finding}"));
        if report.findings.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        println!("logs: {}", report.directory.display());
        Ok(ExitCode::FAILURE)
    })
}

fn brokers(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("1 or 3".to_owned()),
    }
}
