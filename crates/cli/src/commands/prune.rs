//! `banger prune`.

use std::io::{BufRead, IsTerminal};

use banger_api::client::Request;
use banger_api::vm::{Vm, VmState};
use clap::Args;

use super::lifecycle::removal;
use super::several::{Work, each_of};
use crate::app::{App, own};
use crate::attach::interrupts::Interrupts;
use crate::failure::Failure;
use crate::output::{Format, Text, ask, complain, human};

/// Arguments of `prune`.
#[derive(Debug, Args)]
#[command(after_help = "\
VMs that wait to start again by themselves stay. Images are not touched: see `banger image rm`.")]
pub struct Prune {
    /// Do not ask
    #[arg(short, long, conflicts_with = "dry_run")]
    force: bool,
    /// Only list what would be removed
    #[arg(short = 'n', long)]
    dry_run: bool,
}

impl Prune {
    pub(super) async fn run(self, app: &App) -> Result<u8, Failure> {
        let mut vms: Vec<Vm> = app.call(Request::get(["vms"])).await?;
        vms.retain(|vm| vm.state == VmState::Stopped && vm.starts_again.is_none());
        if self.dry_run || vms.is_empty() {
            if vms.is_empty() {
                app.screen.say("every VM runs: there is nothing to remove");
            }
            app.screen.print(&vms, || Text::lines(vms.iter().map(|vm| &vm.name)))?;
            return Ok(0);
        }
        if !self.force && !agreed(&vms)? {
            return Ok(1);
        }
        let mut interrupts = Interrupts::catch()?;
        // Without force: one that somebody has started meanwhile stays.
        let request = |name: &str| removal(name, false);
        let work = Work { request, becomes: "removed", on_cancel: "the removal goes on", all: |_| true, level: None };
        let (removed, code) = each_of(app, vms.into_iter().map(Ok).collect(), &work, &mut interrupts).await?;
        if app.screen.format != Format::Table {
            app.screen.print(&removed, || Text::lines(removed.iter().map(|vm| &vm.name)))?;
        }
        Ok(code)
    }
}

/// Asks whether these are to be removed. Nothing is assumed of who cannot be asked.
fn agreed(vms: &[Vm]) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::usage("cannot ask whether to remove VMs: standard input is no terminal", "use --force"));
    }
    let now = human::now();
    for vm in vms {
        complain(&format!("  {}  created {}", vm.name, human::ago(vm.created, now)));
    }
    let (these, disks) = if vms.len() == 1 { ("this VM", "its disks") } else { ("these VMs", "their disks") };
    ask(&format!("remove {these} and {disks}? [y/N]")).map_err(own("ask"))?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(own("read the answer"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
