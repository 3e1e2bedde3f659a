//! Processes that end with this one.

use std::{
    ffi::OsString,
    io,
    process::{Child, Command, Stdio},
    sync::{LazyLock, Mutex, PoisonError, mpsc},
    thread,
};

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// The kernel ends a process with the *thread* that has started it ([`spawn`]), and the threads of a runtime come and go. This one lives as
/// long as the process.
static STARTER: LazyLock<Mutex<mpsc::Sender<Request>>> = LazyLock::new(|| {
    let (sender, requests) = mpsc::channel::<Request>();
    let start = move || {
        for (mut command, answer) in requests {
            let _ = answer.send(command.spawn());
        }
    };
    thread::Builder::new().name("starter".to_owned()).spawn(start).expect("a thread");
    Mutex::new(sender)
});

/// Starts a process that the kernel kills when this process has ended, however it ends. `setpriv` asks the kernel for it; on systems
/// without it, `cargo xtask` ends what is left over in its process group.
///
/// # Errors
/// Those of the start.
///
/// # Panics
/// Never: the thread that starts it lives as long as the process.
pub fn spawn(command: Command) -> io::Result<Child> {
    let (answer, started) = mpsc::channel();
    STARTER.lock().unwrap_or_else(PoisonError::into_inner).send((command, answer)).expect("the thread lives");
    started.recv().expect("the thread lives")
}

/// A command whose process dies with this one.
pub(crate) fn command(program: impl Into<OsString>) -> Command {
    static SETPRIV: LazyLock<bool> = LazyLock::new(|| {
        let mut probe = Command::new("setpriv");
        probe.args(["--pdeathsig", "KILL", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    });
    let program = program.into();
    if !*SETPRIV {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}
