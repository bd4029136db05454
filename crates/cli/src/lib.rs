//! The command line as a library: for its own program, for the manual that is made from its arguments, and for fuzzing.
//!
//! The command line knows the API and the terminal, nothing else. `main.rs` reads the environment; nothing below it does.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::app::App;
use crate::commands::Banger;
use crate::environment::Environment;
use crate::failure::Failure;

mod app;
mod attach;
mod caller;
mod checkout;
mod commands;
mod complete;
mod copy;
mod daemon_start;
mod environment;
mod failure;
mod git;
mod output;
mod pull;
mod size;
mod ssh;
mod surroundings;
mod usage;

/// What a hostile guest sends is read by these; fuzzing calls them alone.
#[cfg(fuzzing)]
pub mod fuzzing {
    pub use crate::copy::frames::{FrameSource, Meter};
    pub use crate::copy::{CopyError, Destination, Owners, Root, unpack};
}

/// What the process was given.
#[derive(Debug)]
pub struct Process {
    /// Its arguments, the program's name first.
    pub arguments: Vec<OsString>,
    /// Its variables.
    pub variables: Vec<(OsString, OsString)>,
    /// The running program's path.
    pub program: io::Result<PathBuf>,
}

/// Runs what the arguments say.
pub fn main(process: Process) -> ExitCode {
    if let Err(source) = banger_linux::inherit::hear_signals() {
        return report(&Failure::Own { attempted: "hear of signals", source }, false);
    }
    if process.arguments.get(1).is_some_and(|word| word == complete::ASKED) {
        let typed = process.arguments.into_iter().skip(2).collect();
        let environment = Environment::new(process.variables.into_iter(), process.program.unwrap_or_default());
        complete::print(command(), typed, &environment);
        return ExitCode::SUCCESS;
    }
    let banger = match Banger::try_parse_from(process.arguments) {
        Ok(banger) => banger,
        Err(error) => return usage::print(&error),
    };
    let program = match process.program {
        Ok(program) => program,
        Err(source) => return report(&Failure::Own { attempted: "find the running program's path", source }, false),
    };
    let for_command = banger.verb.is_for_command();
    let app = App::new(Environment::new(process.variables.into_iter(), program), &banger.globals);
    match app.run(banger.verb) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure, for_command),
    }
}

/// The verbs with their arguments and help texts, from which the manual is made.
pub fn command() -> clap::Command {
    Banger::command()
}

fn report(failure: &Failure, for_command: bool) -> ExitCode {
    failure.print();
    ExitCode::from(failure.exit_code(for_command))
}
