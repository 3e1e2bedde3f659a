//! Help, completions, the manual page.

use super::fixture::{es, run};

/// Scripts rely on them.
const CODES: [&str; 6] = [
    "  0  done, and all is well",
    "  1  the answer is no: a problem or a difference was found, or what was named is not there",
    "  2  the arguments are wrong, or a confirmation is missing",
    "  3  the store, or Kafka, cannot be reached",
    "  4  the store failed, or it does not fit this program; or Kafka refuses",
    "  5  doctor or relay status found warnings and no problem",
];

#[test]
fn help_and_manual_tell_the_exit_codes() {
    let help = run(es().arg("--help"));
    let manual = run(es().arg("man"));
    assert_eq!((help.code, manual.code), (0, 0));
    for line in CODES {
        assert!(help.out.contains(line), "{line}\n{}", help.out);
        // The page marks a minus and a dot.
        assert!(manual.out.contains(line.trim()), "{line}\n{}", manual.out);
    }
}

/// It would fail where `--url` and `--schema` stood among the options of the command.
#[test]
fn options_of_the_store_have_a_heading_of_their_own() {
    for command in [&["--help"][..], &["readers", "--help"], &["stream", "show", "-h"]] {
        let help = run(es().args(command)).out;
        let (before, own) = help.split_once("\nStore options:\n").expect("the heading");
        let options = before.split_once("\nOptions:\n").expect("the options of the command").1;
        assert!(own.contains("--url") && own.contains("--schema"), "{help}");
        assert!(!options.contains("--url") && !own.contains("--help"), "{help}");
    }
    let manual = run(es().arg("man")).out;
    assert!(manual.contains("url") && manual.contains("schema"), "{manual}");
}

/// The password of a URL in the environment must not be shown.
#[test]
fn help_shows_no_url_of_the_environment() {
    let run = run(es().env("ES_URL", "postgres://ada:geheim@host/db").arg("--help"));
    assert!(!run.out.contains("geheim"));
}

#[test]
fn the_manual_page_has_every_command() {
    let manual = run(es().arg("man")).out;
    assert!(manual.contains(".TH es 1"), "{manual}");
    for command in ["MIGRATE", "STREAMS", "STREAM SHOW", "STREAM AT", "STREAM DIFF", "LOG TAIL", "READERS", "DOCTOR"] {
        assert!(manual.contains(&format!("ES {command}")), "{command}\n{manual}");
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    for (shell, holds) in [("bash", "complete -F"), ("zsh", "#compdef es"), ("fish", "complete -c es")] {
        let script = run(es().args(["completions", shell]));
        assert_eq!((script.code, script.out.contains(holds)), (0, true), "{shell}");
        assert!(script.out.contains("doctor"));
    }
}
