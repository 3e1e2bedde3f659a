//! What the framework costs: every workload next to the bare work and to other frameworks, in one run.

mod account;
mod contender;
mod bare;
mod watched;
mod ours;
mod peers;
mod entrant;
mod workload;
mod database;
mod embedded;
mod usage;
mod placement;
mod measure;
mod processes;
mod rebuild;
mod tables;
mod sagas;
mod kafka;
mod rounds;
mod history;
mod import;
mod growth;
mod sheet;
mod follower;
mod visible;
mod steady;
mod service;
mod report;
mod results;
mod chart;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

use crate::{
    database::Server,
    measure::Timing,
    placement::Apart,
    report::Row,
    results::{Machine, Results},
    service::Failover,
    steady::Steady,
    workload::Workload,
};

/// Everybody's, as services that are after throughput have one. On the one of glibc, clients that answer each other's tasks
/// wait for each other's arenas.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Measures the framework, the bare work and other frameworks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", args_conflicts_with_subcommands = true)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Arguments {
    #[command(subcommand)]
    task: Option<Task>,

    /// Only these workloads; where there is none of that name, those whose names begin like it.
    workloads: Vec<String>,

    /// How often each participant is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// How long a measurement takes.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,

    /// Everything once and briefly, to see that it runs; the figures mean little.
    #[arg(long)]
    quick: bool,

    /// Leaves the other frameworks out: most of a run is theirs.
    #[arg(long)]
    without_peers: bool,

    /// Also on logs of up to ten million events: takes minutes and some ten gigabytes.
    #[arg(long)]
    growth: bool,

    /// Names the workloads.
    #[arg(long)]
    list: bool,

    /// Where the results go. Without it those of a whole run replace the last ones beside this program's source; those
    /// of a quick or a partial run go into the build directory.
    #[arg(long)]
    output: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Draws the results of the last whole run again.
    Chart,
    /// One of several processes of a measurement.
    #[command(hide = true)]
    Child(processes::Order),
    /// One that follows a log that this one writes.
    #[command(hide = true)]
    Follow(follower::Role),
}

impl Arguments {
    fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds.max(1) }
    }

    fn timing(&self) -> Timing {
        let (warm_up, window) = if self.quick { (0.2, 0.3) } else { (0.5, self.seconds) };
        Timing { warm_up: Duration::from_secs_f64(warm_up), window: Duration::from_secs_f64(window) }
    }

    fn wants(&self, name: &str) -> bool {
        let is_name = |wanted: &str| names().any(|(each, _)| each == wanted);
        let wanted = |wanted: &String| name == wanted || !is_name(wanted) && name.starts_with(wanted);
        self.workloads.is_empty() || self.workloads.iter().any(wanted)
    }

    /// A program that was built without them has none.
    fn has_peers(&self) -> bool {
        cfg!(feature = "peers") && !self.without_peers
    }

    fn output(&self) -> PathBuf {
        let whole = !self.quick && self.has_peers() && self.workloads.is_empty();
        self.output.clone().unwrap_or_else(|| PathBuf::from(if whole { "." } else { "../target/bench" }))
    }
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if arguments.list {
        let growth = workload::growth();
        let growth = growth.iter().map(|each| (each.name, each.title));
        names().chain(growth).for_each(|(name, title)| println!("{name:22} {title}"));
        return Ok(());
    }
    let url = || std::env::var("DATABASE_URL").context("DATABASE_URL names no server");
    match &arguments.task {
        Some(Task::Chart) => chart::draw(Path::new(".")),
        Some(Task::Child(order)) => order.obey(&url()?).await,
        Some(Task::Follow(role)) => role.obey(&url()?).await,
        None => run(&arguments, &Server::new(&url()?)).await,
    }
}

/// What can be measured on any log, by name and title.
fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    let workloads = workload::all().into_iter().map(|each| (each.name, each.title));
    let visible = visible::ALL.map(|each| (each.name, each.title));
    let services = service::ALL.map(|each| (each.name, each.title));
    workloads.chain(visible).chain(services).chain([(Steady::NAME, Steady::TITLE), (Failover::NAME, Failover::TITLE)])
}

async fn run(arguments: &Arguments, server: &Server) -> Result<()> {
    let (rounds, timing) = (arguments.rounds(), arguments.timing());
    let wanted = |workloads: Vec<Workload>| -> Vec<Workload> {
        let workloads = workloads.into_iter().filter(|workload| arguments.wants(workload.name));
        workloads.map(|workload| Workload { peers: workload.peers && arguments.has_peers(), ..workload }).collect()
    };
    let machine = Machine::describe(&mut server.connect().await?).await?;
    let mut rows = Vec::new();
    for workload in wanted(workload::all()) {
        let apart = Apart::keep(server, &workload).await?;
        let mut row = Row::of(&workload, apart.is_some(), &rounds::run(server, &workload, rounds, timing).await?);
        row.compare(&workload, &rows);
        print!("{}", row.table());
        rows.push(row);
    }
    let mut sheets = Vec::new();
    for visible in visible::ALL.iter().filter(|visible| arguments.wants(visible.name)) {
        let sheet = visible.run(server, rounds, arguments.quick).await?;
        print!("{}", sheet.table());
        sheets.push(sheet);
    }
    for service in service::ALL.iter().filter(|service| arguments.wants(service.name)) {
        let sheet = service.run(server, rounds, timing).await?;
        print!("{}", sheet.table());
        sheets.push(sheet);
    }
    if arguments.wants(Steady::NAME) {
        let sheet = Steady.run(server, rounds, timing).await?;
        print!("{}", sheet.table());
        sheets.push(sheet);
    }
    if arguments.wants(Failover::NAME) {
        let sheet = Failover.run(server, rounds).await?;
        print!("{}", sheet.table());
        sheets.push(sheet);
    }
    if arguments.growth {
        rows.extend(growth::run(server, &wanted(workload::growth()), rounds, timing, arguments.quick).await?);
    }
    let output = arguments.output();
    Results { machine, rounds, timing, versions: results::versions(), rows, sheets }.write(&output)?;
    chart::draw(&output)?;
    eprintln!("\nresults.json and results.svg are in {}", output.display());
    Ok(())
}
