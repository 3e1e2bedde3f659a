//! The commands of `docs/operating.md`, each on a store of either kind.

use super::fixture::Place;

#[test]
fn every_documented_command_does_what_it_says() {
    let text = include_str!("../../../docs/operating.md");
    let blocks = text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    let commands: Vec<_> = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("es ")).collect();
    assert!(commands.len() > 12, "{commands:?}");
    for place in Place::filled() {
        for command in &commands {
            let (arguments, _) = command.split_once(" #").unwrap_or((command, ""));
            // As a shell splits it: what stands in quotes is one argument.
            let quoted = arguments.split('"').enumerate();
            let arguments: Vec<&str> = quoted
                .flat_map(|(number, part)| if number % 2 == 1 { vec![part] } else { part.split_whitespace().collect() })
                .collect();
            let run = place.es(&arguments);
            // What it finds on the server of the tests is tested elsewhere.
            let is_well = run.code == 0 || (arguments[0] == "doctor" && matches!(run.code, 1 | 5));
            assert!(is_well, "es {command}: {} {}", run.code, run.err);
            assert!(!run.out.is_empty(), "es {command} prints nothing");
        }
    }
}

/// The table of the exit codes is that of `--help`.
#[test]
fn the_documented_exit_codes_are_those_of_the_program() {
    let text = include_str!("../../../docs/operating.md");
    for line in es_cli::EXIT_CODES.lines().skip(1) {
        let code = line.split_whitespace().next().unwrap();
        assert!(text.contains(&format!("\n| {code} | ")), "{line}");
    }
}
