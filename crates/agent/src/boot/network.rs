//! The guest's network: its card gets its address, a way to everywhere and somebody to ask for names, before the init starts.

use std::fs;
use std::io::{self, PipeReader, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use banger_linux::fork::Side;
use banger_linux::netlink::{Link, LinkChange, Netlink, NetlinkError};
use banger_linux::uevent::Uevents;
use banger_protocol::boot::Network;

use super::in_one_line;
use super::modules::Module;

/// How long the card may take to appear, once its module is loaded. It takes some milliseconds.
const APPEARS_WITHIN: Duration = Duration::from_secs(2);

/// The first line of a `resolv.conf` of ours. Without it, it is the guest's own and stays.
const MARK: &str = "# By banger, at each boot. Without this line it stays as it is.";

/// Why the guest has no network.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// There is no such card.
    #[error("no network card with the address {mac} appeared within {} s", APPEARS_WITHIN.as_secs())]
    NoCard {
        /// Its hardware address.
        mac: String,
    },
    /// The kernel does not do it.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel's announcements cannot be heard.
    #[error("cannot listen for network cards")]
    Listen(#[source] io::Error),
    /// The names' server could not be written down.
    #[error("cannot write /etc/resolv.conf")]
    Resolver(#[source] io::Error),
}

/// The module of the cards' driver.
pub const DRIVER: &str = "virtio_net";

/// What brings a link up.
fn up() -> LinkChange {
    LinkChange { up: Some(true), ..LinkChange::default() }
}

/// A network that is being set up, by a process beside this one: loading the driver waits for all processors to pass through a quiet
/// state, and so does mounting a disk.
#[derive(Debug)]
pub struct Begun {
    network: Network,
    /// What stands against it; ends with the process.
    said: PipeReader,
}

/// Begins to set it up. Nothing is returned in the process that does it, when that is done: it has only to end.
///
/// # Errors
/// Those of pipe(2) and of [`banger_linux::fork::fork`].
pub fn begin(network: &Network, driver: &[Module]) -> io::Result<Option<Begun>> {
    let (said, mut saying) = io::pipe()?;
    match banger_linux::fork::fork()? {
        // Whoever is init then reaps it.
        Side::Parent(_) => Ok(Some(Begun { network: network.clone(), said })),
        Side::Child => {
            driver.iter().for_each(Module::load_or_log);
            if let Err(error) = set_up(network) {
                // The first process, which reads this, outlives this one.
                drop(saying.write_all(in_one_line(&error).as_bytes()));
            }
            Ok(None)
        }
    }
}

impl Begun {
    /// Waits until it is set up, and writes down whom to ask for names.
    ///
    /// # Errors
    /// In one line, why there is no network, or no names; what is set up by then stays.
    pub fn finish(mut self, root: &Path) -> Result<(), String> {
        let mut said = String::new();
        // A pipe that cannot be read says nothing, as one without an error does.
        drop(self.said.read_to_string(&mut said));
        write_resolver(&self.network, root).map_err(|error| in_one_line(&NetworkError::Resolver(error)))?;
        if said.is_empty() { Ok(()) } else { Err(said) }
    }
}

/// Sets up what a guest has that is in no network, too: its loopback device, on which the daemon's users connect to it.
///
/// # Errors
/// [`NetworkError::Netlink`].
pub fn set_up_loopback() -> Result<(), NetworkError> {
    loopback_up(&mut Netlink::open()?)
}

fn loopback_up(netlink: &mut Netlink) -> Result<(), NetworkError> {
    match netlink.link("lo")? {
        Some(loopback) => Ok(netlink.change_link(&loopback, &up())?),
        None => Ok(()),
    }
}

fn set_up(network: &Network) -> Result<(), NetworkError> {
    let mut netlink = Netlink::open()?;
    loopback_up(&mut netlink)?;
    let card = find(&mut netlink, network)?;
    match netlink.add_address(&card, network.address, network.prefix) {
        Err(error) if !error.is_there() => return Err(error.into()),
        _ => {}
    }
    netlink.change_link(&card, &up())?;
    Ok(netlink.set_default_route(&card, network.gateway)?)
}

fn find(netlink: &mut Netlink, network: &Network) -> Result<Link, NetworkError> {
    // Before the first look: what appears after it is announced.
    let cards = Uevents::open().map_err(NetworkError::Listen)?;
    let deadline = Instant::now() + APPEARS_WITHIN;
    loop {
        let found = netlink.links()?.into_iter().find(|link| link.mac.to_string() == network.mac);
        if let Some(card) = found {
            return Ok(card);
        }
        if !cards.wait("net", deadline).map_err(NetworkError::Listen)? {
            return Err(NetworkError::NoCard { mac: network.mac.clone() });
        }
    }
}

/// Writes down whom to ask for names, unless somebody in the guest has decided that: a file without our mark, or a link.
fn write_resolver(network: &Network, root: &Path) -> io::Result<()> {
    let path = root.join("etc/resolv.conf");
    let ours = match fs::symlink_metadata(&path) {
        Ok(found) if found.is_file() => {
            let text = fs::read_to_string(&path)?;
            text.trim().is_empty() || text.starts_with(MARK)
        }
        Ok(_) => false,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error),
    };
    if !ours {
        return Ok(());
    }
    let text = format!("{MARK}\nnameserver {}\nsearch {}\n", network.gateway, network.domain);
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let new = path.with_extension("conf.banger-new");
    fs::write(&new, text)?;
    fs::rename(&new, &path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use banger_linux::netlink::Mac;
    use banger_linux::netns;

    use super::*;

    fn network() -> Network {
        Network {
            mac: "02:62:0a:4d:00:02".to_owned(),
            address: [10, 77, 0, 2].into(),
            prefix: 24,
            gateway: [10, 77, 0, 1].into(),
            domain: "vm".to_owned(),
        }
    }

    fn root() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        dir
    }

    #[test]
    fn a_card_is_set_up_whenever_it_appears() {
        let ran = netns::in_new_network(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.add_bridge("eth0", Mac([2, 0x62, 10, 77, 0, 2])).unwrap();
            for _ in 0..2 {
                set_up(&network()).unwrap();
            }
            let card = netlink.link("eth0").unwrap().unwrap();
            let of_card = |address: &&banger_linux::netlink::Address| address.link == card.index;
            let addresses = netlink.addresses().unwrap();
            let has: Vec<_> = addresses.iter().filter(of_card).map(|found| (found.address, found.prefix)).collect();
            assert_eq!((has, card.up), (vec![(network().address, 24)], true));
            assert!(netlink.link("lo").unwrap().unwrap().up);
            let default =
                netlink.routes().unwrap().into_iter().find(|route| route.prefix == 0 && route.unicast).unwrap();
            assert_eq!(default.gateway, Some(network().gateway));
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }

    #[test]
    fn a_card_that_never_comes_is_told() {
        let ran = netns::in_new_network(|| set_up(&network()));
        if let Ok(result) = ran {
            assert!(matches!(result, Err(NetworkError::NoCard { mac }) if mac == network().mac));
        }
    }

    #[test]
    fn the_guests_own_resolver_stays() {
        let written = |prepare: &dyn Fn(&Path)| {
            let dir = root();
            let path = dir.path().join("etc/resolv.conf");
            prepare(&path);
            write_resolver(&network(), dir.path()).unwrap();
            write_resolver(&network(), dir.path()).unwrap();
            fs::read_to_string(&path).unwrap_or_default()
        };
        let ours = format!("{MARK}\nnameserver 10.77.0.1\nsearch vm\n");
        assert_eq!(written(&|_| ()), ours);
        assert_eq!(written(&|path| fs::write(path, "\n").unwrap()), ours);
        assert_eq!(written(&|path| fs::write(path, format!("{MARK}\nnameserver 10.0.0.1\n")).unwrap()), ours);
        assert_eq!(written(&|path| fs::write(path, "nameserver 9.9.9.9\n").unwrap()), "nameserver 9.9.9.9\n");
        assert_eq!(written(&|path| symlink("../run/stub.conf", path).unwrap()), "");
    }
}
