//! Databases that are files of their own.

use std::{fs, path::PathBuf};

use anyhow::Result;

/// What a URL of such a database begins with.
const SCHEME: &str = "sqlite:";

/// The directory of the files of a workload, which goes with it. It is on the disk of the build directory: a file in memory
/// would show what no deployment has.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new() -> Result<Self> {
        let directory = PathBuf::from(format!("../target/bench/sqlite-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        Ok(Self(directory))
    }

    /// The URL of the contender's database.
    pub(crate) fn create(&self, contender: &str) -> String {
        format!("{SCHEME}{}", self.0.join(contender).with_extension("db").display())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The file that a URL of [`Files::create`] names.
pub(crate) fn path(url: &str) -> &str {
    url.strip_prefix(SCHEME).unwrap_or(url)
}
