//! How a process sees that another one is alive: each open store keeps a lock on a file of its own beside the database,
//! and the kernel drops the lock when the process ends, however it ends (R18).

use std::{
    ffi::OsString,
    fs::{self, File, TryLockError},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use uuid::Uuid;

/// The locked file of an open store.
///
/// It is a separate file, since closing any handle of the database itself would drop the locks that SQLite holds on it.
/// The lock (`flock`) belongs to the handle, so two stores of one process are told apart too.
#[derive(Debug)]
pub(crate) struct Presence {
    id: Uuid,
    /// The canonical path of the database, the same for all processes that open it through links.
    database: PathBuf,
    locked: File,
}

impl Presence {
    /// Announces a store on `database`, and removes the files of stores whose process has ended.
    pub(crate) fn announce(database: &Path) -> io::Result<Self> {
        let database = fs::canonicalize(database)?;
        remove_dead(&database);
        loop {
            let id = Uuid::now_v7();
            let path = path(&database, id);
            let file = File::create_new(&path)?;
            // Before this file is locked, another process may think that its owner has ended, and remove it.
            let locked = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Err(error),
            };
            let inode = file.metadata()?.ino();
            if locked && fs::metadata(&path).is_ok_and(|there| there.ino() == inode) {
                return Ok(Self { id, database, locked: file });
            }
        }
    }

    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// How many other stores have the database open.
    pub(crate) fn others(&self) -> usize {
        remove_dead(&self.database).saturating_sub(1)
    }

    /// Whether the store with the announced `id` is open.
    pub(crate) fn lives(&self, id: Uuid) -> bool {
        id == self.id || !is_dead(&path(&self.database, id))
    }
}

impl Presence {
    /// Ends the presence while the process lives on.
    pub(crate) fn end(&self) {
        // If the file cannot be removed, the next store that opens the database removes it.
        let _ = fs::remove_file(path(&self.database, self.id));
        let _ = self.locked.unlock();
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.end();
    }
}

fn path(database: &Path, id: Uuid) -> PathBuf {
    let mut name = prefix(database);
    name.push(id.simple().to_string());
    database.with_file_name(name)
}

fn prefix(database: &Path) -> OsString {
    let mut name = database.file_name().unwrap_or_default().to_owned();
    name.push("-live-");
    name
}

/// Whether no process holds the lock of the file at `path`; then the file is removed. If the check fails, the owner
/// counts as alive.
fn is_dead(path: &Path) -> bool {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) => return error.kind() == io::ErrorKind::NotFound,
    };
    // A shared lock, so that two processes that check at once do not take each other for the owner.
    let dead = file.try_lock_shared().is_ok();
    if dead {
        let _ = fs::remove_file(path);
    }
    dead
}

/// Removes the files of stores whose process has ended, and counts those of the others.
fn remove_dead(database: &Path) -> usize {
    let prefix = prefix(database);
    let directory = database.parent().and_then(|directory| fs::read_dir(directory).ok());
    let announced = directory
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()));
    announced.filter(|entry| !is_dead(&entry.path())).count()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn r18_a_store_is_seen_as_long_as_it_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("events.db");
        fs::write(&database, "").unwrap();
        let (one, two) = (Presence::announce(&database).unwrap(), Presence::announce(&database).unwrap());
        assert!(one.lives(two.id()) && two.lives(one.id()) && one.lives(one.id()));
        let gone = two.id();
        drop(two);
        assert!(!one.lives(gone) && !one.lives(Uuid::now_v7()));
        drop(one);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "no file is left beside the database");
    }

    #[test]
    fn r18_what_a_killed_process_left_is_removed_by_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let database = directory.path().join("events.db");
        fs::write(&database, "").unwrap();
        // Its lock is gone and its file is not.
        let dead = path(&database, Uuid::now_v7());
        fs::write(&dead, "").unwrap();
        let _next = Presence::announce(&database).unwrap();
        assert!(!dead.exists());
    }
}
