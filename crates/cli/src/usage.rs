//! clap's complaints in the shape that all of banger's errors have, and its help as it is.

use std::error::Error;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::commands::suggest::Rejected;
use crate::output::{complain, printable};

/// Prints what clap has to say: help and version on standard output, complaints on standard error.
pub fn print(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has seen enough of the help is no failure.
            drop(error.print());
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            drop(error.print());
            ExitCode::from(2)
        }
        _ => {
            let text = error.render().to_string();
            complain(&format!("error: {}", printable(&cause(&text))));
            complain(&format!("help: {}", printable(&advice(error, &text))));
            ExitCode::from(2)
        }
    }
}

/// The first paragraph, without its label.
fn cause(text: &str) -> String {
    let paragraph: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let line = paragraph.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// What a value's own rule says, clap's tip where it has one, else how the command is used.
fn advice(error: &clap::Error, text: &str) -> String {
    if let Some(rejected) = error.source().and_then(|source| source.downcast_ref::<Rejected>()) {
        return rejected.help.clone();
    }
    for kind in [ContextKind::SuggestedSubcommand, ContextKind::SuggestedArg, ContextKind::SuggestedValue] {
        match error.get(kind) {
            Some(ContextValue::String(one)) => return format!("did you mean {one}?"),
            // The last one is the most like it.
            Some(ContextValue::Strings(many)) => {
                if let Some(one) = many.last() {
                    return format!("did you mean {one}?");
                }
            }
            _ => {}
        }
    }
    let line = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label).map(str::trim));
    if let Some(tip) = line("tip:") {
        return tip.to_owned();
    }
    match line("Usage:") {
        Some(usage) => format!("usage: {usage}"),
        None => "see `banger --help`".to_owned(),
    }
}
