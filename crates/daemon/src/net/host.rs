//! What the network is on the host beside its rules: links, and who forwards. All of it is done one after the other, by who holds
//! the lock, and blocks for as long as the kernel takes.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use banger_linux::netlink::{Link, Netlink};

use super::addresses::Subnet;
use super::bridge::BridgeError;
use super::claim::{Before, Claimant, ClaimedBridge};
use super::error::NetworkError;
use super::taps::{Tap, Taps};
use super::{bridge, carrier, claim, forwarding, switches};
use crate::ground::{Mark, Slot, has_others};

/// What the network is on the host.
#[derive(Debug)]
pub(super) struct Host {
    netlink: Netlink,
    claimant: Claimant,
    slot: Slot,
    subnet: Subnet,
    bridge: Link,
    taps: Taps,
    carrier: OwnedFd,
    record: PathBuf,
    /// Whether it is all removed: who comes too late makes nothing any more.
    is_cleared: bool,
}

/// One after the other.
pub(super) fn lock(host: &Mutex<Host>) -> MutexGuard<'_, Host> {
    host.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The plan for a network.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) claimant: Claimant,
    /// The subnet in the configuration.
    pub(super) wanted: Option<Subnet>,
    /// The last subnet.
    pub(super) had: Option<Subnet>,
    /// The TAPs of VMs.
    pub(super) used: Vec<String>,
    pub(super) records: Records,
}

/// The files that record which links forward because of VMs.
#[derive(Debug, Clone)]
pub struct Records {
    /// The record that all grounds of this network namespace share.
    pub shared: PathBuf,
    /// The record of a daemon that shared none.
    pub old: PathBuf,
}

#[cfg(test)]
impl Records {
    pub(super) fn of_a_test(dir: &tempfile::TempDir) -> Records {
        Records { shared: dir.path().join("forwarding"), old: dir.path().join("old") }
    }
}

impl Plan {
    fn before(&self) -> Before<'_> {
        Before { subnet: self.had, used: &self.used }
    }

    /// Whether an earlier daemon of this ground left a part of a network, or the last daemon of all left links that
    /// forward: it ended after it had removed its bridge.
    ///
    /// # Errors
    /// [`NetworkError`].
    pub(super) fn is_left(&self) -> Result<bool, NetworkError> {
        let mut netlink = Netlink::open()?;
        if self.claimant.find(&mut netlink, self.before())?.is_some() || self.records.old.exists() {
            return Ok(true);
        }
        Ok(self.records.shared.exists() && !has_others(&netlink.links()?, None))
    }
}

impl Host {
    /// Claims the bridge, or takes it over with those of its TAPs that are not in use. A failure leaves no more behind
    /// than there was before.
    pub(super) fn make(plan: &Plan) -> Result<Host, NetworkError> {
        let mut netlink = Netlink::open()?;
        forwarding::take_over(&plan.records.old, &plan.records.shared)?;
        let claimed = plan.claimant.claim(&mut netlink, plan.before())?;
        let ClaimedBridge { slot, ref link, is_new } = claimed;
        match Host::links(&mut netlink, slot, link, plan) {
            Ok((subnet, taps, carrier)) => Ok(Host {
                netlink,
                claimant: plan.claimant.clone(),
                slot,
                subnet,
                bridge: claimed.link,
                taps,
                carrier,
                record: plan.records.shared.clone(),
                is_cleared: false,
            }),
            Err(error) => {
                if is_new && let Err(also) = bridge::remove(&mut netlink, link) {
                    let also = crate::api::error::chain(&also);
                    tracing::warn!(error = also, "the bridge of a network that cannot be made stays for now");
                }
                Err(error)
            }
        }
    }

