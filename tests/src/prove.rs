//! Proves a rebuild in full size; `cargo xtask prove-rebuild` starts it with a server.

use std::{process::ExitCode, time::Duration};

use clap::Parser;
use tests::proof::{Proof, Role};

/// Rebuilds a read model of a large log while another process appends, kills the rebuild (`kill -9`) again and again, compares what
/// serves at last with an independent fold, and prints what appends, memory and events cost.
///
/// Ten million events need some 15 GB of disk for a while. The exit code is 1 if the read model is not that of the log, or a
/// rebuild began again.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many events.
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// In how many streams, each with a document.
    #[arg(long, default_value_t = 1_000_000)]
    accounts: u64,
    /// Appends a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// For how many seconds appends are measured without a rebuild.
    #[arg(long, default_value_t = 30.0)]
    quiet_seconds: f64,
    /// How often the rebuild is killed.
    #[arg(long, default_value_t = 3)]
    kills: u32,
    /// The limit of the throttle, in milliseconds [default: 1.25 times what appends take without a rebuild]
    #[arg(long)]
    append_p99_ms: Option<f64>,
    /// Only what is about being killed.
    #[arg(long)]
    brief: bool,
    /// What this process does, if it is a child.
    #[arg(long, hide = true)]
    role: Option<String>,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error + Send + Sync>> {
    let arguments = Arguments::parse();
    if let Some(role) = &arguments.role {
        serde_json::from_str::<Role>(role)?.act().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let proof = Proof {
        program: std::env::current_exe()?,
        database: std::env::var("DATABASE_URL").map_err(|_| "DATABASE_URL names no server")?,
        events: arguments.events.max(1_000),
        accounts: arguments.accounts.max(1),
        rate: arguments.rate.max(1),
        quiet: Duration::try_from_secs_f64(arguments.quiet_seconds)?,
        kills: arguments.kills,
        append_p99: arguments.append_p99_ms.map(|ms| Duration::try_from_secs_f64(ms / 1_000.0)).transpose()?,
        document_bytes: None,
        waits: false,
        measures: !arguments.brief,
    };
    let report = proof.run().await?;
    println!("{report}");
    Ok(if report.is_proved() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
