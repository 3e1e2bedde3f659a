//! The manual page: one for all commands.

use std::io;

use clap::Command;
use clap_mangen::{Man, roff::Roff};

use crate::version;

/// The page in the form that `man` reads.
pub(super) fn page(es: &Command) -> io::Result<String> {
    let mut es = es.clone();
    es.build();
    let mut page = Vec::new();
    let mut man = Man::new(es.clone());
    if es.get_version() == Some(version::UNKNOWN) {
        man = man.source(es.get_name());
    }
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    for command in es.get_subcommands() {
        of_command(command, &mut page)?;
    }
    man.render_extra_section(&mut page)?;
    match es.get_version().or_else(|| es.get_long_version()) {
        Some(version::UNKNOWN) | None => {}
        // It panics without one.
        Some(_) => man.render_version_section(&mut page)?,
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// A section for a command, and one for each of those below it.
fn of_command(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    if command.get_name() == "help" {
        return Ok(());
    }
    let name = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    if command.has_subcommands() {
        return command.get_subcommands().try_for_each(|below| of_command(below, page));
    }
    let mut head = Roff::new();
    head.control("SH", [&*name.to_uppercase()]);
    head.to_writer(page)?;
    let man = Man::new(command.clone());
    for render in [Man::render_synopsis_section, Man::render_description_section, Man::render_options_section] {
        let mut section = Vec::new();
        render(&man, &mut section)?;
        // Sections of the whole page are parts of the one of the command here.
        page.extend(String::from_utf8_lossy(&section).replace("\n.SH ", "\n.SS ").bytes());
    }
    Ok(())
}
