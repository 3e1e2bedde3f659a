//! The mutants that the tests need not notice.

use std::collections::{BTreeMap, BTreeSet};

use crate::mutants::ACCEPTED;
use crate::{Failure, Result};

/// Mutants that may survive, with the reasons. They are named without their lines, which move: one entry stands for all
/// mutants of the same name in the same function.
#[derive(Debug)]
pub(super) struct Accepted(BTreeMap<String, String>);

/// What is not as the list of accepted mutants says.
#[derive(Debug)]
pub(super) struct Verdict<'a> {
    /// With their lines.
    pub(super) survivors: Vec<&'a str>,
    pub(super) outdated: Vec<&'a String>,
}

impl Accepted {
    /// A mutant a line, and its reason on the next line, indented. Lines that begin with `#` are comments.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut accepted = BTreeMap::new();
        while let Some(mutant) = lines.next() {
            let reason = lines.next().filter(|reason| !mutant.starts_with(' ') && reason.starts_with(' '));
            let reason =
                reason.ok_or_else(|| Failure::cannot(format!("read {ACCEPTED}"), format!("no reason: {mutant}")))?;
            accepted.insert(mutant.to_owned(), reason.trim().to_owned());
        }
        Ok(Self(accepted))
    }

    /// `is_whole`: no mutant is left that may be an accepted one.
    pub(super) fn compare<'a>(&'a self, missed: &'a str, noticed: &str, is_whole: bool) -> Verdict<'a> {
        let is_accepted = |line: &&str| self.0.contains_key(&name(line));
        let survived: BTreeSet<_> = missed.lines().map(name).collect();
        let noticed: BTreeSet<_> = noticed.lines().map(name).collect();
        let is_outdated = |mutant: &&String| (is_whole || noticed.contains(*mutant)) && !survived.contains(*mutant);
        Verdict {
            survivors: missed.lines().filter(|line| !is_accepted(line)).collect(),
            outdated: self.0.keys().filter(is_outdated).collect(),
        }
    }
}

/// A mutant without its line and column: `es-core/src/tag.rs:12:5: replace …` becomes `es-core/src/tag.rs: replace …`.
fn name(line: &str) -> String {
    let mut parts = line.splitn(4, ':');
    let file = parts.next().unwrap_or_default();
    format!("{file}:{}", parts.nth(2).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# comment\n\na.rs: replace + with - in f\n    equivalent: f(0) is not asked for\n";

    #[test]
    fn survivors_are_compared_without_their_lines() {
        let accepted = Accepted::parse(LIST).expect("a list");
        let verdict = accepted.compare("a.rs:7:9: replace + with - in f\na.rs:8:1: delete ! in f::<A, B>", "", true);
        assert_eq!(verdict.survivors, ["a.rs:8:1: delete ! in f::<A, B>"]);
        assert!(verdict.outdated.is_empty());
    }

    #[test]
    fn an_accepted_mutant_that_is_noticed_is_told() {
        let accepted = Accepted::parse(LIST).expect("a list");
        assert_eq!(
            accepted.compare("", "a.rs:7:9: replace + with - in f", false).outdated,
            ["a.rs: replace + with - in f"]
        );
        // Of several of that name one survives still.
        assert!(
            accepted
                .compare("a.rs:9:9: replace + with - in f", "a.rs:7:9: replace + with - in f", false)
                .outdated
                .is_empty()
        );
        // It was not among those that were run.
        assert!(accepted.compare("", "b.rs:1:1: delete ! in g", false).outdated.is_empty());
        // It is no more.
        assert_eq!(accepted.compare("", "b.rs:1:1: delete ! in g", true).outdated.len(), 1);
    }

    #[test]
    fn every_accepted_mutant_has_a_reason() {
        assert!(Accepted::parse("a.rs: x\nb.rs: y\n    reason\n").is_err());
        assert!(Accepted::parse("a.rs: x\n").is_err());
        Accepted::parse(include_str!("../../../es-core/mutants-accepted.txt")).expect("the list of es-core");
    }
}
