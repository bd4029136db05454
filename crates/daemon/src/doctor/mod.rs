//! What is in the way of VMs on this host: one check per function, each with its inputs as parameters.
//!
//! **To add a check**: a function in the file of its kind that returns one [`Finding`] (none, where there is nothing to say),
//! a line in [`examine`], and a test that makes it fail.

mod ground;
mod host;
mod images;
mod leftovers;
mod names;
mod network;
mod places;
mod programs;
mod vms;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use banger_api::daemon::{Finding, Verdict};
use banger_linux::kvm;
use banger_linux::netlink::Netlink;
use banger_linux::process::Program;

use crate::context::{Context, blocking};
use crate::dns::names::Refusals;
use crate::dns::wiring::{self, Seen};
use crate::ground::{Slot, own};
use crate::image::containment;
use crate::net::{Unfit, has_legacy_filter};
use crate::vm::alive;
use crate::vmm::qemu::Qemu;
use crate::vmm::select::{Access, KVM};

/// Makes every check.
pub async fn examine(context: &Context) -> Vec<Finding> {
    let qemu = Qemu::new(Program::Qemu);
    let mut findings = vec![programs::qemu(Program::Qemu.path(), qemu.supported().await)];
    let (paths, agent) = (context.paths.clone(), context.agent.clone());
    let (uids, memory_mib) = (context.uids, context.config.defaults.memory_mib);
    let rest = blocking(move || {
        let access = Access::of(Path::new(KVM)).ok();
        let findings = vec![
            host::kvm(&kvm::probe(), access.as_ref()),
            host::memory(Path::new("/proc/meminfo"), memory_mib),
            host::uids(Path::new("/etc/passwd"), Path::new("/etc/subuid"), uids),
            programs::agent(&agent),
            programs::mmdebstrap(Program::Mmdebstrap.path()),
            programs::mke2fs(Program::Mke2fs.path()),
            programs::debugfs(Program::Debugfs.path()),
            programs::unshare(Program::Unshare.path()),
            programs::git(Program::Git.path()),
            places::state(&paths.state),
            places::space(&paths.state, banger_linux::file::free_space(&paths.state)),
            places::clones(&paths.state, banger_linux::file::supports_reflink(&paths.state)),
            places::runtime(&paths.runtime, paths.socket_excess()),
        ];
        (findings, leftovers::names(&paths.vms_runtime()))
    });
    let (rest, names) = rest.await;
    findings.extend(rest);
    let (config, scratch) = (&context.config, context.paths.scratch());
    let attempted = containment::attempt(context.uids.build(), &scratch).await;
    findings.push(images::containment(config.image.namespace, attempted));
    // A store that cannot be read is no host's fault, and without it nobody can tell what is left over.
    if let Ok(vms) = context.store.vms().await {
        let known: HashSet<String> = vms.iter().map(|vm| vm.definition.id.as_str().to_owned()).collect();
        let (paths, vmm) = (context.paths.clone(), Arc::clone(&context.vmm));
        let of_vms = move || {
            let dir = paths.vms_runtime();
            let mut findings = vec![leftovers::leftovers(&dir, names, &known, &*vmm)];
            // A daemon that cannot look at processes says nothing about them.
            if let Ok(survey) = alive::survey(&vms, &*vmm, &paths) {
                findings.push(vms::vms(&vms, &survey, &paths, vmm.runtime_files()));
            }
            findings
        };
        findings.extend(blocking(of_vms).await);
    }
    findings.push(programs::nft(Program::Nft.path(), context.network.has_fit_nft().await));
    findings.push(ground::of(context).await);
    findings.extend(of_network(context).await);
    let (seen, refusals) = (wiring::look(&context.wiring, &context.names).await, context.names.refusals());
    findings.extend(blocking(move || of_names(&seen, &refusals)).await);
    findings
}

/// Does what is safe to do about what was found: the network is made as it should be, names are answered where they were not, and
/// this host's programs are told them where they shall be. What fails is found by the next examination, and the log says why.
pub async fn mend(context: &Context) {
    let failed = |what: &str, error: &dyn std::error::Error| {
        tracing::warn!(what, error = crate::api::error::chain(error), "not mended");
    };
    match context.network.repair().await {
        Ok(mended) => tracing::info!(mended, "the network was looked at"),
        Err(error) => failed("the network", &error),
    }
    if context.network.is_up().await
        && let Err(error) = context.subnet().await
    {
        failed("names", &error);
    }
    if let Err(error) = context.wiring.renew(&context.names).await {
        failed("names of this host's programs", &error);
    }
}

/// The slot of this daemon's network, if there is one: what an earlier daemon of this ground made counts, too. The slot
/// that the daemon would try first may be another daemon's.
async fn network_slot(context: &Context) -> Option<Slot> {
    if context.network.is_up().await {
        return Some(context.network.slot().await);
    }
    let id = context.ground;
    let links = blocking(|| Netlink::open().and_then(|mut netlink| netlink.links())).await;
    own(&links.ok()?, id)
}

/// The checks of the network. Where the kernel does not tell of it there is nothing to say.
async fn of_network(context: &Context) -> Vec<Finding> {
    let known = context.store.subnet().await.ok().flatten();
    let bridge = network_slot(context).await.map(Slot::bridge);
    let bridge = bridge.as_deref();
    let told = blocking(|| Netlink::open().and_then(|mut netlink| Ok((netlink.routes()?, netlink.links()?)))).await;
    let Ok((routes, links)) = told else { return Vec::new() };
    // Another check says what is the matter with nft.
    let Unfit { dropping, passing, .. } = context.network.unfit().await.unwrap_or_default();
    let mut closed = context.network.closed_tables().await;
    // A table that belongs to a program goes with it, and the kernel tells nobody.
    closed.retain(|table, _| dropping.contains(table));
    vec![
        network::firewall(bridge, &closed, &dropping, &passing, has_legacy_filter()),
        network::subnet(bridge, context.config.network.subnet.or(known), &routes, &links),
        network::mtu(&routes, &links),
    ]
}

/// Only the checks of names.
pub fn of_names(seen: &Seen, refusals: &Refusals) -> Vec<Finding> {
    names::all(seen, refusals, wiring::holder)
}

fn pass(check: &str, found: impl Into<String>) -> Finding {
    Finding { check: check.to_owned(), verdict: Verdict::Pass, found: found.into(), fix: None }
}

fn warn(check: &str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check: check.to_owned(), verdict: Verdict::Warn, found: found.into(), fix: Some(fix.into()) }
}

fn fail(check: &str, found: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { check: check.to_owned(), verdict: Verdict::Fail, found: found.into(), fix: Some(fix.into()) }
}
