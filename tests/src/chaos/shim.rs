//! The disk and the clock of a process that the suite has started: a library is preloaded into it (`shim.c`).

use std::{
    env, fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::cluster::Properties;

const SOURCE: &str = include_str!("shim.c");

/// The compiled library.
#[derive(Debug, Clone)]
pub(crate) struct Shim {
    library: PathBuf,
}

impl Shim {
    /// Compiles it into `directory`. `None` where the system is none that the library knows.
    ///
    /// # Errors
    /// When there is no C compiler (`cc`), or it refuses.
    pub(crate) fn compile(directory: &Path) -> io::Result<Option<Self>> {
        if !cfg!(target_os = "linux") {
            return Ok(None);
        }
        let (source, library) = (directory.join("shim.c"), directory.join("shim.so"));
        fs::write(&source, SOURCE)?;
        let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
        let output = Command::new(compiler)
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(&library)
            .arg(&source)
            .arg("-ldl")
            .output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        Ok(Some(Self { library }))
    }

    /// What steers one process, or several, through the file `name`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn control(&self, name: PathBuf) -> io::Result<Control> {
        fs::write(&name, [0; 32])?;
        let file = fs::OpenOptions::new().write(true).open(&name)?;
        Ok(Control { library: self.library.clone(), name, file })
    }
}

/// Steers the disk and the clock of processes.
#[derive(Debug)]
pub(crate) struct Control {
    library: PathBuf,
    name: PathBuf,
    file: fs::File,
}

impl Control {
    /// The environment of a process whose files below `directory` are concerned.
    pub(crate) fn environment(&self, directory: &Path) -> Properties {
        let variables =
            [("LD_PRELOAD", &*self.library), ("CHAOS_CONTROL", &*self.name), ("CHAOS_DIRECTORY", directory)];
        variables.map(|(name, path)| (name.to_owned(), path.to_string_lossy().into_owned())).into()
    }

    /// Sets the wall clock so far ahead, or behind.
    pub(crate) fn clock(&self, ahead_ms: i64) {
        self.set(0, ahead_ms);
    }

    /// Whether the disk is full.
    pub(crate) fn full(&self, is_full: bool) {
        self.set(1, i64::from(is_full));
    }

    /// How much longer writes and syncs take.
    pub(crate) fn slow(&self, write: Duration, sync: Duration) {
        self.set(2, i64::try_from(write.as_micros()).unwrap_or(i64::MAX));
        self.set(3, i64::try_from(sync.as_micros()).unwrap_or(i64::MAX));
    }

    /// The processes have the file in their memory and see it at once.
    fn set(&self, index: u64, value: i64) {
        self.file.write_all_at(&value.to_ne_bytes(), index * 8).expect("it is written");
    }
}

#[cfg(test)]
mod tests {
    use std::process::Output;

    use super::*;

    #[test]
    #[cfg_attr(not(target_os = "linux"), ignore = "there is no shim")]
    fn a_process_sees_another_time_and_a_full_disk() {
        let directory = tempfile::tempdir().expect("a directory");
        let below = directory.path().join("data");
        fs::create_dir(&below).expect("it is created");
        let shim = Shim::compile(directory.path()).expect("there is a compiler").expect("Linux");
        let control = shim.control(directory.path().join("control")).expect("it is written");
        let run = |program: &str, arguments: &[&str]| -> Output {
            Command::new(program).args(arguments).envs(control.environment(&below)).output().expect("it can be started")
        };
        let now = || -> i64 {
            let told = run("date", &["+%s"]).stdout;
            String::from_utf8(told).expect("text").trim().parse().expect("a number")
        };
        let write = |to: &Path| {
            let to = format!("of={}", to.display());
            run("dd", &["if=/dev/zero", "bs=100", "count=1", &to]).status.success()
        };
        let before = now();
        assert!(write(&below.join("file")));
        control.clock(-3_600_000);
        control.full(true);
        assert!((3_500..=3_600).contains(&(before - now())), "an hour earlier");
        assert!(!write(&below.join("file")), "it is full");
        assert!(write(&directory.path().join("file")), "elsewhere there is room");
        control.clock(0);
        control.full(false);
        assert!(now() >= before && write(&below.join("file")));
    }
}
