//! Which processors the server and its clients run on.
//!
//! A few clients do not keep two processors busy. Whether a client and its process of the server then meet on one or wake each
//! other up on two is up to the kernel, and stays so for seconds: the one takes 4 us, the other 30 (on a virtual machine,
//! which gives idle processors back). So they are kept apart, as on two machines.

use std::{fs, ops::RangeInclusive, process};

use anyhow::Result;

use crate::{database::Server, usage, workload::Workload};

/// While it lives, the threads of this process and the processes that the server starts have processors of their own.
#[derive(Debug, Default)]
pub(crate) struct Apart {
    /// The processes that were moved, and where they may run otherwise.
    moved: Vec<(u32, Vec<usize>)>,
}

impl Apart {
    /// `None` if the work is for many clients, if there is only one processor, or if the server does not let itself be
    /// moved (or seen: it may be on another machine).
    pub(crate) async fn keep(server: &Server, workload: &Workload) -> Result<Option<Self>> {
        if !workload.is_for_few() {
            return Ok(None);
        }
        let postmaster = usage::postmaster(&mut server.connect().await?).await?;
        let (Some(postmaster), Some(own)) = (postmaster, processors(process::id())) else { return Ok(None) };
        let (servers, clients) = own.split_at(own.len() / 2);
        let mut apart = Self::default();
        let are_apart = !servers.is_empty() && apart.put(postmaster, servers) && apart.put(process::id(), clients);
        Ok(are_apart.then_some(apart))
    }

    /// Lets a process run there only; `false` if that is not possible here.
    fn put(&mut self, pid: u32, to: &[usize]) -> bool {
        let Some(before) = processors(pid) else { return false };
        let is_put = put(pid, to);
        if is_put {
            self.moved.push((pid, before));
        }
        is_put
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        for (pid, before) in &self.moved {
            put(*pid, before);
        }
    }
}

/// Where a process may run.
fn processors(pid: u32) -> Option<Vec<usize>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let ranges = allowed.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse().ok()?..=last.parse().ok()?)
    });
    Some(ranges.collect::<Option<Vec<RangeInclusive<usize>>>>()?.into_iter().flatten().collect())
}

/// Lets all threads of a process run there only.
fn put(pid: u32, processors: &[usize]) -> bool {
    let list: Vec<_> = processors.iter().map(usize::to_string).collect();
    let taskset = process::Command::new("taskset")
        .args(["--all-tasks", "--pid", "--cpu-list", &list.join(","), &pid.to_string()])
        .output();
    taskset.is_ok_and(|done| done.status.success())
}
