//! One run, from the seed to the findings.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use es_core::{Position, Service, error::with_causes, service::Parts};
use tokio::task::JoinHandle;

use super::{
    check::check,
    faults::Scene,
    ground::Ground,
    load::Load,
    plan::{Plan, Size},
    plant::Plant,
    shim::{Control, Shim},
    spike::spike,
    worker::Starter,
};
use crate::{
    cluster::{Cluster, Place, Properties},
    proxy::Proxy,
};

/// After so many faults all of them are over for a moment, and readers have to come to where the log ends then.
const BREATH: usize = 40;

/// How long that may take, and how long everything may take to settle in the end: only a failure waits for it.
const PATIENCE: Duration = Duration::from_mins(2);

/// A run that is ready to begin.
#[derive(Debug)]
pub struct Trial {
    plan: Plan,
    size: Size,
    plant: Option<Plant>,
    directory: PathBuf,
    keeps: bool,
}

/// The result of a run.
#[derive(Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What was lost, repeated or reordered, or has stopped; empty when all promises were kept.
    pub findings: Vec<String>,
    /// Where the logs of the processes are; they are kept only if there are findings.
    pub directory: PathBuf,
    brokers: usize,
    took: Duration,
    faults: BTreeMap<&'static str, usize>,
    ended_by_full_disk: usize,
    hanging: usize,
    events: u64,
    messages: usize,
}

impl Trial {
    /// The run of a seed. Processes log below `directory`. What is wrong on purpose is `plant`.
    pub fn new(seed: u64, size: &Size, plant: Option<Plant>, directory: &Path) -> Self {
        let directory = directory.join(format!("seed-{seed}-{}", std::process::id()));
        Self { plan: Plan::new(seed, size), size: size.clone(), plant, directory, keeps: false }
    }

    /// Whether it keeps the logs of its processes also when there are no findings.
    pub fn keep(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// Runs it. `program` takes [parts](super::Part). `told` hears of each fault.
    ///
    /// # Errors
    /// Those of files and processes.
    ///
    /// # Panics
    /// When there is no Kafka to start ([`Installed`](crate::cluster::Installed)), or no Postgres.
    pub async fn run(self, program: &Path, mut told: impl FnMut(&str)) -> io::Result<Report> {
        let began = Instant::now();
        std::fs::create_dir_all(&self.directory)?;
        let directory = self.directory.canonicalize()?;
        let shim = if self.size.shim { Shim::compile(&directory)? } else { None };

        let mut proxies = Vec::new();
        for _ in 0..self.size.brokers {
            proxies.push(Proxy::listen().await);
        }
        let controls = controls(shim.as_ref(), self.size.brokers, &directory)?;
        let cluster = cluster(&proxies, &controls).await;
        for (proxy, place) in proxies.iter().zip(cluster.places()) {
            proxy.to(place.port);
        }
        let addresses: Vec<_> = proxies.iter().map(|proxy| format!("127.0.0.1:{}", proxy.port())).collect();
        let replication = if self.size.brokers < 3 { 1 } else { 3 };
        let ground = Ground::new(addresses.join(","), replication, self.plant);
        let service = ground.start(Parts::None).await;
        if let Some(plant) = self.plant {
            plant.into(&ground).await;
        }

        let load = Load::begin(&service, &ground, self.size.events).await;
        let starter = Starter::new(program, &ground, &directory);
        let scene = Scene::begin(cluster, proxies, controls, starter, load, &self.size, shim.as_ref())?;
        let scene = Arc::new(scene);
        let (injected, mut findings) = self.disturb(&scene, &service, began, &mut told).await;
        let known = scene.load().end().await;
        told(&format!("{:>7.1} s  all faults are over", began.elapsed().as_secs_f64()));
        if findings.is_empty() {
            // Where a reader has stopped, the rest only follows from that.
            if let Err(unsettled) = service.settled(PATIENCE).await {
                findings.push(with_causes(&unsettled));
            }
            findings.extend(messages_are_handled(&service, known.confirmed.len()).await);
            findings.extend(check(&service, &ground, &known).await);
        }
        scene.inspect();
        let more: Vec<_> = scene.findings().into_iter().filter(|finding| !findings.contains(finding)).collect();
        findings.extend(more);
        let mut faults = BTreeMap::new();
        for (_, fault) in &self.plan.faults[..injected] {
            *faults.entry(fault.kind()).or_default() += 1;
        }
        let events = service.store().head().await.map_or(0, Position::get);
        let report = Report {
            seed: self.plan.seed,
            findings,
            directory,
            brokers: self.size.brokers,
            took: began.elapsed(),
            faults,
            ended_by_full_disk: scene.ended_by_full_disk(),
            hanging: scene.hanging(),
            events,
            messages: known.sent.len(),
        };
        drop(scene);
        service.shutdown(Duration::from_secs(10)).await.map_err(io::Error::other)?;
        if report.findings.is_empty() || self.plant.is_some() {
            if !self.keeps {
                std::fs::remove_dir_all(&report.directory)?;
            }
            ground.remove().await;
        }
        Ok(report)
    }

    /// Injects the faults of the plan, until there is a finding; returns how many, and the findings.
    async fn disturb(
        &self,
        scene: &Arc<Scene>,
        service: &Service,
        began: Instant,
        told: &mut impl FnMut(&str),
    ) -> (usize, Vec<String>) {
        let mut running = HashMap::<String, JoinHandle<()>>::new();
        // There is something to disturb.
        if let Some(late) = progress(scene, service).await {
            return (0, vec![late]);
        }
        for (number, (pause, fault)) in (1..).zip(&self.plan.faults) {
            tokio::time::sleep(*pause).await;
            if let Some(before) = running.remove(&fault.target()) {
                note(scene, before.await);
            }
            told(&format!("{:>7.1} s  {number:>4}  {fault}", began.elapsed().as_secs_f64()));
            let (injecting, fault) = (scene.clone(), fault.clone());
            let target = fault.target();
            running.insert(target, tokio::spawn(async move { injecting.inject(&fault).await }));
            if number % BREATH == 0 || number == self.plan.faults.len() {
                for (_, fault) in running.drain() {
                    note(scene, fault.await);
                }
                scene.heal().await;
                let over = Instant::now();
                let late = settled(scene, service, told).await;
                let (at, took) = (began.elapsed().as_secs_f64(), over.elapsed().as_secs_f64());
                told(&format!("{at:>7.1} s        readers have caught up after {took:.1} s"));
                let findings: Vec<_> = scene.findings().into_iter().chain(late).collect();
                if !findings.is_empty() {
                    return (number, findings);
                }
            }
        }
        if !self.size.spike.is_zero() {
            let say = |line: &str| told(&format!("{:>7.1} s        {line}", began.elapsed().as_secs_f64()));
            spike(scene, service, self.size.spike, &mut { say }).await;
            let over = Instant::now();
            let late = progress(scene, service).await;
            told(&format!(
                "{:>7.1} s        readers have caught up after {:.1} s",
                began.elapsed().as_secs_f64(),
                over.elapsed().as_secs_f64()
            ));
            return (self.plan.faults.len(), scene.findings().into_iter().chain(late).collect());
        }
        (self.plan.faults.len(), Vec::new())
    }
}

fn note(scene: &Scene, ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        scene.find(format!("a fault could not be injected: {error}"));
    }
}

