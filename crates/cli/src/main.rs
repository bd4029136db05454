//! `banger`: a real virtual machine with a name, at once. The command line: it knows the API and the terminal, nothing else.
//!
//! This file reads the environment; nothing below it does.

use std::process::ExitCode;

use clap::Parser;

use crate::app::App;
use crate::commands::Banger;
use crate::environment::Environment;
use crate::failure::Failure;

mod app;
mod attach;
mod caller;
mod checkout;
mod commands;
mod copy;
mod daemon_start;
mod environment;
mod failure;
mod git;
mod output;
mod pull;
mod size;
mod surroundings;
mod usage;

fn main() -> ExitCode {
    let banger = match Banger::try_parse() {
        Ok(banger) => banger,
        Err(error) => return usage::print(&error),
    };
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(source) => return report(&Failure::Own { attempted: "find the running program's path", source }, false),
    };
    let for_command = banger.verb.is_for_command();
    let app = App::new(Environment::new(std::env::vars_os(), program), &banger.globals);
    match app.run(banger.verb) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report(&failure, for_command),
    }
}

fn report(failure: &Failure, for_command: bool) -> ExitCode {
    failure.print();
    ExitCode::from(failure.exit_code(for_command))
}
