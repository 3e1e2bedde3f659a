//! Which processors the server and its clients run on.
//!
//! A few clients do not keep two processors busy. Whether a client and its process of the server then meet on one or wake each
//! other up on two is up to the kernel, and stays so for seconds: the one takes 4 us, the other 30 (on a virtual machine,
//! which gives idle processors back). So they are kept apart, as on two machines.

use std::{fs, ops::RangeInclusive, process};

use anyhow::Result;

use crate::{database::Server, usage, workload::Workload};

/// While it lives, the threads of this process and the processes that the server starts have processors of their own.
#[derive(Debug)]
pub(crate) struct Apart {
    postmaster: u32,
    /// What both had.
    all: Vec<usize>,
}

impl Apart {
    /// `None` if the work is for many clients, if there is only one processor, or if the server does not let itself be
    /// moved (or seen: it may be on another machine).
    pub(crate) async fn keep(server: &Server, workload: &Workload) -> Result<Option<Self>> {
        if !workload.is_for_few() {
            return Ok(None);
        }
        let postmaster = usage::postmaster(&mut server.connect().await?).await?;
        let Some((postmaster, all)) = postmaster.zip(processors()) else { return Ok(None) };
        let (servers, clients) = all.split_at(all.len() / 2);
        let are_apart = !servers.is_empty() && put(postmaster, servers) && put(process::id(), clients);
        let apart = Self { postmaster, all };
        Ok(are_apart.then_some(apart))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        put(self.postmaster, &self.all);
        put(process::id(), &self.all);
    }
}

/// The processors of this process.
fn processors() -> Option<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let ranges = allowed.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    Some(ranges.collect::<Option<Vec<RangeInclusive<usize>>>>()?.into_iter().flatten().collect())
}

/// Puts all threads of a process there; `false` if that is not possible here.
fn put(pid: u32, processors: &[usize]) -> bool {
    let list: Vec<_> = processors.iter().map(usize::to_string).collect();
    let taskset = process::Command::new("taskset")
        .args(["--all-tasks", "--pid", "--cpu-list", &list.join(","), &pid.to_string()])
        .output();
    taskset.is_ok_and(|done| done.status.success())
}
