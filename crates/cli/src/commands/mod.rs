//! The verbs. One file per group; each argument's help stands on its field.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::app::App;
use crate::failure::Failure;
use crate::output::Format;

mod change;
mod completion;
mod console;
mod cp;
mod create;
mod daemon;
mod dns;
mod doctor;
mod each;
mod events;
mod exec;
mod forward;
mod image;
mod lifecycle;
mod list;
mod logs;
mod network;
mod operation;
mod ports;
mod proxy;
mod prune;
mod run;
mod several;
mod ssh;
mod ssh_config;
mod stats;
pub mod suggest;
mod values;
mod verify;
mod version;
mod vm;

pub use cp::report_skipped;
pub use operation::reach;
pub use values::WaitLevel;
pub use vm::VmVerb;

/// Real virtual machines with names, at once.
#[derive(Debug, Parser)]
#[command(name = "banger", version, propagate_version = false, arg_required_else_help = true, max_term_width = 100)]
pub struct Banger {
    /// Options of every verb.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every verb")]
pub struct Globals {
    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// How to print results: table, json (the API's types; stable) or name
    #[arg(short, long, global = true, value_enum, default_value = "table", value_name = "FORMAT")]
    #[arg(hide_possible_values = true, hide_default_value = true)]
    pub output: Format,
    /// Print how long each stage took
    #[arg(long, global = true)]
    pub timings: bool,
    /// The daemon's socket [default: BANGER_HOST, else bangerd.sock in /run/banger]
    #[arg(long, global = true, value_name = "SOCKET")]
    pub host: Option<PathBuf>,
}

/// The nouns, and the verbs on VMs without their noun.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// The verbs on VMs, which need no noun.
    #[command(flatten)]
    Direct(VmVerb),
    /// VMs: the same verbs as without `vm`
    #[command(subcommand, arg_required_else_help = true)]
    Vm(VmVerb),
    /// Images, from which VMs are made
    #[command(subcommand, arg_required_else_help = true)]
    Image(image::ImageVerb),
    /// The network that VMs are in, and whose address is which
    #[command(subcommand, arg_required_else_help = true)]
    Network(network::NetworkVerb),
    /// The daemon, which owns the VMs
    #[command(subcommand, arg_required_else_help = true)]
    Daemon(daemon::DaemonVerb),
    /// The names of VMs, for this host's programs
    #[command(subcommand, arg_required_else_help = true)]
    Dns(dns::DnsVerb),
    /// Tell ssh how to reach VMs by name, without DNS or a network
    SshConfig(ssh_config::SshConfig),
    /// Check this host: what is there, what is missing, what to do about it
    Doctor(doctor::Doctor),
    /// Compare what is there with what is recorded: links, rules, mounts, processes, files and names
    Verify(verify::Verify),
    /// Print what happens, as it happens: a line for each change of a VM, an image, an operation
    Events(events::Events),
    /// Print the script by which a shell completes this command line
    Completion(completion::Completion),
    /// Show the versions of this program and of the daemon that answers
    Version(version::ShowVersion),
}

impl Verb {
    /// Whether its exit code is a guest command's, so that banger's own failure needs a code apart.
    pub fn is_for_command(&self) -> bool {
        match self {
            Verb::Direct(verb) | Verb::Vm(verb) => verb.is_for_command(),
            Verb::Image(_)
            | Verb::Network(_)
            | Verb::Daemon(_)
            | Verb::Dns(_)
            | Verb::SshConfig(_)
            | Verb::Doctor(_)
            | Verb::Verify(_)
            | Verb::Events(_)
            | Verb::Completion(_)
            | Verb::Version(_) => false,
        }
    }
}

/// Runs a verb; its exit code.
///
/// # Errors
/// Every [`Failure`].
pub async fn run(app: &App, verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Direct(verb) | Verb::Vm(verb) => vm::dispatch(app, verb).await,
        Verb::Image(verb) => image::run(app, verb).await,
        Verb::Network(verb) => network::run(app, verb).await,
        Verb::Daemon(verb) => daemon::run(app, verb).await,
        Verb::Dns(verb) => dns::run(app, verb).await,
        Verb::SshConfig(config) => config.run(app).await,
        Verb::Doctor(doctor) => doctor.run(app).await,
        Verb::Verify(verify) => verify.run(app).await,
        Verb::Events(events) => events.run(app).await,
        Verb::Completion(completion) => completion.run(),
        Verb::Version(version) => version.run(app).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn check(command: &clap::Command, path: &str) {
        assert!(command.get_about().is_some(), "{path} has no help text");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{path}: {} has no help text", argument.get_id());
        }
        for sub in command.get_subcommands() {
            check(sub, &format!("{path} {}", sub.get_name()));
        }
    }

    #[test]
    fn every_verb_and_argument_has_help() {
        let mut command = Banger::command();
        command.build();
        command.clone().debug_assert();
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            check(sub, sub.get_name());
        }
    }
}
