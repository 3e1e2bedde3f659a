//! Threads that read: rows are decoded where SQLite has them, and only the result changes threads.

use std::{io, sync::mpsc, thread};

use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::error::Failure;

type Job = Box<dyn FnOnce(&mut Option<Connection>) + Send>;

/// A thread with a connection, which is open from the first job on that needs it. The thread ends when this is dropped.
///
/// A single caller always gets the same one. The threads that a runtime has for blocking work take turns, so each job would wake
/// one that has slept for longest, perhaps on another processor.
#[derive(Debug)]
pub(crate) struct ReadingThread(mpsc::Sender<Job>);

impl ReadingThread {
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let run = move || {
            let mut connection = None;
            for job in queue {
                job(&mut connection);
            }
        };
        thread::Builder::new().name("es-sqlite-reader".to_owned()).spawn(run)?;
        Ok(Self(jobs))
    }

    /// Runs `job` to its end, also if the caller is dropped. It also decides what becomes of the thread.
    pub(crate) async fn run<T, F>(self, job: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(&mut Option<Connection>, Self) -> T + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let jobs = self.0.clone();
        // A thread that has ended drops the job, and with it `answer`. A caller that was dropped wants none.
        let _ = jobs.send(Box::new(move |connection| drop(answer.send(job(connection, self)))));
        drop(jobs);
        answered.await.map_err(|_| Failure::Interrupted)
    }

    /// Closes the connection, and ends the thread.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        self.run(|connection, _| drop(connection.take())).await
    }
}
