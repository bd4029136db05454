//! `banger-agent`: without arguments the first process of a guest; with `--fake-guest` a stand-in for one, on a host.

use std::path::PathBuf;
use std::process::ExitCode;

use banger_agent::{boot, fake};

const USAGE: &str = "usage: banger-agent [--protocol=N] (as first process) | --fake-guest --listen SOCKET --root DIR --boot FILE [--protocol N]";

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Some(Role::FirstProcess { protocol }) if rustix::process::getpid() == rustix::process::Pid::INIT => {
            if let Err(error) = boot::first_process(protocol) {
                boot::report(&error);
            }
            // The agent itself, forked from the first process, ends here too; then the first process goes on.
            if rustix::process::getpid() == rustix::process::Pid::INIT {
                boot::power_off();
            }
            ExitCode::FAILURE
        }
        Some(Role::FakeGuest(options)) => match fake::run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("banger-agent: cannot boot: {}", boot::in_one_line(&error));
                ExitCode::FAILURE
            }
        },
        Some(Role::FirstProcess { .. }) | None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

enum Role {
    FirstProcess { protocol: u32 },
    FakeGuest(fake::Options),
}

/// Words that it does not know are the kernel's: it hands those of its command line to its first process.
fn parse(mut args: impl Iterator<Item = String>) -> Option<Role> {
    let (mut is_fake, mut listen, mut root, mut boot, mut protocol) =
        (false, None, None, None, banger_protocol::VERSION);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--fake-guest" => is_fake = true,
            "--listen" => listen = args.next().map(PathBuf::from),
            "--root" => root = args.next().map(PathBuf::from),
            "--boot" => boot = args.next().map(PathBuf::from),
            "--protocol" => protocol = args.next()?.parse().ok()?,
            // One word, for the kernel's command line: systemd reads that too, and takes a `1` for single-user mode.
            other => {
                if let Some(number) = other.strip_prefix("--protocol=") {
                    protocol = number.parse().ok()?;
                }
            }
        }
    }
    if !is_fake {
        return Some(Role::FirstProcess { protocol });
    }
    Some(Role::FakeGuest(fake::Options { listen: listen?, root: root?, boot: boot?, protocol }))
}
