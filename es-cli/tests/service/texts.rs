//! What the program of an application says about itself.

use clap::{CommandFactory, Parser, error::ErrorKind};
use es_cli::{Outcome, Output, ServiceCommand, TextCommand};

use super::{Paper, Program};

/// A program with a version of its own.
#[derive(Parser)]
#[command(name = "accounts", version = "7.1.0")]
struct Versioned {
    #[command(subcommand)]
    _command: ServiceCommand,
}

/// A program that uses the letter for something else.
#[derive(Parser)]
struct Verbose {
    #[arg(short = 'V')]
    verbose: bool,
    #[command(subcommand)]
    _command: ServiceCommand,
}

fn page<P: CommandFactory>() -> String {
    let paper = Paper::default();
    let ended = TextCommand::Man.run(P::command(), &mut Output::to(paper.clone()));
    assert_eq!(ended.unwrap(), Outcome::Well);
    String::from_utf8(paper.0.lock().unwrap().clone()).unwrap()
}

fn version<P: Parser>() -> String {
    let Err(shown) = P::try_parse_from(["accounts", "--version"]) else { panic!("it prints the version") };
    assert_eq!(shown.kind(), ErrorKind::DisplayVersion, "{shown}");
    shown.to_string()
}

/// Seen to fail where `--version` was an unexpected argument.
#[test]
fn a_program_without_a_version_says_so_and_tells_that_of_evenfold() {
    let told = version::<Program>();
    let own = concat!("(no version given; Evenfold ", env!("CARGO_PKG_VERSION"), ")\n");
    assert!(told.ends_with(own), "{told}");
    assert_eq!(version::<Versioned>(), "accounts 7.1.0\n");
    let verbose = Verbose::try_parse_from(["accounts", "-V", "readers"]).unwrap();
    assert!(verbose.verbose, "its own arguments stay");
}

/// Seen to fail where the page of a program without a version was not made: it panicked.
#[test]
fn a_program_without_a_version_has_a_manual_page_without_one() {
    let page_without = page::<Program>();
    assert!(page_without.contains("REBUILD") && !page_without.contains(".SH VERSION"), "{page_without}");
    assert!(!page_without.contains("no version given"), "{page_without}");
    assert!(page::<Versioned>().contains("v7.1.0"));
}
