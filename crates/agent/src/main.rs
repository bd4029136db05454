//! `banger-agent`: without arguments the first process of a guest.

use std::process::ExitCode;

use banger_agent::boot;

fn main() -> ExitCode {
    if let Err(error) = boot::first_process(banger_protocol::VERSION) {
        boot::report(&error);
    }
    boot::power_off();
    ExitCode::FAILURE
}
