//! The network of a daemon. It is made when the first VM wants it, and no sooner: a daemon without VMs leaves the host as it
//! found it.
//!
//! Who has which lease is known here; the rules follow. One lease more or less is one element in them, and where that fails
//! they are made anew from all that is known, so that it does not matter what became of them meanwhile. What has to hold elsewhere
//! on the host while VMs have ports, and what others do to it, is for `upkeep` and `watch`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use banger_linux::netlink::{Events, Mac};
use tokio::sync::{Mutex as AsyncMutex, Notify, RwLock, RwLockReadGuard};
use tokio::task::AbortHandle;

use super::addresses::{self, Subnet};
use super::claim::Claimant;
pub use super::error::NetworkError;
use super::host::{Host, Plan, Records, lock};
use super::nft::{Nft, NftError};
use super::ruleset::{self, Lease, Reach, Scope};
use super::taps::{Tap, is_numbered};
use super::upkeep::Duty;
use super::watch;
use crate::context::blocking;
use crate::ground::Slot;

/// What a VM gets.
#[derive(Debug)]
pub struct Port {
    /// The name of its TAP.
    pub tap: String,
    /// The TAP's other end, for its VMM.
    pub end: OwnedFd,
    /// Its hardware address.
    pub mac: Mac,
}

/// The network of a daemon.
#[derive(Debug)]
pub struct Network {
    wanted: Option<Subnet>,
    had: Mutex<Option<Subnet>>,
    /// The target size of the pool of TAPs.
    waiting: usize,
    claimant: Claimant,
    records: Records,
    /// Read by who uses it, written by who makes or removes it.
    pub(super) up: RwLock<Option<Up>>,
    /// By the VM's id.
    leases: Mutex<BTreeMap<String, Held>>,
    /// Taken after `up`.
    pub(super) duty: AsyncMutex<Duty>,
    pub(super) nft: Nft,
    /// Has all of it looked at.
    pub(super) nudge: Arc<Notify>,
}

/// The devices of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Devices {
    /// Whether there is a bridge.
    pub is_up: bool,
    /// The TAPs that VMs have.
    pub ports: Vec<String>,
    /// Those that wait for one.
    pub waiting: Vec<String>,
}

/// The network while it is there.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) scope: Scope,
    pub(super) host: Arc<Mutex<Host>>,
    watch: AbortHandle,
}

/// What a VM has.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) lease: Lease,
    /// Whether the rules know it.
    pub(super) admitted: bool,
}

impl Drop for Up {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Network {
    /// A network that is made later: with the subnet that is wanted, else with that of an earlier daemon, if there was one.
    pub fn new(
        claimant: Claimant,
        wanted: Option<Subnet>,
        had: Option<Subnet>,
        waiting: usize,
        records: Records,
    ) -> Network {
        Network {
            wanted,
            had: Mutex::new(had),
            waiting,
            claimant,
            records,
            up: RwLock::default(),
            leases: Mutex::default(),
            duty: AsyncMutex::default(),
            nft: Nft::default(),
            nudge: Arc::default(),
        }
    }

    /// The slot and the guests' subnet. Makes sure that the bridge and the rules exist.
    ///
    /// # Errors
    /// [`NetworkError`]; the next call tries again.
    pub async fn scope(self: &Arc<Self>) -> Result<Scope, NetworkError> {
        Ok(self.up().await?.scope)
    }

    /// The slot: the claimed one while there is a network, else the one that the daemon tries first.
    pub async fn slot(&self) -> Slot {
        let claimed = self.up.read().await.as_ref().map(|up| up.scope.slot);
        claimed.unwrap_or_else(|| self.claimant.choice.expected(self.claimant.had))
    }

    /// Remembers a VM that runs since an earlier daemon, before anything else is asked for.
    pub fn adopt(&self, id: &str, lease: Lease) {
        self.leases().insert(id.to_owned(), Held { lease, admitted: true });
    }

