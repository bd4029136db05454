//! The names of this daemon's VMs, and who answers for them: one server for the host, one for guests. They begin with the
//! network, and a daemon without one listens nowhere.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use banger_api::name::HOST;
use tokio::sync::watch;

use super::domain::Domain;
use super::server::{Server, Service, Zones, loopback};
use super::upstream::{PORT, RESOLV_CONF, Upstream};
use super::zone::Zone;
use crate::ground::Slot;
use crate::net::addresses::Subnet;

/// The names of a daemon's VMs.
#[derive(Debug)]
pub struct Names {
    /// The configured domain and port. The slot makes the real ones from them.
    domain: Domain,
    /// Where the host is answered, on its loopback address; 0 where it is not.
    port: u16,
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The slot of the network; before there is a network, the slot that the daemon tries first.
    slot: Slot,
    /// By the VM's id.
    vms: BTreeMap<String, (String, Ipv4Addr)>,
    served: Option<Served>,
}

#[derive(Debug)]
struct Served {
    subnet: Subnet,
    zones: Zones,
    host: Result<Server, Refusal>,
    guests: Result<Server, Refusal>,
}

/// Who is not answered, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusals {
    /// The host.
    pub host: Option<String>,
    /// Guests.
    pub guests: Option<String>,
}

/// Why there are no answers at an address.
#[derive(Debug, thiserror::Error)]
#[error("names are not answered at {at}")]
pub struct Refusal {
    /// The address and port.
    pub at: SocketAddrV4,
    /// Why.
    #[source]
    pub source: io::Error,
}

impl Names {
    /// No names yet. `domain` and `port` are those of slot 0; `slot` is the expected slot.
    pub fn new(domain: Domain, port: u16, slot: Slot) -> Names {
        let state = Mutex::new(State { slot, ..State::default() });
        Names { domain, port, state, changed: watch::Sender::new(()) }
    }

    /// The domain.
    pub fn domain(&self) -> Domain {
        self.state().slot.domain(&self.domain)
    }

    /// The slot of the network; before there is a network, the expected slot.
    pub fn slot(&self) -> Slot {
        self.state().slot
    }

    /// Where the host is answered; nothing where the configuration does not want it.
    pub fn for_host(&self) -> Option<SocketAddrV4> {
        let port = self.state().slot.port(self.port);
        (port != 0).then(|| loopback(port))
    }

    /// The host's own name.
    pub fn host(&self) -> String {
        format!("{HOST}.{}", self.domain())
    }

