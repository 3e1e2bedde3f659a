//! The command line.

use std::{fmt, net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, builder::PossibleValuesParser};
use evenfold::{
    cli::{ServiceCommand, TextCommand},
    service,
};

use crate::{fulfilment, read_models::NAMES};

/// Orders, payments, inventory and shipping on an event-sourced store.
#[derive(Debug, Clone, Parser)]
#[command(version)]
#[expect(missing_docs, reason = "the options say it")]
pub struct Cli {
    #[command(flatten, next_help_heading = "Service options")]
    pub parts: Parts,

    #[command(flatten, next_help_heading = "HTTP options")]
    pub http: Http,

    #[command(subcommand)]
    pub role: Option<Role>,
}

/// What the service runs on.
#[derive(Clone, Default, Args)]
#[expect(clippy::doc_markdown, reason = "they are help texts")]
pub struct Parts {
    /// The embedded file [default: orders.db; for the demo a temporary one]
    #[arg(long, global = true, value_name = "FILE", env = "ORDER_SERVICE_DB", hide_env_values = true)]
    pub db: Option<PathBuf>,

    /// A Postgres server in place of the embedded file: postgres://…
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "ORDER_SERVICE_STORE",
        hide_env_values = true,
        conflicts_with = "db"
    )]
    pub store: Option<String>,

    /// Copies the log to Kafka, and reads from there; needs a build with `--features kafka`
    #[arg(long, global = true, value_name = "HOST:PORT", env = "ORDER_SERVICE_KAFKA", hide_env_values = true)]
    pub kafka: Option<String>,

    /// A file with properties of Kafka clients, name=value, for TLS and SASL; or a variable for each: ORDER_SERVICE_KAFKA_SASL_PASSWORD
    /// is sasl.password. If it has bootstrap.servers, --kafka can be left out
    #[arg(long, global = true, value_name = "FILE", env = "ORDER_SERVICE_KAFKA_SETTINGS", hide_env_values = true)]
    pub kafka_settings: Option<PathBuf>,

    /// A prefix for the names of all topics
    #[arg(
        long,
        global = true,
        value_name = "P",
        env = "ORDER_SERVICE_TOPIC_PREFIX",
        hide_env_values = true,
        default_value = ""
    )]
    pub topic_prefix: String,

    /// The topic in which a payment provider tells what it has captured; needs --kafka [default: none]
    #[arg(long, global = true, value_name = "TOPIC", env = "ORDER_SERVICE_PAYMENTS_TOPIC", hide_env_values = true)]
    pub payments_topic: Option<String>,

    /// A file with the rules of the shop, in TOML: stock, and what is declined or fails [default: nothing fails]
    #[arg(long, global = true, value_name = "FILE", env = "ORDER_SERVICE_RULES", hide_env_values = true)]
    pub rules: Option<PathBuf>,

    /// Where messages to customers are written that are not sent otherwise [default: messages.jsonl beside the embedded file]
    #[arg(long, global = true, value_name = "FILE", env = "ORDER_SERVICE_MESSAGES", hide_env_values = true)]
    pub messages: Option<PathBuf>,

    /// A server that sends mails: smtps://user:password@host or smtp://host:port [default: none]
    #[arg(long, global = true, value_name = "URL", env = "ORDER_SERVICE_MAIL", hide_env_values = true)]
    pub mail: Option<String>,

    /// Counts the daily revenue as the first release did
    #[arg(long, global = true, env = "ORDER_SERVICE_FIRST_RELEASE", hide_env_values = true)]
    pub first_release: bool,

    /// How long a worker stands by at an event that this program does not know before it stops [default: 900]
    #[arg(long, global = true, value_name = "SECONDS", env = "ORDER_SERVICE_STANDBY_LIMIT", hide_env_values = true)]
    pub standby_limit: Option<u64>,
}

/// The address of the store may hold a password.
impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("db", &self.db).field("kafka", &self.kafka).finish_non_exhaustive()
    }
}

/// What `serve` does.
#[derive(Debug, Clone, Copy, Args)]
pub struct Http {
    /// Where to listen; port 0 takes any free one
    #[arg(
        long,
        global = true,
        value_name = "ADDR",
        env = "ORDER_SERVICE_LISTEN",
        hide_env_values = true,
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,

