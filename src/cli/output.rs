//! What commands print: results to standard output, all else to standard error.
//!
//! `println!` and `eprintln!` panic where whoever reads has gone, as `head` does.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::pure::printable;

/// Prints a result. Whoever reads it may have enough of it: that is no error.
pub(super) fn print(text: &str) -> Result<()> {
    print_on(text).map(drop)
}

/// The same; whether somebody still reads.
pub(super) fn print_on(text: &str) -> Result<bool> {
    write(&printable::lines(text))
}

/// Prints a file as it is: to a program or into a file, where each character counts.
pub(super) fn print_file(text: &str) -> Result<()> {
    if io::stdout().is_terminal() { print(text) } else { write(text).map(drop) }
}

/// JSON for [`print()`]. It escapes what a terminal would not show, as JSON does.
pub(super) fn json(value: &Value) -> String {
    format!("{}\n", printable::json(&format!("{value:#}")))
}

fn write(text: &str) -> Result<bool> {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Tells what is no result, in a line. Where nobody hears it the command goes on.
pub fn tell(line: impl Display) {
    let _ = writeln!(io::stderr(), "{}", printable::lines(&line.to_string()));
}

/// Asks for what is typed behind it, in the same line.
pub(super) fn prompt(question: impl Display) {
    let mut terminal = io::stderr();
    let question = question.to_string();
    let _ = write!(terminal, "{}: ", printable::lines(&question)).and_then(|()| terminal.flush());
}

/// Lines with their cells below each other, columns as wide as what is in them.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let shown =
        |cells: &[String; N]| cells.each_ref().map(|cell| printable::line(cell).into_owned());
    let rows: Vec<[String; N]> = rows.iter().map(shown).collect();
    let width = |at: usize| rows.iter().map(|cells| cells[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