    /// Whether an earlier daemon has left something that is to be taken over.
    pub async fn is_left(&self) -> bool {
        let plan = self.plan();
        // Where that cannot be told there is none that could be used.
        self.is_in_use() || blocking(move || plan.is_left()).await.unwrap_or(false)
    }

    /// Whether it is there.
    pub async fn is_up(&self) -> bool {
        self.up.read().await.is_some()
    }

    /// Whether a VM has a port.
    pub fn has(&self, id: &str) -> bool {
        self.leases().contains_key(id)
    }

    /// The name of a VM's TAP, if it has a port.
    pub fn tap(&self, id: &str) -> Option<String> {
        self.leases().get(id).map(|held| held.lease.tap.clone())
    }

    /// Gives a VM a port. What comes out of it is dropped until it is [admitted](Network::admit).
    ///
    /// # Errors
    /// [`NetworkError`].
    pub async fn claim(self: &Arc<Self>, id: &str, address: Ipv4Addr, reach: Reach) -> Result<Port, NetworkError> {
        let up = self.up().await?;
        let host = Arc::clone(&up.host);
        let claimed = blocking(move || lock(&host).claim()).await;
        let Tap { name, end } = claimed?;
        let mac = addresses::mac(address);
        let lease = Lease { tap: name.clone(), mac, address, reach };
        self.leases().insert(id.to_owned(), Held { lease, admitted: false });
        self.level(&up);
        Ok(Port { tap: name, end, mac })
    }

    /// Lets a VM's packets through.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub async fn admit(self: &Arc<Self>, id: &str) -> Result<(), NetworkError> {
        let up = self.up().await?;
        let mut duty = self.duty.lock().await;
        let Some(lease) = self.leases().get_mut(id).map(|held| {
            held.admitted = true;
            held.lease.clone()
        }) else {
            return Ok(());
        };
        self.begin(&up, &mut duty).await?;
        self.apply_or_repair(&up, &mut duty, &ruleset::added(up.scope.slot, &lease)).await
    }

    /// Takes a VM's port back; nothing where it has none.
    ///
    /// # Errors
    /// [`NetworkError`]; it still has its port then, and a second try is the same.
    pub async fn release(self: &Arc<Self>, id: &str) -> Result<(), NetworkError> {
        if !self.has(id) {
            return Ok(());
        }
        // A VM of an earlier daemon's goes: what that daemon made is taken over first, so that it is known what to change.
        let up = match self.up().await {
            Ok(up) => up,
            Err(error) => {
                let error = crate::api::error::chain(&error);
                tracing::warn!(
                    error,
                    "there is no network; a VM's port in it is forgotten, and goes when there is one again"
                );
                self.leases().remove(id);
                return Ok(());
            }
        };
        let mut duty = self.duty.lock().await;
        let Some(held) = self.leases().remove(id) else { return Ok(()) };
        if held.admitted
            && let Err(error) =
                self.apply_or_repair(&up, &mut duty, &ruleset::removed(up.scope.slot, &held.lease)).await
        {
            self.leases().insert(id.to_owned(), held);
            return Err(error);
        }
        lock(&up.host).give_back(held.lease.tap);
        self.level(&up);
        if !self.is_in_use()
            && let Err(error) = self.end(&up, &mut duty).await
        {
            // The VM has its end all the same, and the watch tries again.
            let error = crate::api::error::chain(&error);
            tracing::warn!(error, "what only VMs need stays on the host for now");
            self.nudge.notify_one();
        }
        Ok(())
    }

    /// The devices that are the network's, as far as it is made.
    pub async fn devices(&self) -> Devices {
        let ports = self.taps_in_use();
        let host = self.up.read().await.as_ref().map(|up| Arc::clone(&up.host));
        let Some(host) = host else { return Devices { is_up: false, ports, waiting: Vec::new() } };
        let waiting = blocking(move || lock(&host).waiting()).await;
        Devices { is_up: true, ports, waiting }
    }

