//! A process that takes part in a run, and may be killed.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use es_testing::checker::{Plan, Recorder, Size, take_part};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
    task::JoinHandle,
};

use super::ground::Ground;

/// The part of a run that a process takes, as its argument.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    pub(crate) seed: u64,
    pub(crate) size: Size,
    pub(crate) ground: Ground,
    pub(crate) history: PathBuf,
    pub(crate) process: u32,
}

impl Part {
    /// Takes the part, in the process that was started for it. It prints how many operations it has done so far, the first time
    /// when it is ready. It ends when the process that started it ends.
    ///
    /// # Errors
    /// Those of the history and of the standard output.
    pub async fn take(self) -> io::Result<()> {
        std::thread::spawn(|| {
            // The parent closes the other end, or the kernel does when the parent has ended.
            let _ = io::stdin().read_to_end(&mut Vec::new());
            std::process::exit(1);
        });
        let plan = Arc::new(Plan::new(self.seed, &self.size));
        let recorder = Arc::new(Recorder::append_to(&self.history)?);
        let stores = self.ground.open(2).await;
        let mut done = recorder.done();
        let reports = tokio::spawn(async move {
            while done.changed().await.is_ok() {
                let operations: u64 = done.borrow_and_update().values().sum();
                if io::stdout().write_all(format!("{operations}\n").as_bytes()).is_err() {
                    return;
                }
            }
        });
        take_part(&plan, self.process, stores, &recorder, async {}).await;
        reports.abort();
        Ok(())
    }
}

#[derive(Debug)]
struct Running {
    child: Child,
    /// Its end tells the child that this process has ended. Waiting for the child would close it.
    _alive: Option<ChildStdin>,
    reports: JoinHandle<()>,
}

/// A child process that takes a part.
#[derive(Debug)]
pub(crate) struct Process {
    program: PathBuf,
    part: Part,
    recorder: Arc<Recorder>,
    running: Mutex<Option<Running>>,
}

impl Process {
    /// Starts it and waits until it is ready.
    pub(crate) async fn start(program: &Path, part: Part, recorder: &Arc<Recorder>) -> io::Result<Self> {
        let process = Self { program: program.to_owned(), part, recorder: recorder.clone(), running: Mutex::default() };
        process.spawn().await?;
        Ok(process)
    }

    async fn spawn(&self) -> io::Result<()> {
        let mut child = Command::new(&self.program)
            .args(["--part", &serde_json::to_string(&self.part)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut lines = BufReader::new(output).lines();
        // It prints when it has opened its store, so no later fault happens while it connects.
        let ready = lines.next_line().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        note(&self.recorder, self.part.process, &ready);
        let reports = Reports { lines, recorder: self.recorder.clone(), process: self.part.process };
        let running = Running { _alive: child.stdin.take(), child, reports: tokio::spawn(reports.pass_on()) };
        *self.running.lock().await = Some(running);
        Ok(())
    }

    /// Kills it (SIGKILL) at any moment and starts it again.
    pub(crate) async fn kill_and_start_again(&self) -> io::Result<()> {
        let running = self.running.lock().await.take();
        if let Some(Running { mut child, reports, _alive }) = running {
            child.kill().await?;
            let _ = reports.await;
        }
        self.spawn().await
    }

    /// Returns when it has ended; an error when its part is not done.
    pub(crate) async fn ended(&self) -> io::Result<()> {
        let running = self.running.lock().await.take();
        let Some(Running { mut child, reports, _alive }) = running else { return Ok(()) };
        let status = child.wait().await?;
        let _ = reports.await;
        if status.success() {
            Ok(())
        } else {
            Err(io::Error::other(format!("a process did not do its part: {status}")))
        }
    }
}

struct Reports {
    lines: Lines<BufReader<ChildStdout>>,
    recorder: Arc<Recorder>,
    process: u32,
}

impl Reports {
    async fn pass_on(mut self) {
        while let Ok(Some(line)) = self.lines.next_line().await {
            note(&self.recorder, self.process, &line);
        }
    }
}

fn note(recorder: &Recorder, process: u32, line: &str) {
    if let Ok(operations) = line.parse() {
        recorder.note_done(process, operations);
    }
}
