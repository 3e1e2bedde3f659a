//! The mutants, as cargo-mutants lists them.

use serde::Deserialize;

use crate::{Failure, Result};

/// One change of the sources.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Mutant {
    /// With file, line and column: `es-core/src/tag.rs:12:5: replace … with … in …`. No two have the same.
    pub(super) name: String,
    pub(super) file: String,
    pub(super) genre: String,
    pub(super) replacement: String,
    pub(super) span: Span,
    /// None in constants.
    pub(super) function: Option<Function>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Function {
    pub(super) span: Span,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Span {
    pub(super) start: Place,
    pub(super) end: Place,
}

/// Both count from 1, the column in characters.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Mutant {
    /// Reads the output of `cargo mutants --list --json`.
    pub(super) fn parse(list: &[u8]) -> Result<Vec<Self>> {
        serde_json::from_slice(list).map_err(|error| Failure::cannot("read the list of mutants", error))
    }

    /// Whether the line is in its function.
    pub(super) fn is_around(&self, line: usize) -> bool {
        self.function
            .as_ref()
            .is_some_and(|function| (function.span.start.line..=function.span.end.line).contains(&line))
    }

    /// The source text of its file with the change.
    pub(super) fn put_into(&self, source: &str) -> String {
        let Span { start, end } = self.span;
        let (before, rest) = (&source[..start.byte(source)], &source[end.byte(source)..]);
        // The comma goes with its field.
        let rest = if self.genre == "StructField" { rest.strip_prefix(',').unwrap_or(rest) } else { rest };
        [before, &self.replacement, rest].concat()
    }

    #[cfg(test)]
    pub(super) fn at(genre: &str, start: Place, replacement: &str) -> Self {
        Self {
            name: format!("a.rs:{}:{}: {genre}", start.line, start.column),
            file: "a.rs".to_owned(),
            genre: genre.to_owned(),
            replacement: replacement.to_owned(),
            span: Span { start, end: start },
            function: None,
        }
    }
}

impl Place {
    /// Its byte in the text.
    fn byte(self, text: &str) -> usize {
        let line = text.split_inclusive('\n').take(self.line - 1).map(str::len).sum::<usize>();
        line + text[line..].chars().take(self.column - 1).map(char::len_utf8).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutant_is_put_into_its_place() {
        let text = "//\nconst Ä: u8 = 1 * 2;\n";
        let place = |column| Place { line: 2, column };
        let mutant = Mutant { span: Span { start: place(17), end: place(18) }, ..Mutant::at("", place(17), "+") };
        assert_eq!(mutant.put_into(text), "//\nconst Ä: u8 = 1 + 2;\n");
        let text = "\nX { a: 1, ..y }";
        let mutant =
            Mutant { span: Span { start: place(5), end: place(9) }, ..Mutant::at("StructField", place(5), "") };
        assert_eq!(mutant.put_into(text), "\nX {  ..y }");
    }
}
