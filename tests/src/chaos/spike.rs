//! Ten times the steady load for a while: memory stays flat, and readers catch up.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use es_core::{EventStore, Service};

use super::{faults::Scene, ground::Ground};

/// How many times the steady load it is.
const TIMES: u32 = 10;

/// How much more memory a process may take than before: its buffers fill, and what they hold does not grow with what waits (R17).
const ROOM: u64 = 128 * 1024 * 1024;

const EVERY: Duration = Duration::from_millis(500);

/// Processes in steady state have their buffers and connections.
const STEADY: Duration = Duration::from_secs(10);

/// Raises the load for `duration`. What is told of it goes to `told`, and to the findings which process took too much memory.
pub(super) async fn spike(scene: &Scene, service: &Service, duration: Duration, told: &mut impl FnMut(&str)) {
    tokio::time::sleep(STEADY.min(duration)).await;
    let (before, began) = (scene.memory(), Instant::now());
    let mut most: BTreeMap<_, _> = before.iter().map(|(name, bytes)| (name.clone(), *bytes)).collect();
    let mut lag = 0;
    let first = service.store().head().await.expect("Postgres is up");
    let rising = scene.load().raise(service, TIMES, duration);
    tokio::pin!(rising);
    loop {
        tokio::select! {
            () = &mut rising => break,
            () = tokio::time::sleep(EVERY) => {
                let reached = Ground::reached(service).await.get();
                let head = service.store().head().await.expect("Postgres is up").get();
                lag = head.saturating_sub(reached).max(lag);
                for (name, bytes) in scene.memory() {
                    let most = most.entry(name).or_default();
                    *most = bytes.max(*most);
                }
            }
        }
    }
    let last = service.store().head().await.expect("Postgres is up");
    let rate = u128::from(last.get() - first.get()) * 1_000 / began.elapsed().as_millis().max(1);
    told(&format!("a spike of {rate} events a second; readers were at most {lag} events behind"));
    for (name, most) in most {
        let (before, mib) = (before.get(&name).copied().unwrap_or_default(), |bytes: u64| bytes / 1024 / 1024);
        told(&format!("memory of {name}: {} MiB before, {} MiB at most", mib(before), mib(most)));
        if most > before + ROOM {
            scene.find(format!("{name} took {} MiB in the spike, and {} MiB before", mib(most), mib(before)));
        }
    }
}

/// What a process has in memory, in bytes; on Linux.
pub(super) fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
