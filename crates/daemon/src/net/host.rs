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

    /// Whether an earlier daemon of this ground left a part of a network.
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
            Ok(link) => return Ok(link),
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

    /// Removes all of it.
    pub(super) fn clear(&mut self) -> Result<(), NetworkError> {
        self.forward(false)?;
        self.taps.clear(&mut self.netlink)?;
        carrier::remove(&mut self.netlink, self.slot)?;
        bridge::remove(&mut self.netlink, &self.bridge)?;
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
