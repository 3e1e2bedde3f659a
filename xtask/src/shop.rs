//! The order service as separate processes, each a consumer group of its own: `examples/order-service/README.md` shows it in use.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::arguments::Shop;
use crate::children::{self, Group, TICK};
use crate::interrupt::Interrupt;
use crate::servers::{Needs, Servers};
use crate::{Failure, Result, say, tools};

/// What runs, under which name, and with which arguments of the order service.
const PROCESSES: [(&str, &[&str]); 8] = [
    ("api", &["serve", "--only-http"]),
    ("relay", &["publish"]),
    ("fulfilment", &["saga"]),
    ("payments", &["consume"]),
    ("orders", &["project", "order-details", "orders-by-customer", "order-search"]),
    ("revenue", &["project", "daily-revenue"]),
    ("audit", &["project", "audit-trail"]),
    ("stock", &["project", "stock"]),
];

/// What may run several times.
const ANALYTICS: (&str, &[&str]) = ("analytics", &["project", "order-funnel"]);

/// The payment provider's topic, unless the environment names another one.
const PAYMENTS: &str = "payments";

/// The pause before a process that has ended is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// A process that ends sooner than this after its start, so many times in a row, is not started again.
const SOON: (Duration, u32) = (Duration::from_secs(10), 3);

/// Starts the servers that the environment does not name, and the processes; ends all of them after a signal.
pub(crate) fn run(shop: Shop) -> Result<i32> {
    let interrupt = Interrupt::listen()?;
    let program = match shop.program {
        Some(program) if program.is_file() => program,
        Some(program) => return Err(Failure::cannot("start the shop", format!("{} is no program", program.display()))),
        None => build(&interrupt)?,
    };
    let servers = Servers::start(Needs { kafka: true, ..Needs::BENCHMARKS }, &interrupt)?;
    let places = places(&servers);
    let listen = shop.listen.to_string();
    let command = |arguments: &[&str]| {
        let mut command = children::mortal(&program, Signal::TERM);
        let values = places.iter().map(|place| (place.name, &place.value));
        command.args(arguments).args(["--listen", &listen]).envs(values).stdin(Stdio::null());
        command
    };
    // The topic of the payment provider belongs to the other team, whom this process plays.
    let code = children::run_to_end(command(&["provider"]), Group::Own, &interrupt)?;
    if code != 0 {
        return Ok(code);
    }
    let analytics = (0..shop.analytics).map(|_| ANALYTICS);
    let mut processes = Vec::new();
    for (name, arguments) in PROCESSES.into_iter().chain(analytics) {
        processes.push(Process::start(name, command(arguments))?);
    }
    for place in &places {
        println!("export {}={}", place.name, place.written);
    }
    say("the shop runs until Ctrl-C or another signal; further processes find it with the lines above");
    let ended = watch(&mut processes, &interrupt);
    for process in processes.iter().filter(|process| process.ended.is_none()) {
        children::send(Signal::TERM, Pid::from_child(&process.child));
    }
    drop(processes);
    ended.map(|()| 0)
}

/// Builds the order service beside this program.
fn build(interrupt: &Interrupt) -> Result<PathBuf> {
    tools::for_native_builds(interrupt)?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = children::mortal(Path::new(&cargo), Signal::TERM);
    cargo.args(["build", "--package", "order-service", "--features", "kafka"]);
    tools::forget_this_package(&mut cargo);
    let failed = |why: &dyn std::fmt::Display| Failure::cannot("build the order service", why);
    if children::run_to_end(cargo, Group::Own, interrupt)? != 0 {
        return Err(failed(&"cargo says why"));
    }
    let here = env::current_exe().map_err(|error| failed(&error))?;
    Ok(here.with_file_name("order-service"))
}

/// A variable of the environment by which the order service finds something.
struct Place {
    name: &'static str,
    value: String,
    /// As a shell reads it. What the caller's environment has is not repeated: it may hold a password.
    written: String,
}

fn places(servers: &Servers) -> Vec<Place> {
    let names = [("ORDER_SERVICE_STORE", "DATABASE_URL"), ("ORDER_SERVICE_KAFKA", "KAFKA_BROKERS")];
    let mut places = Vec::new();
    for (variable, value) in servers.variables() {
        if let Some((name, _)) = names.iter().find(|(_, known)| *known == variable) {
            let written = if env::var_os(variable).is_some_and(|value| !value.is_empty()) {
                format!("\"${variable}\"")
            } else {
                format!("'{value}'")
            };
            places.push(Place { name, value: value.to_owned(), written });
        }
    }
    let messages = tools::workspace().join("target/messages.jsonl").display().to_string();
    for (name, value) in [("ORDER_SERVICE_PAYMENTS_TOPIC", PAYMENTS.to_owned()), ("ORDER_SERVICE_MESSAGES", messages)] {
        let value = env::var(name).unwrap_or(value);
        places.push(Place { name, written: format!("'{value}'"), value });
    }
    places
}

/// Starts what has ended again, until a signal arrives.
fn watch(processes: &mut [Process], interrupt: &Interrupt) -> Result<()> {
    while interrupt.signal().is_none() {
        for process in &mut *processes {
            process.keep()?;
        }
        thread::sleep(TICK * 5);
    }
    Ok(())
}

/// A process that is started again when it ends, and ends when it is dropped.
struct Process {
    name: &'static str,
    command: Command,
    child: Child,
    started: Instant,
    /// How often in a row it has ended soon after its start.
    ended_soon: u32,
    ended: Option<Instant>,
}

impl Process {
    fn start(name: &'static str, mut command: Command) -> Result<Self> {
        // In a group of its own: Ctrl-C in the terminal ends the shop, and the shop ends its processes.
        command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = spawn(name, &mut command)?;
        Ok(Self { name, command, child, started: Instant::now(), ended_soon: 0, ended: None })
    }

    fn keep(&mut self) -> Result<()> {
        let failed = |error| Failure::cannot(format!("run {}", self.name), error);
        let Some(status) = self.child.try_wait().map_err(failed)? else { return Ok(()) };
        let Some(ended) = self.ended else {
            self.ended = Some(Instant::now());
            let (soon, most) = SOON;
            self.ended_soon = if self.started.elapsed() < soon { self.ended_soon + 1 } else { 0 };
            if self.ended_soon == most {
                return Err(Failure::cannot(format!("keep {} running", self.name), format!("{status}, {most} times")));
            }
            say(format!("{} has ended ({status}) and is started again", self.name));
            return Ok(());
        };
        if ended.elapsed() >= PAUSE {
            self.child = spawn(self.name, &mut self.command)?;
            (self.started, self.ended) = (Instant::now(), None);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Of one that has ended, the number may be another process's by now.
        if self.ended.is_none() {
            children::end(&mut self.child, Signal::TERM);
        }
    }
}

fn spawn(name: &'static str, command: &mut Command) -> Result<Child> {
    let mut child = command.spawn().map_err(|error| Failure::cannot(format!("run {name}"), error))?;
    if let Some(output) = child.stdout.take() {
        thread::spawn(move || pass_on(name, output));
    }
    if let Some(errors) = child.stderr.take() {
        thread::spawn(move || pass_on(name, errors));
    }
    Ok(child)
}

/// Prints each line with the name of its process.
fn pass_on(name: &str, output: impl Read) {
    for line in BufReader::new(output).lines().map_while(std::result::Result::ok) {
        // The terminal may be gone while the processes end.
        let _ = writeln!(std::io::stdout(), "{name:10} | {line}");
    }
}