    /// The address of /metrics in a process that does not serve the API [default: none]
    #[arg(long, global = true, value_name = "ADDR", env = "ORDER_SERVICE_METRICS", hide_env_values = true)]
    pub metrics: Option<SocketAddr>,

    /// Leaves saga, projectors and relay to other processes
    #[arg(long, global = true)]
    pub only_http: bool,
}

/// What this process does.
#[derive(Debug, Clone, Subcommand)]
pub enum Role {
    /// HTTP with saga, projectors and, with --kafka, the relay (this is the default)
    Serve,
    /// Has orders fulfilled, one well and each of the others with another failure, prints what happens to them, and ends
    Demo,
    /// Only copies the log to Kafka, as `relay status` tells
    Publish,
    /// Only keeps read models up to date
    Project {
        /// The read models [default: all]
        #[arg(value_parser = PossibleValuesParser::new(NAMES))]
        projections: Vec<String>,
    },
    /// Only has orders fulfilled: payment, stock, shipment, and messages to customers
    Saga,
    /// Only handles what the payment provider tells
    Consume,
    /// Plays the payment provider: creates its topic if it is missing, and tells there that orders were paid; needs --payments-topic
    Provider {
        /// The ids of the orders [default: none]
        #[arg(value_name = "ORDER")]
        orders: Vec<String>,
    },
    /// What every service has: verify and rebuild read models, look into the store
    #[command(flatten)]
    Service(ServiceCommand),
    /// What the program prints about itself
    #[command(flatten)]
    Text(TextCommand),
}

impl Role {
    /// The parts of the service that a process in this role runs.
    pub fn parts(&self, http: Http) -> service::Parts {
        match self {
            Self::Serve if http.only_http => service::Parts::None,
            Self::Serve | Self::Demo => service::Parts::All,
            Self::Service(command) => command.parts(),
            Self::Text(_) | Self::Provider { .. } => service::Parts::None,
            Self::Publish => service::Parts::named([service::RELAY]),
            Self::Saga => service::Parts::named(fulfilment::PARTS),
            Self::Consume => service::Parts::Kind(service::PartKind::Consumer),
            Self::Project { projections } if projections.is_empty() => {
                service::Parts::Kind(service::PartKind::Projection)
            }
            Self::Project { projections } => service::Parts::named(projections),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// The arguments in the files of `deploy/`, which are lists in JSON after `command:` or `args:`.
    #[test]
    fn the_processes_of_the_deployments_have_roles_that_exist() {
        let files = [include_str!("../deploy/compose.yaml"), include_str!("../deploy/kubernetes.yaml")];
        for file in files {
            let lists = file.lines().filter_map(|line| {
                let line = line.trim();
                line.strip_prefix("command: ").or_else(|| line.strip_prefix("args: "))
            });
            let lists: Vec<Vec<String>> = lists.map(|list| serde_json::from_str(list).expect("a list")).collect();
            let mut kept = Vec::new();
            for arguments in &lists {
                let cli =
                    Cli::try_parse_from(["order-service"].into_iter().chain(arguments.iter().map(String::as_str)));
                if let Some(Role::Project { projections }) = cli.expect("arguments that are known").role {
                    kept.extend(projections);
                }
            }
            kept.sort_unstable();
            let mut all = NAMES.map(str::to_owned);
            all.sort_unstable();
            assert_eq!(kept, all, "each read model is kept by one kind of process");
        }
    }

    /// A derived `Debug` shows the whole URL.
    #[test]
    fn r14_what_a_program_was_told_shows_no_password_in_a_debugger() {
        let cli = Cli::parse_from(["order-service", "--store", "postgres://orders:geheim@host/db"]);
        assert!(!format!("{cli:?}").contains("geheim"));
    }

    /// The address of a store may hold a password. Seen to fail: the help ended with `[env: ORDER_SERVICE_STORE=postgres://…]`.
    #[test]
    fn r14_the_help_repeats_nothing_of_the_environment() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments().filter(|argument| argument.get_env().is_some()) {
                let hidden = argument.is_hide_env_values_set() || argument.is_hide_env_set();
                assert!(hidden, "{} of {}", argument.get_id(), command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
