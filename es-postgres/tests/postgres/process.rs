//! Programs that a test starts and that end with it.

use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Starts the program, and ends it with the signal when the input closes: also when the test's process is killed.
const UNTIL_INPUT_CLOSES: &str = r#"signal=$1; shift; "$@" & read -r _; kill -s "$signal" $!; wait"#;

/// A program that runs until this is dropped.
pub(crate) struct Process(Child);

impl Process {
    /// Starts `program`, under an account without rights where this process is root's: servers refuse to run as root.
    /// `signal` ends it. Its output goes to the file `log`.
    pub(crate) fn start(program: &Path, arguments: &[&str], signal: &str, log: &Path) -> Self {
        let output = std::fs::File::create(log).unwrap();
        let mut command = unprivileged("sh");
        command.args(["-c", UNTIL_INPUT_CLOSES, "sh", signal]).arg(program).args(arguments);
        command.stdin(Stdio::piped()).stdout(output.try_clone().unwrap()).stderr(output);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A command under the account of [`Process::start`].
pub(crate) fn unprivileged(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").current_dir("/");
    if let Some((user, group)) = account() {
        command.uid(user).gid(group);
    }
    command
}

/// A directory of that account's own, removed when it is dropped.
pub(crate) fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    if let Some((user, group)) = account() {
        std::os::unix::fs::chown(directory.path(), Some(user), Some(group)).unwrap();
    }
    directory
}

/// The numbers of the user `nobody` and its group, where this process is root's.
fn account() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| -> u32 {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    };
    (id(&["-u"]) == 0).then(|| (id(&["-u", "nobody"]), id(&["-g", "nobody"])))
}

/// A port that no program listens on.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
