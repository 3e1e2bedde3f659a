//! The results of a run as a file: what was measured, on what, and with which versions.

use std::{collections::BTreeMap, env, fs, path::Path, process::Command, thread};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::{database, measure::Timing, peers::Peer, report::Row, sheet::Sheet};

/// The file's name.
const FILE: &str = "results.json";

/// A run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// On what was measured.
    pub(crate) machine: Machine,
    /// How often each participant was measured, and how long.
    pub(crate) rounds: usize,
    pub(crate) timing: Timing,
    /// The crates that were measured, with their versions.
    pub(crate) versions: BTreeMap<String, String>,
    pub(crate) rows: Vec<Row>,
    #[serde(default)]
    pub(crate) sheets: Vec<Sheet>,
}

/// What decides over absolute figures.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    pub(crate) postgres: String,
    /// Settings of Postgres.
    pub(crate) settings: BTreeMap<String, String>,
    /// The commit that was measured, and its date.
    pub(crate) commit: Option<String>,
}

impl Results {
    /// Reads the results in a directory.
    pub(crate) fn read(directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds something else", path.display()))
    }

    /// Writes them into a directory.
    pub(crate) fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join(FILE);
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        fs::write(&path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Machine {
    pub(crate) async fn describe(database: &mut PgConnection) -> Result<Self> {
        let mut settings = BTreeMap::new();
        for name in ["fsync", "synchronous_commit", "shared_buffers", "max_wal_size", "max_connections"] {
            let value: String =
                sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut *database).await?;
            settings.insert(name.to_owned(), value);
        }
        Ok(Self {
            processor: processor().unwrap_or_else(|| env::consts::ARCH.to_owned()),
            cores: thread::available_parallelism()?.get(),
            kernel: output("uname", &["-sr"]).unwrap_or_else(|| env::consts::OS.to_owned()),
            postgres: database::value(database, "SELECT current_setting('server_version')").await?,
            settings,
            commit: output("git", &["log", "-1", "--format=%h of %cs"]),
        })
    }
}

/// The versions of the peers and of the driver, by the lock file.
pub(crate) fn versions() -> BTreeMap<String, String> {
    let wanted: Vec<_> = Peer::ALL.iter().flat_map(|peer| peer.crates()).chain(&["es-core", "es-postgres"]).collect();
    let lock = include_str!("../Cargo.lock").split("[[package]]").filter_map(|package| {
        let field = |name: &str| {
            let line = package.lines().find(|line| line.starts_with(name))?;
            Some(line.split('"').nth(1)?.to_owned())
        };
        Some((field("name = ")?, field("version = ")?))
    });
    lock.filter(|(name, _)| wanted.iter().any(|wanted| *wanted == name)).collect()
}

fn processor() -> Option<String> {
    let information = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = information.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(": ")?.1.to_owned())
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_measured_crate_has_a_version() {
        let versions = versions();
        for name in Peer::ALL.iter().flat_map(|peer| peer.crates()) {
            assert!(versions.contains_key(*name), "{name}");
        }
    }
}
