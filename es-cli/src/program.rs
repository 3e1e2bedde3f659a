//! The program `es`: a store by its URL, and the commands on it.

mod address;
#[cfg(feature = "kafka")]
mod kafka;

use std::{ffi::OsString, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};
use es_core::{backend::Finding, error::with_causes};
#[cfg(feature = "kafka")]
use es_kafka::DeadLetterTopic;

use self::address::Address;
#[cfg(feature = "kafka")]
use self::kafka::{Brokers, KafkaPlace};
use crate::{
    command::StoreCommand,
    end::{self, CommandError, EXIT_CODES, Outcome},
    output::{Format, Output},
    texts::TextCommand,
};
#[cfg(feature = "kafka")]
use crate::{
    dlq::{self, DlqCommand},
    relay::RelayCommand,
};

/// Shows operators what is in an event store, and what is wrong with it.
///
/// The store is named by --url or, better, by ES_URL or DATABASE_URL: other users of the machine can see the arguments of a program,
/// and with them a password. Commands that change a store ask for a reason, and what they did is recorded.
#[derive(Clone, Parser)]
#[expect(clippy::doc_markdown, reason = "it is a help text")]
#[command(name = "es", version, after_help = EXIT_CODES, max_term_width = 100)]
struct Es {
    #[command(flatten, next_help_heading = "Store options")]
    place: Place,

    #[command(subcommand)]
    command: Command,
}

/// Where the store is. It has no `Debug`: a URL may hold a password.
#[derive(Clone, Args)]
#[expect(clippy::doc_markdown, reason = "they are help texts")]
struct Place {
    /// The store: postgres://user@host/database, or sqlite:path [env: ES_URL, DATABASE_URL]
    #[arg(long, global = true, value_name = "URL", env = "ES_URL", hide_env = true)]
    url: Option<String>,

    /// The schema of a store on Postgres [default: the URL's parameter `schema`, or es]
    #[arg(long, global = true, value_name = "NAME", env = "ES_SCHEMA", hide_env = true)]
    schema: Option<String>,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Creates the schema of the store, or brings it up to date
    ///
    /// On Postgres the owner of the schema does that; roles of applications may need `grant_application` again afterwards.
    Migrate(Format),
    #[command(flatten)]
    Store(StoreCommand),
    /// Shows how far a relay to Kafka is, and compares Kafka with the log
    #[cfg(feature = "kafka")]
    Relay(OnKafka),
    /// Shows the dead letters of a topic that another system fills, and replays or discards them
    #[cfg(feature = "kafka")]
    Dlq(OnTopic),
    #[command(flatten)]
    Text(TextCommand),
}

/// A command on a dead-letter topic, and where it is.
#[cfg(feature = "kafka")]
#[derive(Debug, Clone, Args)]
#[expect(clippy::doc_markdown, reason = "it is a help text")]
struct OnTopic {
    #[command(flatten, next_help_heading = "Kafka options")]
    kafka: Brokers,

    /// The topic that the other system fills: its dead letters are in TOPIC.dlq [env: ES_KAFKA_TOPIC]
    #[arg(long, global = true, value_name = "TOPIC", env = "ES_KAFKA_TOPIC", hide_env = true)]
    topic: Option<String>,

    #[command(subcommand)]
    command: DlqCommand,
}

/// A command on a relay, and where it publishes to.
#[cfg(feature = "kafka")]
#[derive(Debug, Clone, Args)]
struct OnKafka {
    #[command(flatten, next_help_heading = "Kafka options")]
    kafka: KafkaPlace,

    #[command(subcommand)]
    command: RelayCommand,
}

/// The program.
pub fn main() -> ExitCode {
    main_of(std::env::args_os())
}

/// The program with these arguments; the first is its name.
fn main_of(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let es = match Es::try_parse_from(arguments) {
        Ok(es) => es,
        Err(error) => {
            // The reader of a pipe may have gone.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run(es, &mut Output::stdout())),
        Err(error) => Err(CommandError::Output(error)),
    };
    end::exit_code(ended)
}

async fn run(es: Es, output: &mut Output) -> Result<Outcome, CommandError> {
    match es.command {
        Command::Text(text) => text.run(Es::command(), output),
        Command::Migrate(format) => Address::of(es.place)?.migrate(format, output).await,
        #[cfg(feature = "kafka")]
        Command::Relay(OnKafka { kafka, command }) => {
            let config = kafka.config(std::env::vars_os())?;
            let store = Address::of(es.place)?.open(false).await?;
            let ended = command.run(store.clone(), config, output).await;
            // Nothing was written.
            let _ = store.close().await;
            ended
        }
        #[cfg(feature = "kafka")]
        Command::Dlq(OnTopic { kafka, topic, command }) => {
            let (brokers, settings) = kafka.settings(std::env::vars_os())?;
            let none = || CommandError::usage("the topic is not named", "pass --topic, or set ES_KAFKA_TOPIC");
            let topic = topic.filter(|topic| !topic.is_empty()).ok_or_else(none)?;
            let topic = DeadLetterTopic::new(brokers, topic).settings(settings);
            // What was done is noted in the topic beside it; in a store too, if one is named.
            let has_store = es.place.url.is_some() || std::env::var_os("DATABASE_URL").is_some();
            let store =
                if has_store && command.is_act() { Some(Address::of(es.place)?.open(false).await?) } else { None };
            let ended = command.run(&topic, store.clone(), output).await;
            if let Some(store) = store {
                let _ = store.close().await;
            }
            ended
        }
        Command::Store(command) => on_store(command, &Address::of(es.place)?, output).await,
    }
}

async fn on_store(command: StoreCommand, address: &Address, output: &mut Output) -> Result<Outcome, CommandError> {
    let store = match (address.open(false).await, &command) {
        (Ok(store), _) => store,
        // That it cannot be opened is what the examination finds.
        (Err(CommandError::Unfit { cause, advice }), StoreCommand::Doctor(doctor)) => {
            let finding = Finding::problem("connection", with_causes(&*cause), advice);
            return doctor.print(&[finding], output);
        }
        (Err(error), _) => return Err(error),
    };
    let ended = match command {
        StoreCommand::Doctor(doctor) => doctor.run(&*store, &[], elsewhere().await?, output).await,
        command => command.run(&*store, output).await,
    };
    // Nothing was written, so nothing is lost if it does not close in good order.
    let _ = store.close().await;
    ended
}

/// What waits in the dead-letter topic that the environment names, if it names one.
#[cfg(feature = "kafka")]
async fn elsewhere() -> Result<Vec<Finding>, CommandError> {
    let topic = std::env::var("ES_KAFKA_TOPIC").ok().filter(|topic| !topic.is_empty());
    let Some((brokers, topic)) = Brokers::of_environment().zip(topic) else { return Ok(Vec::new()) };
    let (brokers, settings) = brokers.settings(std::env::vars_os())?;
    Ok(vec![dlq::waits(&DeadLetterTopic::new(brokers, topic).settings(settings)).await])
}

#[cfg(not(feature = "kafka"))]
fn elsewhere() -> std::future::Ready<Result<Vec<Finding>, CommandError>> {
    std::future::ready(Ok(Vec::new()))
}
