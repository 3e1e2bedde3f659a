//! Injects faults, and heals them.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Mutex, time::sleep};

use super::{
    java::{Hanging, abort_hanging},
    load::Load,
    plan::{Fault, Size, Worker, processes},
    shim::{Control, Shim},
    spike::resident,
    worker::{Process, Role, Starter},
};
use crate::{cluster::Cluster, proxy::Proxy};

/// How long a broker that meets a full disk may take to end.
const ENDING: Duration = Duration::from_secs(1);

/// A process of the service, and its clock.
#[derive(Debug)]
struct Slot {
    process: Process,
    control: Option<Arc<Control>>,
}

/// What the faults of a run concern.
#[derive(Debug)]
pub(crate) struct Scene {
    cluster: Cluster,
    proxies: Vec<Proxy>,
    controls: Vec<Option<Arc<Control>>>,
    workers: HashMap<Worker, Mutex<Slot>>,
    starter: Starter,
    load: Load,
    members: AtomicUsize,
    ended: AtomicUsize,
    hanging: AtomicUsize,
    findings: StdMutex<Vec<String>>,
}

impl Scene {
    /// Starts the processes of a run.
    pub(crate) fn begin(
        cluster: Cluster,
        proxies: Vec<Proxy>,
        controls: Vec<Option<Arc<Control>>>,
        starter: Starter,
        load: Load,
        size: &Size,
        shim: Option<&Shim>,
    ) -> io::Result<Self> {
        let mut workers = HashMap::new();
        for role in [Role::Relay, Role::Projector, Role::Policy, Role::Consumer] {
            for number in 0..processes(role, size) {
                let control = match shim {
                    Some(shim) => {
                        let name = format!("{}.control", log((role, number)));
                        Some(Arc::new(shim.control(starter.directory().join(name))?))
                    }
                    None => None,
                };
                let process = starter.start(role, &log((role, number)), control.as_deref())?;
                workers.insert((role, number), Mutex::new(Slot { process, control }));
            }
        }
        Ok(Self {
            cluster,
            proxies,
            controls,
            workers,
            starter,
            load,
            members: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            hanging: AtomicUsize::new(0),
            findings: StdMutex::default(),
        })
    }

    /// Injects a fault, and returns when it is over.
    pub(crate) async fn inject(&self, fault: &Fault) {
        match *fault {
            Fault::KillWorker { worker, down } => self.kill_worker(worker, down).await,
            Fault::StopWorker { worker, duration } => {
                let slot = self.workers[&worker].lock().await;
                slot.process.stop();
                sleep(duration).await;
                slot.process.resume();
            }
            Fault::KillBroker { broker, down } => {
                self.cluster.kill(broker).await;
                sleep(down).await;
                self.cluster.restart(broker).await;
            }
            Fault::StopBroker { broker, duration } => {
                self.cluster.stop(broker).await;
                sleep(duration).await;
                self.cluster.resume(broker).await;
            }
            Fault::Cut { broker, duration } => {
                self.proxies[broker].change(|weather| weather.cut = true);
                sleep(duration).await;
                self.proxies[broker].change(|weather| weather.cut = false);
            }
            Fault::Hold { broker, requests, answers, duration, cut } => {
                let proxy = &self.proxies[broker];
                proxy.change(|weather| (weather.requests_held, weather.answers_held) = (requests, answers));
                sleep(duration).await;
                if cut {
                    proxy.change(|weather| weather.cut = true);
                    // The connections see it before it is over.
                    sleep(Duration::from_millis(50)).await;
                }
                proxy.change(|weather| {
                    (weather.requests_held, weather.answers_held, weather.cut) = (false, false, false);
                });
            }
            Fault::Delay { broker, by, duration } => {
                self.proxies[broker].change(|weather| weather.delay = by);
                sleep(duration).await;
                self.proxies[broker].change(|weather| weather.delay = Duration::ZERO);
            }
            Fault::Storm { role, ref members } => self.storm(role, members).await,
            Fault::Duplicates { count } => self.load.outside().repeat(count),
            Fault::Garbage { count } => self.load.outside().garbage(count),
            Fault::SlowDisk { broker, write, sync, duration } => {
                let Some(control) = &self.controls[broker] else { return };
                control.slow(write, sync);
                sleep(duration).await;
                control.slow(Duration::ZERO, Duration::ZERO);
            }
            Fault::FullDisk { broker, duration } => self.fill_disk(broker, duration).await,
            Fault::BrokerClock { broker, ahead_ms, duration } => {
                skew(self.controls[broker].as_deref(), ahead_ms, duration).await;
            }
            Fault::WorkerClock { worker, ahead_ms, duration } => {
                let control = self.workers[&worker].lock().await.control.clone();
                skew(control.as_deref(), ahead_ms, duration).await;
            }
        }
    }

