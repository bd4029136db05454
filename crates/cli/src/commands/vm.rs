//! The verbs on VMs.

use clap::Subcommand;

use super::{change, console, cp, create, exec, forward, lifecycle, list, logs, ports, proxy, prune, run, ssh, stats};
use crate::app::App;
use crate::complete::Offer;
use crate::failure::Failure;

/// A verb on VMs.
#[derive(Debug, Subcommand)]
pub enum VmVerb {
    /// Create a VM, run a command or a shell in it
    Run(run::Run),
    /// Create a VM and start it
    Create(create::Create),
    /// List the VMs
    #[command(visible_aliases = ["ps", "list"])]
    Ls(list::List),
    /// Show all that is known of a VM
    #[command(visible_alias = "inspect")]
    Show(list::Show),
    /// Run a command in a running VM
    #[command(add = Offer::Running)]
    Exec(exec::Exec),
    /// Open a login shell in a running VM
    #[command(add = Offer::Running)]
    Shell(exec::Shell),
    /// Log in to a running VM by your own ssh, or run a command in it
    #[command(add = Offer::Running)]
    Ssh(ssh::Ssh),
    /// Copy files into or out of a running VM
    Cp(cp::Copy),
    /// Start stopped VMs
    #[command(add = Offer::Stopped)]
    Start(lifecycle::Start),
    /// Stop VMs in order; their disks are kept
    #[command(add = Offer::Running)]
    Stop(lifecycle::Stop),
    /// Stop VMs in order and start them again
    #[command(add = Offer::Running)]
    Restart(lifecycle::Restart),
    /// Stop VMs at once, without asking them; their disks are kept
    #[command(add = Offer::Running)]
    Kill(lifecycle::Kill),
    /// Remove VMs and their disks
    #[command(visible_alias = "remove", alias = "delete")]
    Rm(lifecycle::Remove),
    /// Remove all VMs that do not run, and their disks
    Prune(prune::Prune),
    /// Give a VM another name; all else of it stays
    #[command(visible_alias = "mv")]
    Rename(change::Rename),
    /// Change a VM, and say when each change takes effect
    Set(change::Set),
    /// Show the output of a VM's main command, or its console
    #[command(add = Offer::Running)]
    Logs(logs::Logs),
    /// Read along at a VM's console and type at it; Ctrl-] leaves it
    #[command(add = Offer::Running)]
    Console(console::Console),
    /// Show what listens in a VM, and where it is reached
    #[command(add = Offer::Running)]
    Ports(ports::Ports),
    /// Forward ports of this host to a VM's, until Ctrl-C
    #[command(add = Offer::Running)]
    Forward(forward::Forward),
    /// Show how busy VMs are, anew every second
    #[command(visible_alias = "top", add = Offer::Running)]
    Stats(stats::Stats),
    /// Join standard input and output to a TCP port of a running VM
    #[command(add = Offer::Running)]
    Proxy(proxy::Proxy),
    /// Print a VM's SSH host key, as ssh knows hosts
    KnownHosts(proxy::KnownHosts),
}

impl VmVerb {
    pub(super) fn is_for_command(&self) -> bool {
        matches!(self, VmVerb::Run(_) | VmVerb::Exec(_) | VmVerb::Shell(_) | VmVerb::Ssh(_))
    }
}

pub(super) async fn dispatch(app: &App, verb: VmVerb) -> Result<u8, Failure> {
    match verb {
        VmVerb::Run(run) => run.run(app).await,
        VmVerb::Create(create) => create.run(app).await,
        VmVerb::Ls(list) => list.run(app).await,
        VmVerb::Show(show) => show.run(app).await,
        VmVerb::Exec(exec) => exec.run(app).await,
        VmVerb::Shell(shell) => shell.run(app).await,
        VmVerb::Ssh(ssh) => ssh.run(app).await,
        VmVerb::Cp(copy) => copy.run(app).await,
        VmVerb::Start(start) => start.run(app).await,
        VmVerb::Stop(stop) => stop.run(app).await,
        VmVerb::Kill(kill) => kill.run(app).await,
        VmVerb::Rm(remove) => remove.run(app).await,
        VmVerb::Restart(restart) => restart.run(app).await,
        VmVerb::Prune(prune) => prune.run(app).await,
        VmVerb::Rename(rename) => rename.run(app).await,
        VmVerb::Set(set) => set.run(app).await,
        VmVerb::Logs(logs) => logs.run(app).await,
        VmVerb::Console(console) => console.run(app).await,
        VmVerb::Ports(ports) => ports.run(app).await,
        VmVerb::Forward(forward) => forward.run(app).await,
        VmVerb::Stats(stats) => stats.run(app).await,
        VmVerb::Proxy(proxy) => proxy.run(app).await,
        VmVerb::KnownHosts(known) => known.run(app).await,
    }
}