/// As [`progress`]. What a broker has left open for ever is ended in between, as an operator would: the relay's errors say how.
async fn settled(scene: &Scene, service: &Service, told: &mut impl FnMut(&str)) -> Option<String> {
    let late = progress(scene, service).await?;
    let hanging = scene.abort_hanging().await;
    if hanging.is_empty() {
        return Some(late);
    }
    for transaction in hanging {
        told(&format!("           no coordinator knows the transaction in {transaction}: it is aborted"));
    }
    progress(scene, service).await
}

/// Returns when all readers have come to where the log ends now, or a process has ended by itself; otherwise says that they have not.
async fn progress(scene: &Scene, service: &Service) -> Option<String> {
    let (began, head) = (Instant::now(), service.store().head().await.expect("Postgres is up"));
    loop {
        let reached = Ground::reached(service).await;
        scene.inspect();
        if reached >= head || !scene.findings().is_empty() {
            return None;
        }
        if began.elapsed() > PATIENCE {
            return Some(format!("readers are at {reached} {PATIENCE:?} after the log was at {head}"));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Returns when as many messages are in the log as brokers have confirmed.
async fn messages_are_handled(service: &Service, messages: usize) -> Option<String> {
    use super::{check::log, domain::FOREIGN};
    let began = Instant::now();
    loop {
        let handled = log(service).await.iter().filter(|event| event.stream.id().starts_with(FOREIGN)).count();
        if handled >= messages {
            // What follows from the last ones.
            return service.settled(PATIENCE).await.err().map(|unsettled| with_causes(&unsettled));
        }
        if began.elapsed() > PATIENCE {
            return Some(format!("{handled} of {messages} messages are handled after {PATIENCE:?}"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn controls(shim: Option<&Shim>, brokers: usize, directory: &Path) -> io::Result<Vec<Option<Arc<Control>>>> {
    let control = |broker: usize| {
        let Some(shim) = shim else { return Ok(None) };
        Ok(Some(Arc::new(shim.control(directory.join(format!("broker-{broker}.control")))?)))
    };
    (0..brokers).map(control).collect()
}

/// Brokers that tell clients the ports of their proxies, and reach each other without them.
async fn cluster(proxies: &[Proxy], controls: &[Option<Arc<Control>>]) -> Cluster {
    let ports: Vec<u16> = proxies.iter().map(Proxy::port).collect();
    let controls = controls.to_vec();
    let settings = move |place: &Place| {
        let (port, other, controller) = (place.port, place.other, place.controller);
        let proxy = ports[place.node - 1];
        let listeners = format!("127.0.0.1:{port},INTERNAL://127.0.0.1:{other},CONTROLLER://127.0.0.1:{controller}");
        let protocols = "PLAINTEXT:PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT";
        [
            ("listeners", format!("PLAINTEXT://{listeners}")),
            ("advertised.listeners", format!("PLAINTEXT://127.0.0.1:{proxy},INTERNAL://127.0.0.1:{other}")),
            ("listener.security.protocol.map", protocols.to_owned()),
            ("inter.broker.listener.name", "INTERNAL".to_owned()),
            // Files are made, closed and synced in the course of a run.
            ("log.segment.bytes", "1048576".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    };
    let environment = move |place: &Place| match &controls[place.node - 1] {
        Some(control) => control.environment(&place.data()),
        None => Properties::new(),
    };
    Cluster::of(proxies.len()).settings(settings).environment(environment).start().await
}

/// One line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (total, seconds) = (self.faults.values().sum::<usize>(), self.took.as_secs());
        let brokers = if self.brokers == 1 { "1 broker".to_owned() } else { format!("{} brokers", self.brokers) };
        write!(f, "seed {}, {brokers}, {seconds} s: {total} faults (", self.seed)?;
        for (index, (name, count)) in self.faults.iter().enumerate() {
            write!(f, "{}{count} {name}", if index == 0 { "" } else { ", " })?;
        }
        write!(
            f,
            "; {} brokers ended by a full disk, and left {} transactions hanging), {} events, {} messages, {} findings",
            self.ended_by_full_disk,
            self.hanging,
            self.events,
            self.messages,
            self.findings.len()
        )
    }
}
