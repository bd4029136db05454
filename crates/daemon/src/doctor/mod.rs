//! What is in the way of VMs on this host: one check per function, each with its inputs as parameters.
//!
//! **To add a check**: a function in the file of its kind that returns one [`Finding`] (none, where there is nothing to say),
//! a line in [`examine`], and a test that makes it fail.

mod host;
mod images;
mod leftovers;
mod names;
mod places;
mod programs;

use std::collections::HashSet;
use std::path::Path;

use banger_api::daemon::{Finding, Verdict};
use banger_linux::kvm;
use banger_linux::process::Program;

use crate::context::{Context, blocking};
use crate::dns::names::Refusals;
use crate::dns::wiring::{self, Seen};
use crate::image::containment;
use crate::vmm::qemu::Qemu;
use crate::vmm::select::{Access, KVM};

/// Makes every check.
pub async fn examine(context: &Context) -> Vec<Finding> {
    let qemu = Qemu::new(Program::Qemu);
    let mut findings = vec![programs::qemu(Program::Qemu.path(), qemu.supported().await)];
    let (paths, agent) = (context.paths.clone(), context.agent.clone());
    let (first_uid, memory_mib) = (context.config.vmm.first_uid, context.config.defaults.memory_mib);
    let rest = blocking(move || {
        let access = Access::of(Path::new(KVM)).ok();
        let findings = vec![
            host::kvm(&kvm::probe(), access.as_ref()),
            host::memory(Path::new("/proc/meminfo"), memory_mib),
            host::uids(Path::new("/etc/passwd"), Path::new("/etc/subuid"), first_uid),
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
    let attempted = containment::attempt(config.build_uid(), &scratch).await;
    findings.push(images::containment(config.image.namespace, attempted));
    // A store that cannot be read is no host's fault, and without it nobody can tell what is left over.
    if let Ok(vms) = context.store.vms().await {
        let known: HashSet<String> = vms.iter().map(|vm| vm.definition.id.as_str().to_owned()).collect();
        let dir = context.paths.vms_runtime();
        findings.push(blocking(move || leftovers::leftovers(&dir, names, &known)).await);
    }
    let (seen, refusals) = (wiring::look(&context.wiring, &context.names).await, context.names.refusals());
    findings.extend(blocking(move || of_names(&seen, &refusals)).await);
    findings
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
