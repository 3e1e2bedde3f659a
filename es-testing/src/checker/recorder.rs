//! Records the history.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

use tokio::sync::watch;

use super::history::{History, Record};

/// Writes a history, line by line, in an order that is consistent with real time: a call's line is written before the
/// call is made, a return's line after it has come. So if one call returned before another was made, their lines say so.
///
/// # Several processes
/// All processes append to one file, and the order of its lines is the order of the history: no clocks are compared. A
/// line is one `write` to a file opened for appending. The kernel executes such writes one after the other, and other
/// processes see what was written even if the writer is killed right after. A kill in the middle of a write leaves an
/// incomplete line, which [`History`] leaves out.
#[derive(Debug)]
pub struct Recorder {
    sink: Sink,
    /// How many operations each process has done.
    done: watch::Sender<BTreeMap<u32, u64>>,
}

#[derive(Debug)]
enum Sink {
    Memory(Mutex<Vec<Record>>),
    File(File, PathBuf),
}

impl Recorder {
    /// A recorder for the clients of one process.
    pub fn in_memory() -> Self {
        Self { sink: Sink::Memory(Mutex::default()), done: watch::Sender::default() }
    }

    /// A recorder that appends to the file at `path`, which it creates if it is missing.
    ///
    /// # Errors
    /// Those of the file.
    pub fn append_to(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { sink: Sink::File(file, path.to_owned()), done: watch::Sender::default() })
    }

    /// What is written so far, by all processes.
    ///
    /// # Errors
    /// Those of the file.
    pub fn history(&self) -> io::Result<History> {
        match &self.sink {
            Sink::Memory(records) => {
                let records = records.lock().expect("nothing panics while it holds the lock").clone();
                Ok(History { records, torn: 0 })
            }
            Sink::File(_, path) => History::load(path),
        }
    }

    /// How many operations each process has done, with a notification of each further one.
    pub fn done(&self) -> watch::Receiver<BTreeMap<u32, u64>> {
        self.done.subscribe()
    }

    /// Records that the clients of `process` have done this many operations. Another process reports that by itself.
    pub fn note_done(&self, process: u32, operations: u64) {
        self.done.send_modify(|done| {
            done.insert(process, operations);
        });
    }

    /// Records one more operation of `process`.
    pub(super) fn add_done(&self, process: u32) {
        self.done.send_modify(|done| *done.entry(process).or_default() += 1);
    }

    /// Writes one line.
    pub(super) fn record(&self, record: Record) {
        match &self.sink {
            Sink::Memory(records) => records.lock().expect("nothing panics while it holds the lock").push(record),
            Sink::File(file, _) => {
                // The first line break ends an incomplete line of a killed process.
                let line = format!("\n{}\n", serde_json::to_string(&record).expect("a record is nothing but JSON"));
                // A run without a history proves nothing, so this panics.
                (&*file).write_all(line.as_bytes()).expect("the history can be written");
            }
        }
    }
}
