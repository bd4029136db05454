//! What is on banger's ground and does not fit its records: one file per kind of thing, each with its inputs as parameters.
//!
//! A VM may come or go while all this is looked at, so what does not fit is looked at again and told only if it still does not.
//!
//! **To add a kind**: a function that returns [`Oddity`]s, a line in [`look`], and a test that plants one.

mod files;
mod mounts;
mod network;
mod processes;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use banger_api::verify::{Kind, Oddity, Problem};

use crate::context::blocking;
use crate::ground::Claim;
use crate::serve::Daemon;
use crate::vm::error::VmError;
use crate::vm::state::State;

/// What the records say of one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    name: String,
    uid: u32,
    /// Its VMM's process, if it has one that is known.
    pid: Option<u32>,
    /// Whether it does not run, and nothing is under way: then it has no process and no port.
    rests: bool,
    /// Whether an operation is running.
    busy: bool,
}

/// All VMs, by id.
type Vms = HashMap<String, Known>;

/// Compares. Nothing is changed.
///
/// # Errors
/// Where the records cannot be read.
pub async fn verify(daemon: &Daemon) -> Result<Vec<Oddity>, VmError> {
    let first = look(daemon).await?;
    if first.is_empty() {
        return Ok(first);
    }
    let mut second = look(daemon).await?;
    second.retain(|oddity| first.contains(oddity));
    second.sort_by(|one, other| (one.kind, one.problem, &one.which).cmp(&(other.kind, other.problem, &other.which)));
    Ok(second)
}

async fn look(daemon: &Daemon) -> Result<Vec<Oddity>, VmError> {
    let context = &daemon.context;
    let paths = context.paths.clone();
    let (uids, claims, ground) = (context.uids, context.claims.clone(), context.ground);
    // A VM that comes meanwhile has a user of the present slot.
    let kept: HashSet<u32> = vms(daemon).values().map(|vm| vm.uid).collect();
    let (vmm, driver) = (Arc::clone(&context.vmm), Arc::clone(&context.vmm));
    // Before the records: a VM's record is there before all else of it, and goes after it.
    let host = blocking(move || {
        let processes = processes::of_vms(&*vmm, uids, &kept);
        let claims = claims.recorded().into_iter().map(|recorded| recorded.claim);
        let others: Vec<Claim> = claims.filter(|claim| claim.id != ground).collect();
        let mounts = mounts::below(Path::new("/proc/self/mountinfo"), &[&paths.state, &paths.runtime]);
        (processes, others, mounts, files::listed(&paths))
    });
    let (processes, others, mounts, files) = host.await;
    let links = network::links(context).await;
    let vms = vms(daemon);
    let images = context.store.images().await?.into_iter().map(|image| image.id).collect();
    let mut oddities = processes::compare(&processes, &vms, uids, &others, |uid| driver.user_of(uid));
    oddities.extend(mounts);
    oddities.extend(files::compare(&context.paths, &files, &vms, &images));
    oddities.extend(files::unreachable(&context.paths, &files, &vms, context.vmm.runtime_files()));
    oddities.extend(links);
    oddities.extend(network::rules(context).await);
    oddities.extend(network::names(context));
    Ok(oddities)
}

fn vms(daemon: &Daemon) -> Vms {
    let known = |view: crate::vm::request::View| {
        let definition = &view.definition;
        let rests = view.busy.is_none() && matches!(view.state, State::Stopped { .. });
        let known = Known {
            name: definition.name.clone(),
            uid: definition.uid,
            pid: view.pid,
            rests,
            busy: view.busy.is_some(),
        };
        (definition.id.as_str().to_owned(), known)
    };
    daemon.registry.list().into_iter().map(known).collect()
}

fn oddity(kind: Kind, problem: Problem, which: impl Into<String>, found: impl Into<String>) -> Oddity {
    Oddity { kind, problem, which: which.into(), found: found.into(), fix: None }
}

fn with_fix(oddity: Oddity, fix: impl Into<String>) -> Oddity {
    Oddity { fix: Some(fix.into()), ..oddity }
}
