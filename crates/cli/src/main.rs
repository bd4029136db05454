//! `banger`: a real virtual machine with a name, at once. All of it is in the library.
//!
//! This file reads the environment; nothing below it does.

use std::process::ExitCode;

use banger_cli::Process;

fn main() -> ExitCode {
    banger_cli::main(Process {
        arguments: std::env::args_os().collect(),
        variables: std::env::vars_os().collect(),
        program: std::env::current_exe(),
    })
}
