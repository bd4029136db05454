//! What every way to a guest's SSH server needs first: the VM that is meant, up, with the caller's key let in.

use std::time::Duration;

use banger_api::client::Request;
use banger_api::daemon::Status;
use banger_api::vm::{Vm, VmSshKeys, VmState};

use super::keys::ManagedKey;
use super::target::{checked_domain, vm_of};
use crate::app::App;
use crate::commands::{WaitLevel, reach};
use crate::failure::Failure;

/// The port of SSH.
pub const PORT: u16 = 22;

/// How long an SSH server may begin to listen after the guest says that it is up.
const LATER: Duration = Duration::from_secs(10);

/// The domain of VMs.
///
/// # Errors
/// As [`App::call`].
pub async fn domain(app: &App) -> Result<String, Failure> {
    Ok(checked_domain(app.call::<Status>(Request::get(["daemon"])).await?.domain)?)
}

/// The VM that a host name means.
///
/// # Errors
/// [`Failure::Target`], and as [`App::call`].
pub async fn find(app: &App, host: &str) -> Result<Vm, Failure> {
    // Only a name with a dot in it needs the domain, and another request.
    let domain = if host.contains('.') { domain(app).await? } else { String::new() };
    let name = vm_of(host, &domain)?.to_ascii_lowercase();
    app.call(Request::get(["vms", &name])).await
}

/// Refuses a VM that is down, and will not come up by itself.
///
/// # Errors
/// [`Failure::Down`].
pub fn check_up(vm: &Vm) -> Result<(), Failure> {
    match vm.state {
        VmState::Running | VmState::Starting => Ok(()),
        state => Err(Failure::Down { name: vm.name.clone(), state }),
    }
}

/// Waits until a guest's SSH server listens. One that is up and has none is not waited for.
///
/// # Errors
/// [`Failure::NoServer`], and as [`App::call`].
pub async fn wait_for_server(app: &App, vm: &Vm) -> Result<(), Failure> {
    let no_server = async {
        reach(app, &vm.id, WaitLevel::System).await?;
        tokio::time::sleep(LATER).await;
        Err(Failure::NoServer { name: vm.name.clone() })
    };
    tokio::select! {
        biased;
        listens = reach(app, &vm.id, WaitLevel::Ssh) => listens.map(drop),
        // Where this fails the other does, too, and says more.
        none = no_server => none,
    }
}

/// Lets a key in; nothing happens where it is already.
///
/// # Errors
/// As [`App::call`].
pub async fn let_in(app: &App, vm: &Vm, key: &ManagedKey) -> Result<(), Failure> {
    let body = VmSshKeys { ssh_keys: vec![key.public.clone()] };
    app.call::<Vm>(Request::post(["vms", &vm.id, "ssh-keys"]).json(&body)).await.map(drop)
}
