//! A Kafka cluster of a test's own, whose brokers the test kills, stops and starts again.
//!
//! ```no_run
//! use tests::cluster::Cluster;
//!
//! # async fn test() {
//! let cluster = Cluster::of(3).settings(|_| vec![("log.segment.bytes".into(), "1048576".into())]).start().await;
//! let brokers = cluster.brokers(); // for clients
//! cluster.kill(0).await;
//! cluster.restart(0).await;
//! # }
//! ```

mod installed;
mod mortal;
mod node;

use std::{fmt, sync::Arc};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::Mutex;

use self::node::Node;
pub use self::{installed::Installed, mortal::spawn, node::Place};
pub(crate) use self::{mortal::command, node::free_ports};

/// How often a start is tried when another process takes one of the ports meanwhile.
const ATTEMPTS: usize = 5;

/// Properties of a broker: names and values.
pub type Properties = Vec<(String, String)>;

type Make<T> = Arc<dyn Fn(&Place) -> T + Send + Sync>;

/// What a cluster is made of; [`start`](Self::start) starts it.
#[derive(Clone)]
pub struct Builder {
    brokers: usize,
    late: Vec<usize>,
    settings: Make<Properties>,
    environment: Make<Properties>,
    java: Make<Vec<String>>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

impl Builder {
    /// Properties of each broker. They replace those of `xtask/servers/server.properties` and those that several brokers need. The
    /// function may also write files to the [directory](Place::directory) of the broker, which is there when it is called.
    pub fn settings(mut self, settings: impl Fn(&Place) -> Properties + Send + Sync + 'static) -> Self {
        self.settings = Arc::new(settings);
        self
    }

    /// Environment variables of each broker.
    pub fn environment(mut self, environment: impl Fn(&Place) -> Properties + Send + Sync + 'static) -> Self {
        self.environment = Arc::new(environment);
        self
    }

    /// Options of each broker's Java, such as `-Djava.security.auth.login.config=…`.
    pub fn java(mut self, java: impl Fn(&Place) -> Vec<String> + Send + Sync + 'static) -> Self {
        self.java = Arc::new(java);
        self
    }

    /// Does not start this broker: [`Cluster::restart`] does. Until then the cluster does not know it.
    pub fn without(mut self, broker: usize) -> Self {
        self.late.push(broker);
        self
    }

    /// Starts the brokers, and returns when all of them accept connections.
    ///
    /// # Panics
    /// When there is no Kafka ([`Installed::find`]), or a broker does not start.
    pub async fn start(self) -> Cluster {
        let installed = Installed::find().expect("there is no Kafka: run `cargo xtask test`");
        for _ in 0..ATTEMPTS {
            if let Some(cluster) = self.attempt(&installed).await {
                return cluster;
            }
        }
        panic!("other processes have taken the ports of the cluster {ATTEMPTS} times");
    }

    async fn attempt(&self, installed: &Installed) -> Option<Cluster> {
        let directory = tempfile::tempdir().expect("a directory");
        // As the system names it.
        let path = directory.path().canonicalize().expect("it is there");
        let places = Place::some(self.brokers, &path);
        let mut nodes = Vec::new();
        for place in &places {
            let mut properties = installed::properties(place, &places);
            properties.extend((self.settings)(place));
            let (environment, java) = ((self.environment)(place), (self.java)(place));
            nodes.push(Node::prepare(installed.clone(), place.clone(), &properties, environment, java));
        }
        // Together: a broker is ready when most of the controllers are there.
        let early = |broker: &usize| !self.late.contains(broker);
        (0..self.brokers).filter(early).for_each(|broker| nodes[broker].spawn());
        for broker in (0..self.brokers).filter(early) {
            let node = &mut nodes[broker];
            if !node.ready().await {
                return None;
            }
        }
        Some(Cluster { nodes: nodes.into_iter().map(Mutex::new).collect(), places, _directory: directory })
    }
}

/// Brokers that run until they are dropped, or until this process ends. What is done to one of them waits for what is done to the same
/// one, and not for the others.
#[derive(Debug)]
pub struct Cluster {
    // They end before their directory is removed.
    nodes: Vec<Mutex<Node>>,
    places: Vec<Place>,
    _directory: TempDir,
}

impl Cluster {
    /// So many brokers, each of which is a controller too. Three brokers keep each partition three times, and a write needs two of them.
    pub fn of(brokers: usize) -> Builder {
        let nothing = |_: &Place| Properties::new();
        Builder {
            brokers,
            late: Vec::new(),
            settings: Arc::new(nothing),
            environment: Arc::new(nothing),
            java: Arc::new(|_| Vec::new()),
        }
    }

    /// What clients connect to: `host:port` of all brokers, separated by commas.
    pub fn brokers(&self) -> String {
        let all: Vec<_> = self.places.iter().map(Place::address).collect();
        all.join(",")
    }

    /// Where each broker is.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Kills a broker (SIGKILL), by its index, and waits for its end.
    pub async fn kill(&self, broker: usize) {
        self.nodes[broker].lock().await.kill();
    }

    /// Stops a broker (SIGSTOP) in the middle of its work.
    pub async fn stop(&self, broker: usize) {
        self.nodes[broker].lock().await.signal(Signal::STOP);
    }

    /// Lets a stopped broker continue (SIGCONT).
    pub async fn resume(&self, broker: usize) {
        self.nodes[broker].lock().await.signal(Signal::CONT);
    }

    /// Whether a broker runs. It may have ended by itself.
    pub async fn runs(&self, broker: usize) -> bool {
        self.nodes[broker].lock().await.runs()
    }

    /// Starts a broker again, with its ports and data, and returns when it accepts connections. One that runs is killed first.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn restart(&self, broker: usize) {
        let mut node = self.nodes[broker].lock().await;
        for _ in 0..ATTEMPTS {
            node.kill();
            node.spawn();
            if node.ready().await {
                return;
            }
        }
        panic!("broker {broker} does not start again: {}", node.log());
    }

    /// What a broker has logged since it was started last.
    pub async fn log(&self, broker: usize) -> String {
        self.nodes[broker].lock().await.log()
    }
}

/// The text of `xtask/servers/server.properties` is one for the broker that all tests share and for these.
#[cfg(test)]
mod tests {
    use super::installed::PROPERTIES;

    #[test]
    fn the_settings_have_every_word_that_is_filled_in() {
        for word in ["@DATA@", "@BROKER_PORT@", "@CONTROLLER_PORT@", "node.id=1"] {
            assert!(PROPERTIES.contains(word), "{word}");
        }
    }
}
