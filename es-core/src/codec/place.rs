//! The place in a value where something is wrong, with names that come from code.

use std::fmt;

/// The path to a value from the outermost one, collected from the inside out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place(Vec<Step>);

/// One step of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A field of a structure, or a variant of an enum.
    Name(String),
    /// An element of a list.
    Index(usize),
    /// A value of a map. Its key is data, which an error must not repeat.
    Entry,
}

impl Step {
    pub(super) fn name(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl Place {
    /// The same place, seen from one step further out.
    pub(super) fn within(&mut self, step: Step) {
        self.0.push(step);
    }

    /// The place as text, `None` for the outermost value.
    pub(super) fn text(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.to_string())
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.0.iter().rev().enumerate() {
            match step {
                Step::Name(name) if number == 0 => f.write_str(name)?,
                Step::Name(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Entry => f.write_str("{}")?,
            }
        }
        Ok(())
    }
}
