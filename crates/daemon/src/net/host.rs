//! What the network is on the host beside its rules: links, and who forwards. All of it is done one after the other, by who holds
//! the lock, and blocks for as long as the kernel takes.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use banger_linux::netlink::{Link, Netlink};

use super::addresses::Subnet;
use super::error::NetworkError;
use super::taps::{Tap, Taps};
use super::{bridge, carrier, forwarding, switches};
use crate::paths::{BRIDGE, TAPS};

/// What the network is on the host.
#[derive(Debug)]
pub(super) struct Host {
    netlink: Netlink,
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

/// Whether an earlier daemon has left something of it.
///
/// # Errors
/// [`NetworkError`].
pub(super) fn is_left(record: &Path) -> Result<bool, NetworkError> {
    Ok(record.exists() || bridge::find(&mut Netlink::open()?, BRIDGE)?.is_some())
}

impl Host {
    /// Makes the bridge, or takes it over with its TAPs, but for those that are in use. Where that fails there is no more of it
    /// than before.
    pub(super) fn make(
        wanted: Option<Subnet>,
        had: Option<Subnet>,
        used: &[String],
        record: &Path,
    ) -> Result<Host, NetworkError> {
        let mut netlink = Netlink::open()?;
        let subnet = bridge::choose(&mut netlink, BRIDGE, wanted, had)?;
        let was_there = bridge::find(&mut netlink, BRIDGE)?.is_some();
        match Host::links(&mut netlink, subnet, used) {
            Ok((bridge, taps, carrier)) => {
                Ok(Host { netlink, subnet, bridge, taps, carrier, record: record.to_owned(), is_cleared: false })
            }
            Err(error) => {
                if !was_there && let Err(also) = bridge::remove(&mut netlink, BRIDGE) {
                    let also = crate::api::error::chain(&also);
                    tracing::warn!(error = also, "the bridge of a network that cannot be made stays for now");
                }
                Err(error)
            }
        }
    }

    fn links(netlink: &mut Netlink, subnet: Subnet, used: &[String]) -> Result<(Link, Taps, OwnedFd), NetworkError> {
        let bridge = bridge::ensure(netlink, BRIDGE, subnet)?;
        if let Err(error) = switches::ensure(&bridge.name) {
            // The rules keep guests where they have to be without them.
            let error = crate::api::error::chain(&error);
            tracing::warn!(error, "a switch of the bridge stays as it is");
        }
        let taps = Taps::adopt(netlink, TAPS, &bridge, |name| used.iter().any(|used| used == name))?;
        let carrier = carrier::make(netlink, &bridge)?;
        Ok((bridge, taps, carrier))
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
            self.bridge = bridge::ensure(&mut self.netlink, BRIDGE, self.subnet)?;
            mended = true;
        }
        // Where they cannot be set that was said when the bridge was made.
        mended |= switches::ensure(&self.bridge.name).unwrap_or(false);
        mended |= self.taps.keep(&mut self.netlink, &self.bridge, leased)?;
        if !carrier::is_right(&mut self.netlink, &self.bridge)? {
            self.carrier = carrier::make(&mut self.netlink, &self.bridge)?;
            mended = true;
        }
        mended |= self.forward(!leased.is_empty())?;
        Ok(mended)
    }

    /// Has packets forwarded, or not. Whether that was otherwise.
    pub(super) fn forward(&mut self, on: bool) -> Result<bool, NetworkError> {
        if on {
            return Ok(forwarding::switch_on(&mut self.netlink, &self.bridge, &self.record)?);
        }
        forwarding::restore(&self.record)?;
        Ok(false)
    }

    /// Removes all of it.
    pub(super) fn clear(&mut self) -> Result<(), NetworkError> {
        self.forward(false)?;
        self.taps.clear(&mut self.netlink)?;
        carrier::remove(&mut self.netlink)?;
        bridge::remove(&mut self.netlink, BRIDGE)?;
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
