//! The network of a daemon. It is made when the first VM wants it, and no sooner: a daemon without VMs leaves the host as it
//! found it.
//!
//! Who has which lease is known here; the rules follow. One lease more or less is one element in them, and where that fails
//! they are made anew from all that is known, so that it does not matter what became of them meanwhile.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use banger_linux::netlink::{Link, Mac, Netlink, NetlinkError};
use tokio::sync::{Mutex as AsyncMutex, OnceCell};

use super::addresses::{self, Subnet};
use super::bridge::{self, BridgeError};
use super::forwarding::{self, ForwardingError};
use super::nft::{self, NftError};
use super::ruleset::{self, Ground, Lease, Reach};
use super::taps::{Tap, TapError, Taps};
use crate::context::blocking;
use crate::paths::{BRIDGE, TAPS};

/// Why a VM has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There is no bridge for it.
    #[error("cannot set up the network of VMs")]
    Bridge(#[from] BridgeError),
    /// There is no TAP for it.
    #[error("cannot give a VM its network device")]
    Tap(#[from] TapError),
    /// There are no rules for it.
    #[error("cannot set up the rules of VMs' network")]
    Rules(#[from] NftError),
    /// Nothing goes between guests and the world.
    #[error("cannot let VMs reach the world")]
    Forwarding(#[from] ForwardingError),
    /// The kernel is not spoken to.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl NetworkError {
    /// What to do.
    pub fn help(&self) -> Option<&'static str> {
        let without = "or create VMs with --net none";
        match self {
            NetworkError::Bridge(BridgeError::Foreign { .. }) => {
                Some("give that device another name: ip link set banger0 name OTHER; or create VMs with --net none")
            }
            NetworkError::Bridge(BridgeError::Taken { .. }) => Some("name another subnet in the configuration"),
            NetworkError::Bridge(BridgeError::NoneFree) => Some("name a subnet in the configuration"),
            NetworkError::Rules(NftError::Missing) => Some("install it: apt install nftables"),
            NetworkError::Bridge(BridgeError::Netlink(error)) | NetworkError::Netlink(error)
                if error.is_forbidden() =>
            {
                Some("run the daemon as root, or create VMs with --net none")
            }
            _ => Some(without).filter(|_| matches!(self, NetworkError::Tap(_))),
        }
    }
}

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
    had: Option<Subnet>,
    /// How many TAPs shall wait.
    waiting: usize,
    up: OnceCell<Up>,
    /// By the VM's id.
    leases: Mutex<BTreeMap<String, Lease>>,
    /// Held while rules are changed, so that none is lost between two who change them.
    rules: AsyncMutex<()>,
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

#[derive(Debug)]
struct Up {
    subnet: Subnet,
    host: Arc<Mutex<Host>>,
}

/// What is done on the host, one after the other.
#[derive(Debug)]
struct Host {
    netlink: Netlink,
    taps: Taps,
}

impl Network {
    /// A network that is made later: with the subnet that is wanted, else with that of an earlier daemon, if there was one.
    pub fn new(wanted: Option<Subnet>, had: Option<Subnet>, waiting: usize) -> Network {
        Network { wanted, had, waiting, up: OnceCell::new(), leases: Mutex::default(), rules: AsyncMutex::default() }
    }

    /// The guests' subnet. With this the bridge is there, and the rules are.
    ///
    /// # Errors
    /// [`NetworkError`]; the next call tries again.
    pub async fn subnet(&self) -> Result<Subnet, NetworkError> {
        Ok(self.up().await?.subnet)
    }

    /// Remembers a VM that runs since an earlier daemon, before anything else is asked for.
    pub fn adopt(&self, id: &str, lease: Lease) {
        self.leases().insert(id.to_owned(), lease);
    }

    /// Whether a VM has a port.
    pub fn has(&self, id: &str) -> bool {
        self.leases().contains_key(id)
    }

    /// Gives a VM a port. What comes out of it is dropped until it is [admitted](Network::admit).
    ///
    /// # Errors
    /// [`NetworkError`].
    pub async fn claim(self: &Arc<Self>, id: &str, address: Ipv4Addr, reach: Reach) -> Result<Port, NetworkError> {
        let host = Arc::clone(&self.up().await?.host);
        let claimed = blocking(move || lock(&host).claim()).await;
        let Tap { name, end } = claimed?;
        let mac = addresses::mac(address);
        self.leases().insert(id.to_owned(), Lease { tap: name.clone(), mac, address, reach });
        self.refill();
        Ok(Port { tap: name, end, mac })
    }

    /// Lets a VM's packets through.
    ///
    /// # Errors
    /// [`NetworkError::Rules`].
    pub async fn admit(&self, id: &str) -> Result<(), NetworkError> {
        let Some(lease) = self.leases().get(id).cloned() else { return Ok(()) };
        let _changing = self.rules.lock().await;
        self.apply_or_repair(&ruleset::added(&lease)).await
    }

    /// Takes a VM's port back; nothing where it has none.
    ///
    /// # Errors
    /// [`NetworkError`]; it still has its port then, and a second try is the same.
    pub async fn release(self: &Arc<Self>, id: &str) -> Result<(), NetworkError> {
        // A VM of an earlier daemon's goes: what that daemon made is taken over first, so that it is known what to change.
        if self.has(id)
            && let Err(error) = self.up().await
        {
            let error = crate::api::error::chain(&error);
            tracing::warn!(
                error,
                "there is no network; a VM's port in it is forgotten, and goes when there is one again"
            );
        }
        let _changing = self.rules.lock().await;
        let Some(lease) = self.leases().remove(id) else { return Ok(()) };
        if let Err(error) = self.apply_or_repair(&ruleset::removed(&lease)).await {
            self.leases().insert(id.to_owned(), lease);
            return Err(error);
        }
        if let Some(up) = self.up.get() {
            lock(&up.host).taps.give_back(lease.tap);
        }
        Ok(())
    }

    /// The devices that are the network's, as far as it is made.
    pub async fn devices(&self) -> Devices {
        let ports = self.leases().values().map(|lease| lease.tap.clone()).collect();
        let Some(up) = self.up.get() else { return Devices { is_up: false, ports, waiting: Vec::new() } };
        let host = Arc::clone(&up.host);
        let waiting = blocking(move || lock(&host).taps.names()).await;
        Devices { is_up: true, ports, waiting }
    }

    /// Removes all of it but what VMs have.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub async fn clear(&self) -> Result<(), NetworkError> {
        let _changing = self.rules.lock().await;
        let (Some(up), true) = (self.up.get(), self.leases().is_empty()) else { return Ok(()) };
        nft::apply(&ruleset::none()).await?;
        let host = Arc::clone(&up.host);
        blocking(move || lock(&host).clear()).await
    }

    async fn up(&self) -> Result<&Up, NetworkError> {
        self.up
            .get_or_try_init(async || {
                let (wanted, had) = (self.wanted, self.had);
                let used: Vec<String> = self.leases().values().map(|lease| lease.tap.clone()).collect();
                let made = blocking(move || Host::make(wanted, had, &used)).await;
                let (subnet, host) = made?;
                let leases: Vec<Lease> = self.leases().values().cloned().collect();
                nft::apply(&ruleset::tables(&ground(subnet), &leases)).await?;
                Ok(Up { subnet, host: Arc::new(Mutex::new(host)) })
            })
            .await
    }

    /// Has one change done; where that fails, all anew.
    async fn apply_or_repair(&self, change: &str) -> Result<(), NetworkError> {
        let Some(up) = self.up.get() else { return Ok(()) };
        match nft::apply(change).await {
            Err(NftError::Refused { said }) => {
                tracing::warn!(said, "the rules are made anew");
                let leases: Vec<Lease> = self.leases().values().cloned().collect();
                Ok(nft::apply(&ruleset::tables(&ground(up.subnet), &leases)).await?)
            }
            applied => Ok(applied?),
        }
    }

    /// Sees to it, behind, that as many TAPs wait as shall.
    fn refill(self: &Arc<Self>) {
        let (Some(up), waiting) = (self.up.get(), self.waiting) else { return };
        let host = Arc::clone(&up.host);
        drop(tokio::task::spawn_blocking(move || {
            loop {
                // One at a time: who claims meanwhile comes in between.
                let mut host = lock(&host);
                if host.taps.idle() >= waiting {
                    return;
                }
                if let Err(error) = host.add() {
                    tracing::warn!(error = crate::api::error::chain(&error), "no TAP can be made ahead");
                    return;
                }
            }
        }));
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Lease>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    fn make(wanted: Option<Subnet>, had: Option<Subnet>, used: &[String]) -> Result<(Subnet, Host), NetworkError> {
        let mut netlink = Netlink::open()?;
        let subnet = bridge::choose(&mut netlink, BRIDGE, wanted, had)?;
        let link = bridge::ensure(&mut netlink, BRIDGE, subnet)?;
        forwarding::switch_on(&mut netlink, &link)?;
        let taps = Taps::adopt(&mut netlink, TAPS, &link, |name| used.iter().any(|used| used == name))?;
        Ok((subnet, Host { netlink, taps }))
    }

    fn claim(&mut self) -> Result<Tap, NetworkError> {
        Ok(self.taps.claim(&mut self.netlink)?)
    }

    fn add(&mut self) -> Result<(), TapError> {
        self.taps.add(&mut self.netlink)
    }

    fn clear(&mut self) -> Result<(), NetworkError> {
        self.taps.clear(&mut self.netlink)?;
        let found: Option<Link> = bridge::find(&mut self.netlink, BRIDGE)?;
        match found.map(|link| self.netlink.remove_link(&link)) {
            Some(Err(error)) if !error.is_missing() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

fn ground(subnet: Subnet) -> Ground<'static> {
    Ground { bridge: BRIDGE, taps: TAPS, subnet }
}

fn lock(host: &Mutex<Host>) -> std::sync::MutexGuard<'_, Host> {
    host.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_linux::netns;
    use banger_linux::process::{Launch, Process, Program, Stream};
    use std::io::{Read, Seek};

    /// Runs a test in a network of its own.
    fn elsewhere<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send) {
        // Threads for blocking work are made by the one that this is, and are where it is.
        let ran = netns::in_new_network(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
        });
        if let Err(error) = ran {
            eprintln!("SKIPPED: no network namespace can be made: {error}");
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
        let text = nft_says(&["list", "set", "bridge", ruleset::TABLE, set]).await;
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

    fn address(network: Subnet, number: u8) -> Ipv4Addr {
        let [a, b, c, _] = network.host().octets();
        Ipv4Addr::new(a, b, c, number)
    }

    #[test]
    fn a_port_has_rules_from_its_admission_to_its_release() {
        elsewhere(async || {
            let network = Arc::new(Network::new(None, None, 0));
            let subnet = network.subnet().await.unwrap();
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
            // Its TAP is the next one's.
            assert_eq!(network.claim("c", address(subnet, 4), Reach::Everybody).await.unwrap().tap, "tap-pool-0");
            drop(other);
        });
    }

    #[test]
    fn rules_that_somebody_has_flushed_are_made_anew() {
        elsewhere(async || {
            let network = Arc::new(Network::new(None, None, 0));
            let subnet = network.subnet().await.unwrap();
            for (id, number) in [("a", 2), ("b", 3)] {
                drop(network.claim(id, address(subnet, number), Reach::Everybody).await.unwrap());
                network.admit(id).await.unwrap();
            }
            nft::apply("flush ruleset").await.unwrap();
            network.release("a").await.unwrap();
            assert_eq!(elements("pinned").await, "\"tap-pool-1\" . 02:62:0a:89:4d:03 . 10.137.77.3");
            nft::apply("flush ruleset").await.unwrap();
            drop(network.claim("c", address(subnet, 4), Reach::Everybody).await.unwrap());
            network.admit("c").await.unwrap();
            assert_eq!(elements("pinned").await.matches("tap-pool-").count(), 2);
        });
    }

    #[test]
    fn the_next_daemon_has_the_same_subnet_leases_and_taps() {
        elsewhere(async || {
            let before = Arc::new(Network::new(Some("10.99.0.0/24".parse().unwrap()), None, 0));
            let subnet = before.subnet().await.unwrap();
            let port = before.claim("a", address(subnet, 2), Reach::Names).await.unwrap();
            before.admit("a").await.unwrap();
            let idle = before.claim("b", address(subnet, 3), Reach::Everybody).await.unwrap();
            drop((before, idle));
            until_closed("tap-pool-1");
            let lease =
                Lease { tap: port.tap.clone(), mac: port.mac, address: address(subnet, 2), reach: Reach::Names };
            let after = Arc::new(Network::new(None, Some(subnet), 0));
            after.adopt("a", lease);
            assert_eq!(after.subnet().await.unwrap(), subnet);
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
    fn as_many_taps_wait_as_shall() {
        elsewhere(async || {
            let network = Arc::new(Network::new(None, None, 3));
            let subnet = network.subnet().await.unwrap();
            drop(network.claim("a", address(subnet, 2), Reach::Everybody).await.unwrap());
            // Whoever comes after the refilling one has the lock when it is done.
            let host = Arc::clone(&network.up().await.unwrap().host);
            let idle = async || {
                let host = Arc::clone(&host);
                blocking(move || lock(&host).taps.idle()).await
            };
            tokio::time::timeout(std::time::Duration::from_secs(10), async { while idle().await < 3 {} })
                .await
                .unwrap();
            assert_eq!(Netlink::open().unwrap().links().unwrap().len(), 1 + 1 + 4);
        });
    }

    #[test]
    fn what_cannot_be_is_told_with_what_to_do() {
        elsewhere(async || {
            let mut netlink = Netlink::open().unwrap();
            netlink.add_bridge(BRIDGE, Mac([0x52, 0x54, 0, 0, 0, 1])).unwrap();
            let network = Arc::new(Network::new(None, None, 0));
            let error = network.subnet().await.unwrap_err();
            assert!(error.help().is_some_and(|help| help.starts_with("give that device another name")));
            assert_eq!(nft_says(&["list", "ruleset"]).await, "");
            // Tried again once the cause is gone.
            let link = netlink.link(BRIDGE).unwrap().unwrap();
            netlink.remove_link(&link).unwrap();
            assert!(network.subnet().await.is_ok());
        });
    }
}
