//! What every part of a running daemon shares.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::config::Config;
use crate::dns::names::Names;
use crate::dns::wiring::Wiring;
use crate::events::Changes;
use crate::ground::{Claims, GroundId, Uids};
use crate::image::install::Installer;
use crate::net::addresses::Subnet;
use crate::net::network::Network;
use crate::operation::fault::{Faults, Step};
use crate::paths::Paths;
use crate::space::Space;
use crate::store::Store;
use crate::vm::error::VmError;
use crate::vm::request::View;
use crate::vm::turns::AllTurns;
use crate::vmm::Vmm;

/// What every part of a running daemon shares.
pub struct Context {
    /// Where things are.
    pub paths: Paths,
    /// What the daemon was told.
    pub config: Config,
    /// The records.
    pub store: Store,
    /// The driver that runs VMs here.
    pub vmm: Arc<dyn Vmm>,
    /// Whether VMs use the kernel's KVM.
    pub kvm: bool,
    /// The agent's file.
    pub agent: PathBuf,
    /// What happens, for who follows it.
    pub changes: Arc<Changes>,
    /// Held while the base of an initramfs is looked for or made: of many VMs that start at once only one makes it.
    pub bases: Arc<Mutex<()>>,
    /// Of many VMs that go the same way at once, whose turn it is.
    pub turns: AllTurns,
    /// The ground's id.
    pub ground: GroundId,
    /// The user ids of VMMs and builds.
    pub uids: Uids,
    /// The claims of all daemons on this host.
    pub claims: Claims,
    /// The space that is left for them all.
    pub space: Space,
    /// The network of VMs.
    pub network: Arc<Network>,
    /// Their names, and who answers for them.
    pub names: Names,
    /// How the host is told them.
    pub wiring: Wiring,
    /// This boot of the host.
    pub host_boot: String,
    /// What fills the trees of new images.
    pub installer: Arc<dyn Installer>,
    /// Planned faults; none but in tests.
    pub faults: Faults,
}

impl Context {
    /// As [`Faults::step`], for VMs.
    ///
    /// # Errors
    /// Those of the work; in tests, planned ones.
    pub async fn step<T>(&self, step: Step, work: impl Future<Output = Result<T, VmError>>) -> Result<T, VmError> {
        self.faults.step(step, work).await
    }

    /// The guests' subnet, once the network exists and names are answered in it; the next daemon takes the same slot
    /// and subnet.
    ///
    /// # Errors
    /// [`VmError::Network`], [`VmError::Store`].
    pub async fn subnet(&self) -> Result<Subnet, VmError> {
        let scope = self.network.scope().await?;
        self.names.serve(scope.slot, scope.subnet);
        if self.store.scope().await? != Some(scope) {
            self.store.set_scope(scope).await?;
        }
        Ok(scope.subnet)
    }

    /// Tells who follows what happens, and who asks for names, what a VM has become.
    pub fn tell(&self, view: &View) {
        let definition = &view.definition;
        let now = definition.address.filter(|_| !view.gone).map(|address| (definition.name.as_str(), address));
        self.names.tell(definition.id.as_str(), now);
        let vm = crate::api::wire(view, self.vmm.capabilities().name);
        if view.gone { self.changes.vm_gone(vm) } else { self.changes.vm(vm) }
    }

    /// How VMs run here, in a word.
    pub fn accelerator(&self) -> &'static str {
        match (self.vmm.capabilities().name, self.kvm) {
            ("fake", _) => "fake",
            (_, true) => "kvm",
            (_, false) => "emulation",
        }
    }
}

/// What the host has to offer.
pub fn host() -> crate::vm::spec::Host {
    let memory = rustix::system::sysinfo();
    crate::vm::spec::Host { memory: memory.totalram * u64::from(memory.mem_unit) }
}

/// How many processors this daemon may run on.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Runs blocking work beside the event loop.
///
/// # Panics
/// Where the work does.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // A runtime that is shutting down drops its tasks; this one with them.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The time, in nanoseconds since 1970-01-01 UTC.
pub fn unix_nanos() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The time, in seconds since 1970-01-01 UTC.
pub fn unix_seconds() -> u64 {
    unix_nanos() / 1_000_000_000
}

/// Random bytes from the kernel.
///
/// # Errors
/// Where getrandom(2) fails.
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}