    /// Removes all of it, so that the host is as it was before the first VM; nothing where VMs have ports. It is made again when
    /// it is wanted again.
    ///
    /// # Errors
    /// [`NetworkError`]; a second try is the same.
    pub async fn clear(&self) -> Result<(), NetworkError> {
        let mut slot = self.up.write().await;
        let mut duty = self.duty.lock().await;
        let (Some(up), false) = (slot.as_ref(), self.is_in_use()) else { return Ok(()) };
        self.end(up, &mut duty).await?;
        self.nft.apply(&ruleset::none(up.scope.slot)).await?;
        let host = Arc::clone(&up.host);
        blocking(move || lock(&host).clear()).await?;
        *duty = Duty::default();
        *slot = None;
        Ok(())
    }

    async fn up(self: &Arc<Self>) -> Result<RwLockReadGuard<'_, Up>, NetworkError> {
        loop {
            if let Ok(up) = RwLockReadGuard::try_map(self.up.read().await, Option::as_ref) {
                return Ok(up);
            }
            let mut slot = self.up.write().await;
            if slot.is_none() {
                *slot = Some(self.make().await?);
            }
        }
    }

    async fn make(self: &Arc<Self>) -> Result<Up, NetworkError> {
        // Before anything is looked at, so that no change is missed.
        let events = Events::open()?;
        let plan = self.plan();
        let host = blocking(move || Host::make(&plan));
        let (host, lists) = tokio::join!(host, self.nft.can_list());
        let host = host?;
        let scope = Scope { slot: host.slot(), subnet: host.subnet() };
        self.warn_of_other_slots(scope.slot);
        let watch = watch::follow(Arc::downgrade(self), events, Arc::clone(&self.nudge));
        let watch = tokio::spawn(watch).abort_handle();
        let up = Up { scope, host: Arc::new(Mutex::new(host)), watch };
        let mut duty = self.duty.lock().await;
        *duty = Duty::default();
        let ruled = async {
            lists?;
            self.make_own(&up, &mut duty).await?;
            if self.is_in_use() { self.begin(&up, &mut duty).await } else { Ok(()) }
        };
        if let Err(error) = ruled.await {
            // What VMs of an earlier daemon use stays.
            if !self.is_in_use()
                && let Err(also) = blocking(move || lock(&up.host).clear()).await
            {
                let also = crate::api::error::chain(&also);
                tracing::warn!(error = also, "the links of a network that cannot be made stay for now");
            }
            return Err(error);
        }
        *self.had() = Some(scope.subnet);
        self.level(&up);
        // What an earlier daemon has left elsewhere is taken over, or back.
        self.nudge.notify_one();
        Ok(up)
    }

    /// Names the VMs that have no network, because their TAPs are those of another slot than the claimed one.
    fn warn_of_other_slots(&self, slot: Slot) {
        for (vm, Held { lease, .. }) in self.leases().iter() {
            if !is_numbered(&slot.taps(), &lease.tap) {
                tracing::warn!(vm, tap = lease.tap, "a VM has the network device of another slot; restart the VM");
            }
        }
    }

    fn plan(&self) -> Plan {
        Plan {
            claimant: self.claimant.clone(),
            wanted: self.wanted,
            had: *self.had(),
            used: self.taps_in_use(),
            records: self.records.clone(),
        }
    }

    /// Has one change done; where that fails, all anew.
    async fn apply_or_repair(&self, up: &Up, duty: &mut Duty, change: &str) -> Result<(), NetworkError> {
        match self.nft.apply(change).await {
            Err(NftError::Refused { said }) => {
                tracing::warn!(said, "the rules are made anew");
                self.make_own(up, duty).await
            }
            applied => Ok(applied?),
        }
    }

    /// Sees to it, behind, that as many TAPs wait as shall.
    fn level(&self, up: &Up) {
        let (host, waiting) = (Arc::clone(&up.host), self.waiting);
        drop(tokio::task::spawn_blocking(move || {
            loop {
                // One at a time: who claims meanwhile comes in between.
                match lock(&host).level(waiting) {
                    Ok(false) => {}
                    Ok(true) => return,
                    Err(error) => {
                        let error = crate::api::error::chain(&error);
                        return tracing::warn!(error, "the TAPs that wait are not as many as shall");
                    }
                }
            }
        }));
    }

    /// Whether VMs have ports.
    pub(super) fn is_in_use(&self) -> bool {
        !self.leases().is_empty()
    }

    pub(super) fn taps_in_use(&self) -> Vec<String> {
        self.leases().values().map(|held| held.lease.tap.clone()).collect()
    }

    pub(super) fn leases(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn had(&self) -> MutexGuard<'_, Option<Subnet>> {
        self.had.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::Choice;
    use crate::net::Unfit;
    use banger_linux::netlink::Netlink;
    use banger_linux::process::{Launch, Process, Program, Stream};
    use banger_linux::{netns, tap};
    use std::io::{Read, Seek};
    use tempfile::TempDir;

    /// Runs a test in a network of its own.
    fn elsewhere<F: Future<Output = ()>>(test: impl FnOnce(TempDir) -> F + Send) {
        // Threads for blocking work are made by the one that this is, and are where it is.
        let ran = netns::in_new_network(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
                .block_on(test(crate::ground::private_directory()));
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }

    /// What nft says.
    async fn nft_says(args: &[&str]) -> String {
        let mut said = banger_linux::file::in_memory("said").unwrap();
        let mut launch = Launch::new(Program::Nft, args.iter().copied());
        launch.stdout = Stream::Fd(said.try_clone().unwrap().into());
        Process::start(launch).unwrap().ended().await.unwrap();
        let mut text = String::new();
        said.rewind().unwrap();
        said.read_to_string(&mut text).unwrap();
        text
    }

    async fn elements(set: &str) -> String {
        let text = nft_says(&["list", "set", "bridge", &Slot::FIRST.table(), set]).await;
        text.split_once("elements = {")
            .map_or(String::new(), |(_, rest)| rest.split('}').next().unwrap_or("").trim().to_owned())
    }

    /// Another test's child may have the descriptor until it executes its program.
    fn until_closed(name: &str) {
        let mut netlink = Netlink::open().unwrap();
        while netlink.link(name).unwrap().unwrap().carrier {
            std::thread::yield_now();
        }
    }

    fn network(dir: &TempDir, wanted: Option<Subnet>, had: Option<Subnet>, waiting: usize) -> Network {
        Network::new(Claimant::of_a_test(1), wanted, had, waiting, Records::of_a_test(dir))
    }

    fn until_gone(name: &str) {
        let mut netlink = Netlink::open().unwrap();
        while netlink.link(name).unwrap().is_some() {
            std::thread::yield_now();
        }
    }

    fn address(network: Subnet, number: u8) -> Ipv4Addr {
        let [a, b, c, _] = network.host().octets();
        Ipv4Addr::new(a, b, c, number)
    }

    #[test]
    fn a_port_has_rules_from_its_admission_to_its_release() {
        elsewhere(async |dir| {
            let network = Arc::new(network(&dir, None, None, 0));
            let subnet = network.scope().await.unwrap().subnet;
            let port = network.claim("a", address(subnet, 2), Reach::Everybody).await.unwrap();
            assert_eq!(elements("pinned").await, "");
            network.admit("a").await.unwrap();
            assert_eq!(elements("pinned").await, "\"tap-pool-0\" . 02:62:0a:89:4d:02 . 10.137.77.2");
            let other = network.claim("b", address(subnet, 3), Reach::Names).await.unwrap();
            network.admit("b").await.unwrap();
            assert_eq!(elements("isolated").await, "\"tap-pool-1\"");
            drop(port);
            until_closed("tap-pool-0");
            network.release("a").await.unwrap();
            network.release("a").await.unwrap();
            assert_eq!(elements("pinned").await, "\"tap-pool-1\" . 02:62:0a:89:4d:03 . 10.137.77.3");
            // None shall wait, so its TAP goes.
            until_gone("tap-pool-0");
            assert_eq!(network.claim("c", address(subnet, 4), Reach::Everybody).await.unwrap().tap, "tap-pool-2");
            drop(other);
        });
    }

    #[test]
    fn rules_that_somebody_has_flushed_are_made_anew() {
        elsewhere(async |dir| {
            let network = Arc::new(network(&dir, None, None, 0));
            let subnet = network.scope().await.unwrap().subnet;
            for (id, number) in [("a", 2), ("b", 3)] {
                drop(network.claim(id, address(subnet, number), Reach::Everybody).await.unwrap());
                network.admit(id).await.unwrap();
            }
            Nft::default().apply("flush ruleset").await.unwrap();
            network.release("a").await.unwrap();
            assert_eq!(elements("pinned").await, "\"tap-pool-1\" . 02:62:0a:89:4d:03 . 10.137.77.3");
            Nft::default().apply("flush ruleset").await.unwrap();
            drop(network.claim("c", address(subnet, 4), Reach::Everybody).await.unwrap());
            network.admit("c").await.unwrap();
            assert_eq!(elements("pinned").await.matches("tap-pool-").count(), 2);
        });
    }

    #[test]
    fn the_next_daemon_has_the_same_subnet_leases_and_taps() {
        elsewhere(async |dir| {
            let before = Arc::new(network(&dir, Some("10.99.0.0/24".parse().unwrap()), None, 0));
            let subnet = before.scope().await.unwrap().subnet;
            let port = before.claim("a", address(subnet, 2), Reach::Names).await.unwrap();
            before.admit("a").await.unwrap();
            let idle = before.claim("b", address(subnet, 3), Reach::Everybody).await.unwrap();
            drop((before, idle));
            until_closed("tap-pool-1");
            let lease =
                Lease { tap: port.tap.clone(), mac: port.mac, address: address(subnet, 2), reach: Reach::Names };
            let after = Arc::new(network(&dir, None, Some(subnet), 1));
            after.adopt("a", lease);
            assert_eq!(after.scope().await.unwrap().subnet, subnet);
            assert_eq!(elements("pinned").await, "\"tap-pool-0\" . 02:62:0a:63:00:02 . 10.99.0.2");
            assert_eq!(after.claim("c", address(subnet, 4), Reach::Everybody).await.unwrap().tap, "tap-pool-1");
            // What VMs have stays.
            after.clear().await.unwrap();
            assert_eq!(elements("isolated").await, "\"tap-pool-0\"");
            drop(port);
            for id in ["a", "c"] {
                after.release(id).await.unwrap();
            }
            after.clear().await.unwrap();
            assert_eq!(nft_says(&["list", "ruleset"]).await, "");
            assert_eq!(Netlink::open().unwrap().links().unwrap().len(), 1);
        });
    }

    #[test]
    fn a_vm_with_a_tap_of_another_slot_is_not_on_the_bridge_and_leaves_the_tap_alone() {
        elsewhere(async |dir| {
            let network = Arc::new(network(&dir, None, None, 1));
            let end = tap::make("tap-pool7-0").unwrap();
            tap::keep(&end).unwrap();
            let address = Ipv4Addr::new(10, 137, 77, 2);
            let (tap, mac) = ("tap-pool7-0".to_owned(), addresses::mac(address));
            network.adopt("a", Lease { tap, mac, address, reach: Reach::Everybody });
            network.scope().await.unwrap();
            network.repair().await.unwrap();
            let link = || Netlink::open().unwrap().link("tap-pool7-0").unwrap().unwrap();
            assert_eq!(link().master, None);
            drop(end);
            network.release("a").await.unwrap();
            let waiting = async { while network.devices().await.waiting != ["tap-pool-0"] {} };
            tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await.unwrap();
            network.clear().await.unwrap();
            assert_eq!(link().master, None);
        });
    }

    #[test]
    fn as_many_taps_wait_as_shall() {
        elsewhere(async |dir| {
            let network = Arc::new(network(&dir, None, None, 3));
            let subnet = network.scope().await.unwrap().subnet;
            drop(network.claim("a", address(subnet, 2), Reach::Everybody).await.unwrap());
            // Whoever comes after the refilling one has the lock when it is done.
            let host = Arc::clone(&network.up().await.unwrap().host);
            let idle = async || {
                let host = Arc::clone(&host);
                blocking(move || lock(&host).idle()).await
            };
            tokio::time::timeout(std::time::Duration::from_secs(10), async { while idle().await < 3 {} })
                .await
                .unwrap();
            assert_eq!(Netlink::open().unwrap().links().unwrap().len(), 1 + 2 + 4);
        });
    }

    #[test]
    fn they_are_made_before_anybody_asks_and_those_that_are_too_many_go() {
        elsewhere(async |dir| {
            let waiting = async |network: Arc<Network>, wanted: usize| {
                network.scope().await.unwrap();
                let enough = async { while network.devices().await.waiting.len() != wanted {} };
                tokio::time::timeout(std::time::Duration::from_secs(10), enough).await.unwrap();
                network.devices().await.waiting
            };
            let made = waiting(Arc::new(network(&dir, None, None, 3)), 3).await;
            for name in &made {
                until_closed(name);
            }
            assert_eq!(waiting(Arc::new(network(&dir, None, None, 1)), 1).await, made[..1]);
            assert_eq!(waiting(Arc::new(network(&dir, None, None, 0)), 0).await, [""; 0]);
            assert_eq!(Netlink::open().unwrap().links().unwrap().len(), 1 + 2);
        });
    }

    #[test]
    fn two_grounds_have_two_of_everything_and_each_clears_its_own() {
        elsewhere(async |dir| {
            let first = Arc::new(network(&dir, None, None, 1));
            let second = Network::new(Claimant::of_a_test(2), None, None, 1, Records::of_a_test(&dir));
            let second = Arc::new(second);
            let mut ports = Vec::new();
            for (network, slot) in [(&first, 0), (&second, 1)] {
                let scope = network.scope().await.unwrap();
                assert_eq!(scope.slot.number(), slot);
                let port = network.claim("a", address(scope.subnet, 2), Reach::Names).await.unwrap();
                network.admit("a").await.unwrap();
                assert!(port.tap.starts_with(&scope.slot.taps()));
                assert_eq!(network.unfit().await.unwrap(), Unfit::default());
                ports.push(port);
            }
            assert_ne!(first.scope().await.unwrap().subnet, second.scope().await.unwrap().subnet);
            let theirs = nft_says(&["list", "table", "inet", "banger1"]).await;
            drop(ports);
            first.release("a").await.unwrap();
            first.clear().await.unwrap();
            assert_eq!(nft_says(&["list", "table", "inet", "banger1"]).await, theirs);
            assert_eq!(first.unfit().await.unwrap(), Unfit::default());
            assert_eq!(second.unfit().await.unwrap(), Unfit::default());
            assert!(!first.is_left().await && second.is_left().await);
            second.release("a").await.unwrap();
            second.clear().await.unwrap();
            assert_eq!(nft_says(&["list", "ruleset"]).await, "");
            assert_eq!(Netlink::open().unwrap().links().unwrap().len(), 1);
        });
    }

    #[test]
    fn what_cannot_be_is_told_with_what_to_do() {
        elsewhere(async |dir| {
            let mut netlink = Netlink::open().unwrap();
            netlink.add_bridge("banger0", Mac([0x52, 0x54, 0, 0, 0, 1])).unwrap();
            let claimant = Claimant { choice: Choice::Fixed(Slot::FIRST), ..Claimant::of_a_test(1) };
            let network = Arc::new(Network::new(claimant, None, None, 0, Records::of_a_test(&dir)));
            let error = network.scope().await.unwrap_err();
            assert!(error.help().is_some_and(|help| help.starts_with("set `slot` below `[ground]`")));
            assert_eq!(nft_says(&["list", "ruleset"]).await, "");
            // Tried again once the cause is gone.
            let link = netlink.link("banger0").unwrap().unwrap();
            netlink.remove_link(&link).unwrap();
            assert!(network.scope().await.is_ok());
        });
    }
}
