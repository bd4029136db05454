//! What the user sees. Standard output carries what was asked for, standard error everything else.
//!
//! The other modules write to neither stream themselves: here text is made such that it steers no terminal ([`escape`]). The
//! exception is a guest command's own output (`attach/output.rs`).

use std::io::{self, IsTerminal, Write};
use std::os::fd::BorrowedFd;

use serde::Serialize;

use crate::environment::Environment;
use crate::failure::Failure;

pub mod escape;
pub mod human;
pub mod json;
pub mod stages;
pub mod suspension;
pub mod table;
pub mod visible;

pub use self::escape::{Text, printable};

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
    /// Whether standard error is one.
    pub stderr_is_terminal: bool,
    /// Whether that terminal understands more than plain lines.
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
        let stderr_is_terminal = io::stderr().is_terminal();
        let live = stderr_is_terminal && !dumb;
        Screen {
            format,
            quiet,
            timings,
            stdout_is_terminal: io::stdout().is_terminal(),
            stderr_is_terminal,
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
    pub fn table(&self, head: &[&str], rows: &[Vec<String>]) -> Text {
        if !self.stdout_is_terminal {
            return table::columns(head, rows);
        }
        table::columns_within(head, rows, width_of(rustix::stdio::stdout()), if self.unicode { "…" } else { "~" })
    }

    /// A result on standard output: as JSON if that was asked for, else as `text` makes it.
    ///
    /// # Errors
    /// [`Failure::Stdout`].
    pub fn print(&self, value: &impl Serialize, text: impl FnOnce() -> Text) -> Result<(), Failure> {
        match self.format {
            Format::Json => write_bytes(json::pretty(value).as_bytes()),
            Format::Table | Format::Name => write_text(&text()),
        }
    }
}

/// Text to standard output, at once.
///
/// # Errors
/// [`Failure::Stdout`].
pub fn write_text(text: &Text) -> Result<(), Failure> {
    write_bytes(text.as_str().as_bytes())
}

/// A line of JSON for each value to standard output, at once.
///
/// # Errors
/// [`Failure::Stdout`].
pub fn write_json_line(value: &impl Serialize) -> Result<(), Failure> {
    write_bytes(json::line(value).as_bytes())
}

/// Bytes to standard output as they are, at once: what a program reads, and what the user wants unchanged.
///
/// # Errors
/// [`Failure::Stdout`].
pub fn write_bytes(bytes: &[u8]) -> Result<(), Failure> {
    pass_on(bytes).map_err(|source| Failure::Stdout { source })
}

/// As [`write_bytes`], where a failure is told in other words.
///
/// # Errors
/// Those of the write.
pub fn pass_on(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush())
}

/// One line on standard error. That it cannot be written is nothing that could be told to anybody.
pub fn complain(line: &str) {
    complain_text(&Text::line(line));
}

/// The same with several lines.
pub fn complain_text(text: &Text) {
    drop(io::stderr().lock().write_all(text.as_str().as_bytes()));
}

/// The same with a line of JSON.
pub fn complain_json(value: &impl Serialize) {
    drop(io::stderr().lock().write_all(json::line(value).as_bytes()));
}

/// A question on standard error, whose answer is typed on its line.
///
/// # Errors
/// Those of the write: a question that nobody saw has no answer.
pub fn ask(question: &str) -> io::Result<()> {
    let mut stderr = io::stderr().lock();
    write!(stderr, "{} ", escape::escaped(question)).and_then(|()| stderr.flush())
}

/// Puts what is drawn of this program's own making on standard error, with the sequences that move the cursor: what it shows
/// from elsewhere is escaped before. A terminal that is gone shows nothing, which is no failure.
fn draw(drawn: &str) {
    drop(io::stderr().lock().write_all(drawn.as_bytes()));
}

/// One line in place of the one that is drawn on standard error; none if it is empty.
pub fn overwrite(line: &str) {
    draw(&format!("\r\x1b[K{}", escape::escaped(line)));
}

/// A table on standard output in place of the one before, which had `before` lines.
///
/// # Errors
/// [`Failure::Stdout`].
pub fn redraw(table: &Text, before: usize) -> Result<(), Failure> {
    let up = if before > 0 { format!("\x1b[{before}A") } else { String::new() };
    let lines: String = table.as_str().lines().map(|line| format!("{line}\x1b[K\n")).collect();
    // Last what is left of a longer table.
    write_bytes(format!("{up}{lines}\x1b[J").as_bytes())
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
