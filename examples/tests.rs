//! Every example runs, and the README shows code of theirs.

use std::{fs, path::Path};

macro_rules! runs {
    ($($example:ident)*) => {
        $(
            #[allow(dead_code, reason = "tests and `main` use different halves of an example")]
            mod $example {
                include!(concat!(stringify!($example), ".rs"));

                #[test]
                fn runs() {
                    main().expect("it ends well");
                }
            }
        )*

        const EXAMPLES: &[&str] = &[$(stringify!($example)),*];
    };
}

runs! {
    callers_transaction decision fields idempotent_request inline live projection_and_query quickstart rebuild
    service_test table two_backends unique_name
}

#[test]
fn every_example_is_run() {
    let entries = fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    let mut programs: Vec<_> =
        names.filter_map(|name| Some(name.strip_suffix(".rs")?.to_owned())).filter(|name| name != "tests").collect();
    programs.sort();
    assert_eq!(programs, EXAMPLES);
}

#[test]
fn the_readme_shows_code_of_the_examples() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("../README.md")).expect("README.md");
    let examples = EXAMPLES.iter().map(|example| root.join(example).with_extension("rs"));
    let code: Vec<_> = examples.map(|path| fs::read_to_string(path).expect("an example")).collect();
    let shown: Vec<_> = readme.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(shown.len() >= 4, "the README shows code");
    for fence in shown {
        assert!(code.iter().any(|code| code.contains(fence)), "no example has this code of the README:\n{fence}");
    }
}
