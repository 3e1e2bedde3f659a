//! The users of the system that matter: root, and whom root runs Postgres as.

use std::process::Command;

use rustix::process::geteuid;

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
    geteuid().is_root()
}