    async fn kill_worker(&self, worker: Worker, down: Duration) {
        let mut slot = self.workers[&worker].lock().await;
        self.note_ended(worker, &mut slot.process);
        slot.process.kill();
        sleep(down).await;
        match self.starter.start(worker.0, &log(worker), slot.control.as_deref()) {
            Ok(process) => slot.process = process,
            Err(error) => self.find(format!("{} cannot be started: {error}", log(worker))),
        }
    }

    async fn storm(&self, role: Role, members: &[(Duration, bool)]) {
        let each = members.iter().map(|&(stays, in_order)| async move {
            let name = format!("member-{}", self.members.fetch_add(1, Ordering::Relaxed));
            let mut process = match self.starter.start(role, &name, None) {
                Ok(process) => process,
                Err(error) => return self.find(format!("{name} cannot be started: {error}")),
            };
            sleep(stays).await;
            if let Some(why) = process.ended() {
                self.find(format!("{name} has ended by itself: {why}"));
            } else if in_order {
                if let Err(why) = process.end().await {
                    self.find(format!("{name}: {why}"));
                }
            } else {
                process.kill();
            }
        });
        futures_util::future::join_all(each).await;
    }

    /// A broker whose disk is full ends by itself; when there is room again, it is started again.
    async fn fill_disk(&self, broker: usize, duration: Duration) {
        let Some(control) = &self.controls[broker] else { return };
        control.full(true);
        sleep(duration).await;
        control.full(false);
        sleep(ENDING).await;
        if !self.cluster.runs(broker).await {
            self.ended.fetch_add(1, Ordering::Relaxed);
            self.cluster.restart(broker).await;
        }
    }

    /// What each process of the service has in memory, in bytes, as far as that can be seen.
    pub(crate) fn memory(&self) -> BTreeMap<String, u64> {
        let of = |(worker, slot): (&Worker, &Mutex<Slot>)| {
            let process = slot.try_lock().ok()?.process.id();
            Some((log(*worker), resident(process)?))
        };
        self.workers.iter().filter_map(of).collect()
    }

    /// Ends transactions of which no coordinator knows any more, and returns them.
    pub(crate) async fn abort_hanging(&self) -> Vec<Hanging> {
        let mut all = Vec::new();
        for place in self.cluster.places() {
            match abort_hanging(&format!("127.0.0.1:{}", place.other), place.node).await {
                Ok(found) => all.extend(found),
                Err(error) => self.find(format!("transactions that hang cannot be looked for: {error}")),
            }
        }
        self.hanging.fetch_add(all.len(), Ordering::Relaxed);
        all
    }

    /// How many of these there were.
    pub(crate) fn hanging(&self) -> usize {
        self.hanging.load(Ordering::Relaxed)
    }

    /// How many brokers a full disk has ended.
    pub(crate) fn ended_by_full_disk(&self) -> usize {
        self.ended.load(Ordering::Relaxed)
    }

    /// Notes the processes that have ended by themselves, and starts brokers again that have.
    pub(crate) fn inspect(&self) {
        for (worker, slot) in &self.workers {
            // One that a fault concerns is looked at there.
            if let Ok(mut slot) = slot.try_lock() {
                self.note_ended(*worker, &mut slot.process);
            }
        }
    }

    /// Starts brokers again that have ended by themselves. It is called when all faults are over.
    pub(crate) async fn heal(&self) {
        for broker in 0..self.proxies.len() {
            if !self.cluster.runs(broker).await {
                let log = self.cluster.log(broker).await;
                let last: Vec<_> = log.lines().rev().take(3).collect();
                println!("broker {broker} has ended by itself: {last:?}");
                self.cluster.restart(broker).await;
            }
        }
    }

    fn note_ended(&self, worker: Worker, process: &mut Process) {
        if let Some(why) = process.ended() {
            self.find(format!("{} has ended by itself: {why}", log(worker)));
        }
    }

    pub(crate) fn find(&self, finding: String) {
        let mut findings = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }

    pub(crate) fn findings(&self) -> Vec<String> {
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn load(&self) -> &Load {
        &self.load
    }
}

fn log((role, number): Worker) -> String {
    format!("{}-{number}", role.name())
}

async fn skew(control: Option<&Control>, ahead_ms: i64, duration: Duration) {
    let Some(control) = control else { return };
    control.clock(ahead_ms);
    sleep(duration).await;
    control.clock(0);
}
