//! What the user sees. Standard output carries what was asked for, standard error everything else.

use std::io::{self, IsTerminal, Write};
use std::os::fd::BorrowedFd;

use serde::Serialize;

use crate::environment::Environment;
use crate::failure::Failure;

pub mod human;
pub mod stages;
pub mod suspension;
pub mod table;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// The API's own types; stable.
    Json,
    /// Names alone, one a line.
    Name,
}

/// What is known of the terminal, and what the user wants on it.
#[derive(Debug, Clone)]
pub struct Screen {
    /// How results are printed.
    pub format: Format,
    /// Results and errors only.
    pub quiet: bool,
    /// Whether the stage table is printed.
    pub timings: bool,
    /// Whether standard output is a terminal.
    pub stdout_is_terminal: bool,
    /// Whether standard error is a terminal that understands more than plain lines.
    pub live: bool,
    /// Whether standard error may be coloured.
    pub colour: bool,
    /// Whether the locale can show more than ASCII.
    pub unicode: bool,
}

impl Screen {
    /// Looks at the process's streams and variables.
    pub fn new(environment: &Environment, format: Format, quiet: bool, timings: bool) -> Screen {
        let dumb = environment.var("TERM").is_none_or(|term| term == "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| environment.var(name));
        let locale = locale.map(|locale| locale.to_string_lossy().to_ascii_lowercase());
        let live = io::stderr().is_terminal() && !dumb;
        Screen {
            format,
            quiet,
            timings,
            stdout_is_terminal: io::stdout().is_terminal(),
            live,
            colour: live && environment.var("NO_COLOR").is_none(),
            unicode: locale.is_some_and(|locale| locale.contains("utf-8") || locale.contains("utf8")),
        }
    }

    /// One line for a person, on standard error; not with `--quiet`.
    pub fn say(&self, line: &str) {
        if !self.quiet {
            complain(line);
        }
    }

    /// A table that fits the terminal, where standard output is one; elsewhere it is whole.
    pub fn table(&self, head: &[&str], rows: &[Vec<String>]) -> String {
        if !self.stdout_is_terminal {
            return table::columns(head, rows);
        }
        table::columns_within(head, rows, width_of(rustix::stdio::stdout()), if self.unicode { "…" } else { "~" })
    }

    /// A result on standard output: as JSON if that was asked for, else as `text` makes it. It ends with a line break.
    ///
    /// # Errors
    /// [`Failure::Stdout`].
    pub fn print(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = match self.format {
            Format::Json => {
                let json = serde_json::to_string_pretty(value);
                json.expect("the API's types have string keys and no failing parts") + "\n"
            }
            Format::Table | Format::Name => text(),
        };
        write_stdout(text.as_bytes())
    }
}

/// Bytes to standard output, at once.
///
/// # Errors
/// [`Failure::Stdout`].
pub fn write_stdout(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|source| Failure::Stdout { source })
}

/// One line on standard error. That it cannot be written is nothing that could be told to anybody.
pub fn complain(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// The width of the terminal on standard error; 80 where there is none.
pub fn width() -> usize {
    width_of(rustix::stdio::stderr())
}

fn width_of(terminal: BorrowedFd<'_>) -> usize {
    match rustix::termios::tcgetwinsize(terminal) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}

/// Text from elsewhere on one line, without the characters that could command a terminal, and without the numbers that
/// the standard library adds to the operating system's words.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' | '\r' | '\t' => line.push(' '),
            char if char.is_control() => line.extend(char.escape_default()),
            char => line.push(char),
        }
    }
    while let Some(start) = line.find(" (os error ") {
        let Some(length) = line[start..].find(')') else { break };
        line.replace_range(start..=start + length, "");
    }
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_for_people() {
        assert_eq!(printable("a\nb\t\x1b[2J\u{9b}c\n"), "a b \\u{1b}[2J\\u{9b}c");
        assert_eq!(printable("x: Gone (os error 2): y (os error 20)"), "x: Gone: y");
        assert_eq!(printable("x (os error 2"), "x (os error 2");
    }
}