    /// Tells of every change from now on, of names and of where they are answered; of several at once only once.
    pub fn follow(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The subnet that names are answered for, once they are.
    pub fn subnet(&self) -> Option<Subnet> {
        self.state().served.as_ref().map(|served| served.subnet)
    }

    /// All names with their domain, the host's own first, once they are answered.
    pub fn all(&self) -> Vec<(Ipv4Addr, String)> {
        let (domain, host) = (self.domain(), self.host());
        let state = self.state();
        let Some(subnet) = state.served.as_ref().map(|served| served.subnet) else { return Vec::new() };
        let mut vms: Vec<_> = state.vms.values().filter(|(_, address)| subnet.contains(*address)).collect();
        vms.sort_unstable();
        let vms = vms.into_iter().map(|(name, address)| (*address, format!("{name}.{domain}")));
        std::iter::once((subnet.host(), host)).chain(vms).collect()
    }

    /// Answers from now on, as far as possible, with the addresses of this subnet, in the domain and at the port of
    /// this slot. Retries later what it cannot answer yet.
    pub fn serve(&self, slot: Slot, subnet: Subnet) {
        let mut state = self.state();
        if (state.slot, state.served.as_ref().map(|served| served.subnet)) != (slot, Some(subnet)) {
            // The servers of any other network end here.
            (state.slot, state.served) = (slot, None);
        }
        let State { vms, served, .. } = &mut *state;
        let zones =
            served.as_ref().map_or_else(|| Zones::new(self.zone(slot, subnet, vms)), |served| served.zones.clone());
        let again = |server: Option<Result<Server, Refusal>>, at: SocketAddrV4, service: Service| match server {
            Some(Ok(server)) => Ok(server),
            failed => Server::start(at, zones.clone(), service).map_err(|source| {
                let refusal = Refusal { at, source };
                if failed.is_none() {
                    tracing::warn!(error = crate::api::error::chain(&refusal), "names");
                }
                refusal
            }),
        };
        let (host, guests) = served.take().map(|served| (served.host, served.guests)).unzip();
        let off = || Err(Refusal { at: loopback(0), source: io::ErrorKind::Unsupported.into() });
        let host = match slot.port(self.port) {
            0 => off(),
            port => again(host, loopback(port), Service::Host),
        };
        let upstream = Upstream::new(PathBuf::from(RESOLV_CONF));
        let guests = again(guests, SocketAddrV4::new(subnet.host(), PORT), Service::Guests(upstream));
        *served = Some(Served { subnet, zones, host, guests });
        drop(state);
        self.changed.send_replace(());
    }

    /// What a VM is called from now on, and where it is; nothing where it is gone or has no network.
    pub fn tell(&self, id: &str, now: Option<(&str, Ipv4Addr)>) {
        let mut state = self.state();
        let now = now.map(|(name, address)| (name.to_owned(), address));
        if state.vms.get(id) == now.as_ref() {
            return;
        }
        match now {
            Some(now) => state.vms.insert(id.to_owned(), now),
            None => state.vms.remove(id),
        };
        if let Some(served) = &state.served {
            served.zones.set(self.zone(state.slot, served.subnet, &state.vms));
        }
        drop(state);
        self.changed.send_replace(());
    }

    /// Who is not answered where it should be, and why. There is nobody before names are answered at all.
    pub fn refusals(&self) -> Refusals {
        let state = self.state();
        let Some(served) = &state.served else { return Refusals::default() };
        let of = |server: &Result<Server, Refusal>| server.as_ref().err().map(|error| crate::api::error::chain(error));
        Refusals { host: of(&served.host).filter(|_| self.port != 0), guests: of(&served.guests) }
    }

    fn zone(&self, slot: Slot, subnet: Subnet, vms: &BTreeMap<String, (String, Ipv4Addr)>) -> Zone {
        // An address of another subnet than now is one that its VM does not have any more.
        let here = vms.values().filter(|(_, address)| subnet.contains(*address));
        here.fold(Zone::new(slot.domain(&self.domain).as_str(), subnet), |zone, (name, address)| {
            zone.with(name, *address)
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::zone::Found;
    use banger_linux::netlink::{LinkChange, Netlink};
    use banger_linux::netns;

    fn found(names: &Names, name: &str) -> Option<String> {
        let state = names.state();
        let zone = state.served.as_ref()?.zones.now();
        Some(match zone.look_up(name.split('.').rev().map(str::as_bytes)) {
            Found::Address(address) => address.to_string(),
            other => format!("{other:?}"),
        })
    }

    #[test]
    fn names_follow_their_vms_and_are_answered_as_far_as_they_can_be() {
        let ran = netns::in_new_network(|| {
            let mut netlink = Netlink::open().unwrap();
            let lo = netlink.link("lo").unwrap().unwrap();
            netlink.change_link(&lo, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
            let names = Names::new(Domain::default(), 42069, Slot::FIRST);
            names.tell("1", Some(("a", [10, 9, 0, 2].into())));
            names.tell("2", Some(("old", [10, 8, 0, 2].into())));
            assert_eq!((found(&names, "a.vm"), names.refusals(), names.all()), (None, Refusals::default(), vec![]));
            let mut follower = names.follow();
            // Guests' address is not there yet, and the port is somebody's.
            let taken = std::net::UdpSocket::bind(loopback(42069)).unwrap();
            names.serve(Slot::FIRST, "10.9.0.0/24".parse().unwrap());
            let Refusals { host: Some(host), guests: Some(_) } = names.refusals() else { panic!("both are answered") };
            assert!(host.starts_with("names are not answered at 127.0.0.1:42069: "), "{host}");
            drop(taken);
            netlink.add_address(&lo, [10, 9, 0, 1].into(), 24).unwrap();
            names.serve(Slot::FIRST, "10.9.0.0/24".parse().unwrap());
            assert_eq!(names.refusals(), Refusals::default());
            assert!(follower.has_changed().unwrap());
            let all = [([10, 9, 0, 1].into(), "host.vm".to_owned()), ([10, 9, 0, 2].into(), "a.vm".to_owned())];
            assert_eq!(names.all(), all);
            follower.mark_unchanged();
            // What is told twice is no change.
            names.tell("1", Some(("a", [10, 9, 0, 2].into())));
            assert!(!follower.has_changed().unwrap());
            assert_eq!(found(&names, "a.vm").as_deref(), Some("10.9.0.2"));
            // What has an address of a subnet of before has none now.
            assert_eq!(found(&names, "old.vm").as_deref(), Some("Nothing"));
            names.tell("1", Some(("b", [10, 9, 0, 2].into())));
            assert_eq!(found(&names, "a.vm").as_deref(), Some("Nothing"));
            assert_eq!(found(&names, "b.vm").as_deref(), Some("10.9.0.2"));
            names.tell("1", None);
            assert_eq!(found(&names, "b.vm").as_deref(), Some("Nothing"));
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }
}
