//! A broker that lets in by password over TLS, and grants nothing by itself.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use es_kafka::Settings;
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use tests::cluster::{Cluster, Installed, Place};

use crate::{
    acls::{self, Right},
    certificates::Authority,
};

/// How an account proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    Scram256,
    Scram512,
}

impl Mechanism {
    pub(crate) const ALL: [Self; 3] = [Self::Plain, Self::Scram256, Self::Scram512];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Scram256 => "SCRAM-SHA-256",
            Self::Scram512 => "SCRAM-SHA-512",
        }
    }
}

/// A listener of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Listener {
    Good,
    /// With a certificate that has expired.
    Expired,
    /// With a certificate for another host.
    OtherHost,
}

const LISTENERS: [(Listener, &str, &str); 3] = [
    (Listener::Good, "SECURE", "127.0.0.1"),
    (Listener::Expired, "EXPIRED", "127.0.0.1"),
    (Listener::OtherHost, "OTHERHOST", "kafka.example"),
];

/// The password of each account, by which logs are searched.
pub(crate) fn password(account: &str) -> String {
    format!("geheim-{account}")
}

pub(crate) struct Broker {
    cluster: Cluster,
    ports: BTreeMap<Listener, u16>,
}

impl Broker {
    /// With these accounts, which have no rights and are known by PLAIN; and those of `scram` by that mechanism too. `None` where there is
    /// no Kafka to start.
    pub(crate) async fn start(accounts: &[&str], scram: &[(&str, Mechanism)]) -> Option<Self> {
        let installed = Installed::or_left_out()?;
        let held: Vec<_> = LISTENERS[1..].iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let mut others = held.iter().map(|listener| listener.local_addr().expect("it is bound").port());
        let (expired, other_host) = (others.next().expect("two"), others.next().expect("two"));
        drop(held);
        let users: Vec<_> = accounts.iter().map(|user| format!(" user_{user}=\"{}\"", password(user))).collect();
        let users = users.concat();
        let settings = move |place: &Place| properties(place, &users, [place.port, expired, other_host]);
        let cluster = Cluster::of(1).settings(settings).start().await;
        let good = cluster.places()[0].port;
        let ports = [(Listener::Good, good), (Listener::Expired, expired), (Listener::OtherHost, other_host)].into();
        let broker = Self { cluster, ports };
        let added: Vec<_> = scram.iter().map(|(account, by)| broker.add(&installed, account, *by)).collect();
        for adding in added {
            let added = adding.wait_with_output().expect("it ends");
            assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        }
        Some(broker)
    }

    /// The brokers keep the passwords of these accounts themselves.
    fn add(&self, installed: &Installed, account: &str, mechanism: Mechanism) -> Child {
        let credential = format!("{}=[iterations=4096,password={}]", mechanism.name(), password(account));
        let mut config = Command::new(&installed.java);
        config.args(["-XX:TieredStopAtLevel=1", "-cp"]).arg(installed.libraries.join("*"));
        config.args(["kafka.admin.ConfigCommand", "--bootstrap-server", &self.internal(), "--alter"]);
        config.args(["--entity-type", "users", "--entity-name", account, "--add-config", &credential]);
        config.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("Java can be started")
    }

    /// For this process, which may do everything there.
    pub(crate) fn internal(&self) -> String {
        format!("127.0.0.1:{}", self.cluster.places()[0].other)
    }

    pub(crate) fn address(&self, listener: Listener) -> String {
        format!("127.0.0.1:{}", self.ports[&listener])
    }

    /// The file of the authority that has signed the broker's certificates.
    pub(crate) fn authority(&self) -> String {
        self.cluster.places()[0].directory.join("ca.pem").to_string_lossy().into_owned()
    }

    pub(crate) fn settings(&self, account: &str, mechanism: Mechanism) -> Settings {
        Settings::from([
            ("security.protocol", "SASL_SSL".to_owned()),
            ("sasl.mechanism", mechanism.name().to_owned()),
            ("sasl.username", account.to_owned()),
            ("sasl.password", password(account)),
            ("ssl.ca.location", self.authority()),
        ])
    }

    pub(crate) fn grant(&self, rights: impl IntoIterator<Item = (String, Right)>) {
        acls::grant(&self.internal(), &rights.into_iter().collect::<Vec<_>>());
    }

    pub(crate) async fn create_topic(&self, topic: &str, settings: &[(&str, &str)]) {
        let client = ClientConfig::new().set("bootstrap.servers", self.internal()).create();
        let admin: AdminClient<DefaultClientContext> = client.expect("a client");
        let mut new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        admin.create_topics([&new], &AdminOptions::new()).await.expect("it answers").remove(0).expect("it is created");
    }
}

fn properties(place: &Place, users: &str, ports: [u16; 3]) -> Vec<(String, String)> {
    let authority = Authority::new();
    authority.write(&place.directory.join("ca.pem"));
    Authority::new().write(&place.directory.join("other-ca.pem"));
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let (internal, controller) = (place.other, place.controller);
    let mut addresses = vec![format!("INTERNAL://127.0.0.1:{internal}")];
    let mut protocols = vec!["INTERNAL:PLAINTEXT".to_owned(), "CONTROLLER:PLAINTEXT".to_owned()];
    let mut properties = Vec::new();
    for ((listener, name, host), port) in LISTENERS.into_iter().zip(ports) {
        let file = place.directory.join(format!("{name}.pem"));
        authority.certify(host, listener == Listener::Expired, &file);
        addresses.push(format!("{name}://127.0.0.1:{port}"));
        protocols.push(format!("{name}:SASL_SSL"));
        let of = |property: &str| format!("listener.name.{}.{property}", name.to_lowercase());
        properties.extend([
            (of("ssl.keystore.type"), "PEM".to_owned()),
            (of("ssl.keystore.location"), file.to_string_lossy().into_owned()),
            (of("sasl.enabled.mechanisms"), Mechanism::ALL.map(Mechanism::name).join(",")),
            (of("plain.sasl.jaas.config"), format!("{plain}{users};")),
            (of("scram-sha-256.sasl.jaas.config"), scram.to_owned()),
            (of("scram-sha-512.sasl.jaas.config"), scram.to_owned()),
        ]);
    }
    let advertised = addresses.join(",");
    addresses.push(format!("CONTROLLER://127.0.0.1:{controller}"));
    let whole = [
        ("listeners", addresses.join(",")),
        ("advertised.listeners", advertised),
        ("listener.security.protocol.map", protocols.join(",")),
        ("inter.broker.listener.name", "INTERNAL".to_owned()),
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned()),
        // Those of the listeners without passwords: the broker itself, and the tests.
        ("super.users", "User:ANONYMOUS".to_owned()),
        ("allow.everyone.if.no.acl.found", "false".to_owned()),
    ];
    properties.extend(whole.map(|(name, value)| (name.to_owned(), value)));
    properties
}
