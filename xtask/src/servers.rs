//! The servers of a run: started together, stopped when dropped.

use std::env;
use std::fs;
use std::net::TcpListener;
use std::time::Instant;

use crate::home::{Home, RunDirectory};
use crate::interrupt::Interrupt;
use crate::server::Server;
use crate::{Failure, Result, fetch, kafka, postgres, prometheus, say, tools};

/// How often a start is tried if another process takes a port meanwhile.
const ATTEMPTS: usize = 3;

/// The servers that a command needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// The settings of Postgres.
    pub(crate) postgres: &'static [&'static str],
    /// Whether it needs Kafka too.
    pub(crate) kafka: bool,
    /// Whether it starts Prometheus itself.
    pub(crate) prometheus: bool,
    /// Whether it starts brokers itself.
    pub(crate) brokers: bool,
}

impl Needs {
    /// The servers of the tests.
    pub(crate) const TESTS: Self = Self { postgres: postgres::FOR_TESTS, kafka: true, prometheus: true, brokers: true };

    /// The server of the checker.
    pub(crate) const CHECKER: Self = Self { kafka: false, prometheus: false, brokers: false, ..Self::TESTS };

    /// The server of the chaos suite, which starts its brokers itself.
    pub(crate) const CHAOS: Self = Self { brokers: true, ..Self::CHECKER };

    /// The server of the benchmarks.
    pub(crate) const BENCHMARKS: Self = Self { postgres: postgres::AS_DEPLOYED, ..Self::CHECKER };
}

/// The servers of this run. Dropping stops those it started and removes their data.
#[derive(Debug)]
pub(crate) struct Servers {
    // In the order of dropping: the directory is removed after the servers that use it.
    running: Vec<Server>,
    variables: Vec<(&'static str, String)>,
    directory: Option<RunDirectory>,
}

impl Servers {
    /// Starts the needed servers that have no address in the environment, and waits until they are ready.
    pub(crate) fn start(needs: Needs, interrupt: &Interrupt) -> Result<Self> {
        let mut servers = Self { running: Vec::new(), variables: Vec::new(), directory: None };
        let database = servers.given("DATABASE_URL");
        let kafka = needs.kafka && !servers.given("KAFKA_BROKERS");
        let prometheus = needs.prometheus && !servers.given("PROMETHEUS");
        let starts = !database || kafka;
        // Who brings all servers for the tests may be on a system for which none can be fetched.
        let fetches = starts || (needs.brokers && !needs.kafka);
        if !fetches && !prometheus {
            return Ok(servers);
        }
        let home = Home::find()?;
        {
            let _lock = home.lock(interrupt)?;
            if prometheus && let Some(program) = prometheus::program(&home, interrupt)? {
                servers.variables.push(("PROMETHEUS", program.to_string_lossy().into_owned()));
            }
            if !fetches {
                return Ok(servers);
            }
            home.clear_dead_runs();
            fetch::prepare(&home, interrupt)?;
            if needs.brokers {
                servers.variables.extend(kafka::variables(&home, &tools::java(interrupt)?));
            }
            if !starts {
                return Ok(servers);
            }
            servers.directory = Some(home.create_run()?);
        }
        let started = Instant::now();
        for _ in 0..ATTEMPTS {
            let settings = (!database).then_some(needs.postgres);
            if servers.attempt(&home, settings, kafka, interrupt)? {
                let names: Vec<_> = servers.running.iter().map(Server::name).collect();
                say(format!("{} ready in {:.1} s", names.join(" and "), started.elapsed().as_secs_f32()));
                return Ok(servers);
            }
            servers.running.clear();
        }
        Err(Failure::cannot("start the servers", format!("ports were taken {ATTEMPTS} times")))
    }

    /// The environment variables with the addresses of the servers.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.variables.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// Whether the environment already has the address.
    fn given(&mut self, name: &'static str) -> bool {
        let value = env::var(name).ok().filter(|value| !value.is_empty());
        if let Some(value) = &value {
            say(format!("{name} is set: using that server"));
            self.variables.push((name, value.clone()));
        }
        value.is_some()
    }

    /// Starts Postgres with the settings, if there are any, and Kafka at the same time. Returns false if a port was taken.
    fn attempt(&mut self, home: &Home, settings: Option<&[&str]>, kafka: bool, interrupt: &Interrupt) -> Result<bool> {
        let run = match &self.directory {
            Some(directory) => directory.path.clone(),
            None => return Ok(false),
        };
        let [postgres_port, broker, controller] = free_ports()?;
        let mut variables = Vec::new();
        // Kafka first: it takes longer.
        if kafka {
            let data = run.join("kafka");
            let _ = fs::remove_dir_all(&data);
            let data = kafka::copy_template(home, &run)?;
            let java = tools::java(interrupt)?;
            self.running.push(kafka::spawn(home, &run, &data, &java, [broker, controller])?);
            variables.push(("KAFKA_BROKERS", format!("127.0.0.1:{broker}")));
        }
        if let Some(settings) = settings {
            let _ = fs::remove_dir_all(run.join("postgres"));
            let data = postgres::copy_template(home, &run, interrupt)?;
            self.running.push(postgres::spawn(home, &run, &data, postgres_port, settings)?);
            variables.push(("DATABASE_URL", format!("postgres://postgres@127.0.0.1:{postgres_port}/postgres")));
            // Tests crash only a server that this run has started.
            variables.push(("ES_POSTGRES_MAY_CRASH", "1".to_owned()));
        }
        for server in &mut self.running {
            if !server.wait_until_ready(interrupt)? {
                return Ok(false);
            }
        }
        if settings.is_some() && !postgres::answers(postgres_port) {
            return Err(Failure::cannot("start Postgres", "it is ready, but nothing answers on its port"));
        }
        self.variables.extend(variables);
        Ok(true)
    }
}

/// Free ports, all different.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    // All are held until the last is found; otherwise the system could return the same port twice.
    let mut listeners = Vec::new();
    for port in &mut ports {
        let failed = |error| Failure::cannot("find a free port", error);
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        *port = listener.local_addr().map_err(failed)?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
