//! Mutants that cannot be switched at run time: each is compiled by itself.

use std::collections::BTreeMap;
use std::path::Path;

use crate::interrupt::Interrupt;
use crate::mutants::list::Mutant;
use crate::mutants::schemata::{compile, is_error, program};
use crate::mutants::trials::Program;
use crate::mutants::{TESTED, read, write};
use crate::{Result, tools};

/// The package whose tests try them: to compile the others for each mutant would take hours.
const PACKAGE: &[&str] = TESTED.split_at(1).0;

/// A copy of the workspace that gets one mutant after the other.
pub(super) struct Alone<'a> {
    copy: &'a Path,
    target: &'a Path,
    /// The files with mutants, without them.
    sources: BTreeMap<&'a str, String>,
}

impl<'a> Alone<'a> {
    /// Takes the mutants out of the copy again that were put into it to be switched.
    pub(super) fn new(copy: &'a Path, target: &'a Path, mutants: &'a [Mutant]) -> Result<Self> {
        let mut sources = BTreeMap::new();
        for Mutant { file, .. } in mutants {
            if !sources.contains_key(file.as_str()) {
                sources.insert(file.as_str(), read(&tools::workspace().join(file))?);
            }
        }
        for (file, source) in &sources {
            write(&copy.join(file), source)?;
        }
        Ok(Self { copy, target, sources })
    }

    /// The programs of tests with the mutant; none if it does not compile.
    pub(super) fn compile(&self, mutant: &Mutant, interrupt: &Interrupt) -> Result<Option<Vec<Program>>> {
        let (source, file) = (&self.sources[mutant.file.as_str()], self.copy.join(&mutant.file));
        write(&file, mutant.put_into(source))?;
        let messages = compile(self.copy, self.target, PACKAGE, interrupt)?;
        write(&file, source)?;
        let compiles = !messages.iter().any(is_error);
        Ok(compiles.then(|| messages.iter().filter_map(program).collect()))
    }
}
