//! Whether the file that is open still is the one that others find under its name.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The database file was removed or replaced while it was open.
///
/// What was written to it since is lost with its last handle; what was acknowledged before may be lost too, unless the
/// file was moved and not deleted. The store fails from then on: close it, and open the file again.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the file {} was removed or replaced while it was open", .path.display())]
pub struct FileReplaced {
    /// The file whose name is gone or means another file: the database, or its write-ahead log.
    pub path: PathBuf,
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
    /// That of the database at `path`, which was just opened.
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let mut log = OsString::from(path);
        log.push("-wal");
        Ok(Self { path: path.to_owned(), log: log.into(), file: (metadata.dev(), metadata.ino()) })
    }

    /// That the file still is there. It costs a microsecond, so each write and each new connection asks.
    pub(crate) fn check(&self) -> Result<(), FileReplaced> {
        let is_other = match fs::metadata(&self.path) {
            Ok(metadata) => (metadata.dev(), metadata.ino()) != self.file,
            // Another failure says nothing about the file.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if is_other { Err(FileReplaced { path: self.path.clone() }) } else { Ok(()) }
    }

    /// That the write-ahead log is there, in which a commit has just been written.
    pub(crate) fn check_log(&self) -> Result<(), FileReplaced> {
        let is_gone = fs::metadata(&self.log).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if is_gone { Err(FileReplaced { path: self.log.clone() }) } else { Ok(()) }
    }
}
