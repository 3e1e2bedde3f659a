//! What commands print: tables for people, or a line of JSON for each thing that was found.

use std::{
    fmt,
    io::{self, BufWriter, Write},
};

use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

/// How to print.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Format {
    /// Prints a line of JSON for each thing that is found, in place of a table
    #[arg(long)]
    pub json: bool,
}

/// Where a command prints what it has found. Colours are left out if that is no terminal, or `NO_COLOR` is set.
pub struct Output {
    to: BufWriter<Box<dyn Write + Send>>,
}

impl Output {
    /// The standard output.
    pub fn stdout() -> Self {
        Self::to(anstream::stdout())
    }

    /// Any other writer.
    pub fn to(writer: impl Write + Send + 'static) -> Self {
        Self { to: BufWriter::new(Box::new(writer)) }
    }

    /// One line.
    ///
    /// # Errors
    /// When it cannot be written: the reader of a pipe has gone, or the disk is full.
    pub fn line(&mut self, line: impl fmt::Display) -> io::Result<()> {
        writeln!(self.to, "{line}")
    }

    /// `found` as a line of JSON.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn json(&mut self, found: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, found)?;
        self.to.write_all(b"\n")
    }

    /// `rows` under `heads`; numbers stand on the right.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn table<const N: usize>(&mut self, heads: [&str; N], rows: &[[String; N]]) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(heads);
        for row in rows {
            table.add_row(row);
        }
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding((0, 2));
            let is_number = |row: &[String; N]| row[index].bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
            if rows.iter().all(is_number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Hands over what was printed so far.
    ///
    /// # Errors
    /// As [`line`](Self::line).
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").finish_non_exhaustive()
    }
}
