//! Messages in a file, a line of JSON for each: for the demo, and as long as there is nothing to send with.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use evenfold::async_trait;

use super::{Message, Notifier, NotifyError};

/// Writes messages into a file. Under a lock of the file, so that several processes can do so, it first looks which keys the file has.
#[derive(Debug, Clone)]
pub struct FileNotifier(Arc<Mutex<Written>>);

#[derive(Debug)]
struct Written {
    path: PathBuf,
    /// The keys in the part of the file that was read.
    keys: HashSet<String>,
    read: u64,
}

impl FileNotifier {
    /// Writes into `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self(Arc::new(Mutex::new(Written { path, keys: HashSet::new(), read: 0 })))
    }
}

impl Written {
    fn write(&mut self, message: &Message) -> Result<(), FileError> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
        // Ends when the file is closed.
        file.lock()?;
        self.read_on(&mut file)?;
        if self.keys.contains(&message.key) {
            return Ok(());
        }
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        file.write_all(&line)?;
        file.sync_data()?;
        Ok(())
    }

    /// Reads what other processes have written, and cuts off a line that a killed one has left unfinished.
    fn read_on(&mut self, file: &mut File) -> Result<(), FileError> {
        if file.metadata()?.len() < self.read {
            // It is another file.
            (self.read, self.keys) = (0, HashSet::new());
        }
        file.seek(SeekFrom::Start(self.read))?;
        let mut lines = BufReader::new(Read::by_ref(file));
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            self.read += u64::try_from(line.len()).unwrap_or_default();
            match serde_json::from_slice::<Message>(&line) {
                Ok(message) => _ = self.keys.insert(message.key),
                // It keeps no later message from its customer.
                Err(error) => tracing::warn!(%error, "the file of messages has a line that is no message"),
            }
            line.clear();
        }
        if !line.is_empty() {
            file.set_len(self.read)?;
        }
        Ok(())
    }
}

#[async_trait]
impl Notifier for FileNotifier {
    async fn send(&self, message: &Message) -> Result<(), NotifyError> {
        let (written, message) = (self.0.clone(), message.clone());
        let write = move || written.lock().unwrap_or_else(PoisonError::into_inner).write(&message);
        match tokio::task::spawn_blocking(write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error @ FileError::Line(_))) => Err(NotifyError::Permanent(error.into())),
            Ok(Err(error)) => Err(NotifyError::Transient(error.into())),
            Err(error) => Err(NotifyError::Transient(error.into())),
        }
    }
}

/// Why a message is not in the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be used.
    #[error("the file of messages cannot be read or written")]
    Io(#[from] io::Error),
    /// The message cannot be written as JSON.
    #[error("the message is no JSON")]
    Line(#[from] serde_json::Error),
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "that is how a test fails")]
mod tests {
    use std::fs;

    use super::*;
    use crate::notification::Channel;

    fn message(key: &str) -> Message {
        let (subject, text) = ("Your order".to_owned(), "It is on its way.".to_owned());
        Message { key: key.to_owned(), customer: "USR-1".parse().unwrap(), channel: Channel::Sms, subject, text }
    }

    fn keys(path: &std::path::Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str::<Message>(line).unwrap().key).collect()
    }

    /// (Seen to fail where a notifier knows only the keys that it has written itself.)
    #[tokio::test]
    async fn r20_no_message_is_sent_twice_under_one_key_by_any_process() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages.jsonl");
        let [one, other] = [(); 2].map(|()| FileNotifier::new(path.clone()));
        for key in ["A", "B", "A"] {
            one.send(&message(key)).await.unwrap();
            other.send(&message(key)).await.unwrap();
        }
        assert_eq!(keys(&path), ["A", "B"]);
    }

    #[tokio::test]
    async fn a_line_that_a_killed_process_has_not_finished_is_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("messages.jsonl");
        let notifier = FileNotifier::new(path.clone());
        notifier.send(&message("A")).await.unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(br#"{"key":"B","custo"#).unwrap();
        notifier.send(&message("B")).await.unwrap();
        assert_eq!(keys(&path), ["A", "B"]);
    }
}
