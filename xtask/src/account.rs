//! The users of the system that matter: root, and whom root runs Postgres as.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::{Failure, Result};

/// A user of the system.
#[derive(Debug)]
pub(crate) struct Account {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its number.
    pub(crate) user: u32,
    /// The number of its group.
    pub(crate) group: u32,
}

impl Account {
    /// Whom to run Postgres as, when not as the user of this process: Postgres refuses to run as root.
    pub(crate) fn for_servers() -> Result<Option<Self>> {
        if !is_root() {
            return Ok(None);
        }
        let name = "nobody";
        let number = |option| -> Option<u32> {
            String::from_utf8(Command::new("id").args([option, name]).output().ok()?.stdout).ok()?.trim().parse().ok()
        };
        match (number("-u"), number("-g")) {
            (Some(user), Some(group)) => Ok(Some(Self { name, user, group })),
            _ => Err(Failure::cannot("run Postgres as root", "there is no user nobody to run it as")),
        }
    }
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    // The files of /proc belong to the process they tell of; elsewhere `id` knows.
    if let Ok(process) = fs::metadata("/proc/self") {
        return process.uid() == 0;
    }
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}