    fn links(
        netlink: &mut Netlink,
        slot: Slot,
        bridge: &Link,
        plan: &Plan,
    ) -> Result<(Subnet, Taps, OwnedFd), NetworkError> {
        let subnet = bridge::settle(netlink, slot, bridge, plan.wanted, plan.had)?;
        if let Err(error) = switches::ensure(&bridge.name) {
            // The rules hold guests back without the switches, too.
            let error = crate::api::error::chain(&error);
            tracing::warn!(error, "a switch of the bridge stays as it is");
        }
        let taps = Taps::adopt(netlink, &slot.taps(), bridge, |name| plan.used.iter().any(|used| used == name))?;
        let carrier = carrier::make(netlink, slot, bridge)?;
        Ok((subnet, taps, carrier))
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    pub(super) fn subnet(&self) -> Subnet {
        self.subnet
    }

    pub(super) fn claim(&mut self) -> Result<Tap, NetworkError> {
        Ok(self.taps.claim(&mut self.netlink)?)
    }

    pub(super) fn give_back(&mut self, tap: String) {
        self.taps.give_back(tap);
    }

    /// Makes one TAP more that waits, or removes one, so that in the end so many do. Whether it is the end.
    pub(super) fn level(&mut self, waiting: usize) -> Result<bool, NetworkError> {
        let idle = self.taps.idle();
        if self.is_cleared {
            return Ok(true);
        }
        if idle < waiting {
            self.taps.add(&mut self.netlink)?;
        } else if idle > waiting {
            self.taps.shed(&mut self.netlink)?;
        }
        Ok(idle == waiting)
    }

    /// Sees to it that all is as it was made, with the TAPs of VMs, and that packets are forwarded while there are VMs and not
    /// otherwise. Whether something was not so.
    pub(super) fn mend(&mut self, leased: &[String]) -> Result<bool, NetworkError> {
        let mut mended = false;
        if !bridge::is_right(&mut self.netlink, &self.bridge, self.subnet)? {
            self.bridge = self.bridge_again()?;
            bridge::ensure(&mut self.netlink, &self.bridge, self.subnet)?;
            mended = true;
        }
        // If they cannot be set, the log has said so since the bridge was made.
        mended |= switches::ensure(&self.bridge.name).unwrap_or(false);
        mended |= self.taps.keep(&mut self.netlink, &self.bridge, leased)?;
        if !carrier::is_right(&mut self.netlink, self.slot, &self.bridge)? {
            self.carrier = carrier::make(&mut self.netlink, self.slot, &self.bridge)?;
            mended = true;
        }
        mended |= self.forward(!leased.is_empty())?;
        Ok(mended)
    }

    /// The present bridge: the claimed one, or a new one if somebody has removed it. Fails if another ground has made
    /// its own bridge in this slot.
    fn bridge_again(&mut self) -> Result<Link, NetworkError> {
        let name = self.slot.bridge();
        match self.claimant.make(&mut self.netlink, self.slot) {
            // Running guests know their gateway by the hardware address that the bridge had.
            Ok(link) => return Ok(Link { mac: self.bridge.mac, ..link }),
            Err(BridgeError::Netlink(error)) if error.is_there() => {}
            Err(error) => return Err(error.into()),
        }
        let there = self.netlink.link(&name)?;
        let is_own = |link: &Link| match link.alias.as_deref().and_then(Mark::read) {
            Some(mark) => mark.id == self.claimant.id,
            None => link.index == self.bridge.index,
        };
        match there.filter(is_own) {
            Some(link) => Ok(Link { mac: self.bridge.mac, ..link }),
            None => {
                let by = claim::holder(&mut self.netlink, self.slot)?;
                Err(BridgeError::Foreign { name, by }.into())
            }
        }
    }

    /// Has packets forwarded, or not. Whether that was otherwise.
    pub(super) fn forward(&mut self, on: bool) -> Result<bool, NetworkError> {
        if on {
            return Ok(forwarding::switch_on(&mut self.netlink, &self.bridge, &self.record)?);
        }
        forwarding::restore(&mut self.netlink, self.slot, &self.record)?;
        Ok(false)
    }

    /// Removes all of it. A second call removes the rest after a failure.
    ///
    /// Forwarding comes last. Every ground removes its bridge before it looks for the bridges of others. So the last of
    /// several grounds that end together sees none, and switches the uplinks off.
    pub(super) fn clear(&mut self) -> Result<(), NetworkError> {
        self.taps.clear(&mut self.netlink)?;
        carrier::remove(&mut self.netlink, self.slot)?;
        bridge::remove(&mut self.netlink, &self.bridge)?;
        self.forward(false)?;
        self.is_cleared = true;
        Ok(())
    }

    /// The names of the TAPs that wait.
    pub(super) fn waiting(&self) -> Vec<String> {
        self.taps.names()
    }

    /// How many TAPs wait.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        self.taps.idle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::addresses;
    use banger_linux::netlink::{LinkChange, Mac};
    use banger_linux::{netns, tap};
    use std::sync::Barrier;
    use tempfile::TempDir;

    /// Runs a test in a network of its own with an uplink.
    fn elsewhere(test: impl FnOnce(&mut Netlink, &TempDir) + Send) {
        let ran = netns::in_new_network(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.add_bridge("up0", Mac([2, 0, 0, 0, 0, 2])).unwrap();
            let up = netlink.link("up0").unwrap().unwrap();
            netlink.add_address(&up, [10, 9, 2, 2].into(), 24).unwrap();
            netlink.change_link(&up, &LinkChange { up: Some(true), ..LinkChange::default() }).unwrap();
            netlink.set_default_route(&up, [10, 9, 2, 1].into()).unwrap();
            test(&mut netlink, &crate::ground::private_directory());
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }

    fn plan(dir: &TempDir, number: u8) -> Plan {
        let (claimant, records) = (Claimant::of_a_test(number), Records::of_a_test(dir));
        Plan { claimant, wanted: None, had: None, used: Vec::new(), records }
    }

    /// A network that guests use.
    fn in_use(dir: &TempDir, number: u8) -> Host {
        let mut host = Host::make(&plan(dir, number)).unwrap();
        host.forward(true).unwrap();
        host
    }

    fn uplink_forwards() -> bool {
        std::fs::read_to_string("/proc/sys/net/ipv4/conf/up0/forwarding").unwrap().trim() == "1"
    }

    #[test]
    fn grounds_that_end_together_leave_nothing_that_forwards() {
        elsewhere(|netlink, dir| {
            for round in 0..5 {
                let hosts = [1, 2, 3].map(|number| in_use(dir, number));
                assert!(uplink_forwards());
                let together = Barrier::new(hosts.len());
                std::thread::scope(|scope| {
                    for mut host in hosts {
                        let together = &together;
                        scope.spawn(move || {
                            together.wait();
                            host.clear().unwrap();
                        });
                    }
                });
                let left = (uplink_forwards(), dir.path().join("forwarding").exists());
                assert_eq!((left, netlink.links().unwrap().len()), ((false, false), 2), "{round}");
            }
        });
    }

    #[test]
    fn the_next_daemon_switches_off_what_one_left_that_died_without_a_bridge() {
        elsewhere(|netlink, dir| {
            let host = in_use(dir, 1);
            bridge::remove(netlink, &host.bridge).unwrap();
            drop(host);
            let plan = plan(dir, 1);
            assert!(uplink_forwards() && plan.is_left().unwrap());
            let mut next = Host::make(&plan).unwrap();
            next.mend(&[]).unwrap();
            assert!(!uplink_forwards());
            next.clear().unwrap();
            assert!(!plan.is_left().unwrap());
        });
    }

    #[test]
    fn a_bridge_that_is_made_again_has_the_hardware_address_that_guests_know() {
        elsewhere(|netlink, dir| {
            let subnet: Subnet = "10.137.77.0/24".parse().unwrap();
            let known = addresses::mac(subnet.host());
            netlink.add_bridge("banger0", known).unwrap();
            let mut host = Host::make(&Plan { had: Some(subnet), ..plan(dir, 1) }).unwrap();
            let first = netlink.link("banger0").unwrap().unwrap();
            netlink.remove_link(&first).unwrap();
            assert!(host.mend(&[]).unwrap());
            let again = netlink.link("banger0").unwrap().unwrap();
            assert_ne!(again.index, first.index);
            assert_eq!((first.mac, again.mac), (known, known));
            assert!(!host.mend(&[]).unwrap());
        });
    }

    #[test]
    fn a_vms_tap_of_another_slot_stays_as_it_is() {
        elsewhere(|netlink, dir| {
            let mut host = Host::make(&plan(dir, 1)).unwrap();
            let foreign = "tap-pool7-3".to_owned();
            let end = tap::make(&foreign).unwrap();
            tap::keep(&end).unwrap();
            let before = netlink.link(&foreign).unwrap();
            host.mend(std::slice::from_ref(&foreign)).unwrap();
            drop(end);
            host.give_back(foreign.clone());
            assert_eq!(host.waiting(), [""; 0]);
            while !host.level(0).unwrap() {}
            host.clear().unwrap();
            let after = netlink.link(&foreign).unwrap();
            let place = |link: Option<Link>| link.map(|link| (link.index, link.master, link.up));
            assert_eq!(place(after), place(before));
        });
    }
}
