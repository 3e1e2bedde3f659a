//! The file that says how far a comparison has come.

use std::{fs, io, io::Write, path::PathBuf};

use es_kafka::Cursor;

use crate::end::CommandError;

/// A file with the [`Cursor`] as JSON.
pub(super) struct State(PathBuf);

impl State {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// What it says; `None` if there is no file yet.
    pub(super) fn read(&self) -> Result<Option<Cursor>, CommandError> {
        let text = match fs::read(&self.0) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("read", &error)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            let what = format!("{} is no file of a comparison: {error}", self.0.display());
            CommandError::usage(what, "name another file, or begin with --from-start")
        })
    }

    /// Replaces it as a whole: whatever interrupts that, there is the old or the new one.
    pub(super) fn write(&self, cursor: &Cursor) -> Result<(), CommandError> {
        let mut name = self.0.clone().into_os_string();
        name.push(".new");
        let written = fs::File::create(&name).and_then(|mut file| {
            serde_json::to_writer(&mut file, cursor)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&name, &self.0)
        });
        written.map_err(|error| self.failed("written", &error))
    }

    fn failed(&self, how: &str, error: &io::Error) -> CommandError {
        let what = format!("{} cannot be {how}: {error}", self.0.display());
        CommandError::usage(what, "name a file that may be read and written with --state")
    }
}
