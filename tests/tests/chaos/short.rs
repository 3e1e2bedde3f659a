//! Short runs.

use std::time::Duration;

use tests::{chaos::Size, cluster::Installed};

use crate::{run, seed, turn};

async fn keeps_every_promise(size: &Size) {
    if Installed::or_left_out().is_none() {
        return;
    }
    let _turn = turn().await;
    let report = run(seed(), size, None).await;
    assert!(report.findings.is_empty(), "{} (logs: {})", report.findings[0], report.directory.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r9_r10_r18_a_disturbed_broker_and_service_lose_repeat_and_reorder_nothing() {
    keeps_every_promise(&Size { faults: 25, ..Size::default() }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it needs a minute or two of a quiet machine: run it with --ignored"]
async fn r9_r10_r18_three_disturbed_brokers_lose_repeat_and_reorder_nothing() {
    keeps_every_promise(&Size { faults: 8, brokers: 3, ..Size::default() }).await;
}

/// Each process may take 128 MiB more than before, and all that the suite compares has to be right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r17_a_spike_of_ten_times_the_load_takes_no_more_memory_and_loses_nothing() {
    let spike = Duration::from_secs(5);
    keeps_every_promise(&Size { faults: 0, shim: false, spike, ..Size::default() }).await;
}
