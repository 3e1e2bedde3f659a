//! Checks that the open file still is the one that other processes find under its name.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The database file was removed or replaced while it was open.
///
/// Writes made after that are lost when the last handle of the file is closed. Writes that were acknowledged before are
/// lost too if the file was deleted; if it was moved, they are where it went. The store fails from then on: close it,
/// and open the file again. Before a copy is put in its place, [delete its `-wal` and `-shm`](crate::SqliteStore#backups).
///
/// It is the source of what the ports return, in an [`es_core::backend::StoreMoved`], at which projections and policies stop.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the file {} was removed or replaced while it was open", .path.display())]
pub struct FileReplaced {
    /// The path that no longer leads to the open file: that of the database, or of its write-ahead log.
    pub path: PathBuf,
}

impl FileReplaced {
    /// Whether trying again with this store may help: it does not.
    pub fn is_transient(&self) -> bool {
        false
    }
}

/// An open database file as the file system knows it.
#[derive(Debug)]
pub(crate) struct Identity {
    path: PathBuf,
    log: PathBuf,
    /// Device and inode.
    file: (u64, u64),
}

impl Identity {
    /// The identity of the database at `path`, which was just opened.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let mut log = OsString::from(path);
        log.push("-wal");
        Ok(Self { path: path.to_owned(), log: log.into(), file: (metadata.dev(), metadata.ino()) })
    }

    /// Checks that the path still leads to the open file. The check is cheap enough for each write and each new connection.
    pub(crate) fn check(&self) -> Result<(), FileReplaced> {
        let is_other = match fs::metadata(&self.path) {
            Ok(metadata) => (metadata.dev(), metadata.ino()) != self.file,
            // Other errors do not show that the file is gone.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_other { Err(FileReplaced { path: self.path.clone() }) } else { Ok(()) }
    }

    /// Checks that the write-ahead log, to which a commit has just been written, is there.
    pub(crate) fn check_log(&self) -> Result<(), FileReplaced> {
        let is_gone = fs::metadata(&self.log).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if is_gone { Err(FileReplaced { path: self.log.clone() }) } else { Ok(()) }
    }
}
