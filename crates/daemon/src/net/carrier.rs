//! A TAP of the daemon's own, open and on the bridge. A bridge has a carrier as long as one of its ports does, and without it
//! systemd-resolved drops what it knows of the link's names. It goes with its descriptor, so nothing of it is left of a daemon that
//! dies; while VMs run on, theirs do.

use std::os::fd::OwnedFd;

use banger_linux::netlink::{Link, LinkChange, Netlink};
use banger_linux::tap;

use super::taps::{TapError, busy};
use crate::ground::Slot;

/// How often it is made where somebody else does, too. Only one that is about to go still does.
const TRIES: u32 = 10;

/// Makes it, in place of one that is there.
///
/// # Errors
/// [`TapError`]; none is left then.
pub fn make(netlink: &mut Netlink, slot: Slot, bridge: &Link) -> Result<OwnedFd, TapError> {
    let name = slot.carrier();
    let mut tries = TRIES;
    let end = loop {
        remove(netlink, slot)?;
        match tap::make(&name) {
            Ok(end) => break end,
            // Who had it has made it anew just now.
            Err(error) if error.raw_os_error() == Some(busy()) && tries > 0 => tries -= 1,
            Err(source) => return Err(TapError::Make { name, source }),
        }
    };
    if let Some(link) = netlink.link(&name)? {
        // Nobody reads what the bridge floods it with: one packet at most is kept.
        let change = LinkChange { up: Some(true), master: Some(bridge.index), queue: Some(1), ..LinkChange::default() };
        netlink.change_link(&link, &change)?;
    }
    Ok(end)
}

/// Removes it; nothing where there is none. What else has its name is somebody else's.
///
/// # Errors
/// [`TapError::Netlink`].
pub fn remove(netlink: &mut Netlink, slot: Slot) -> Result<(), TapError> {
    let Some(link) = netlink.link(&slot.carrier())?.filter(|link| link.kind.as_deref() == Some("tun")) else {
        return Ok(());
    };
    match netlink.remove_link(&link) {
        Err(error) if !error.is_missing() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether it is there and does its work.
///
/// # Errors
/// [`TapError::Netlink`].
pub fn is_right(netlink: &mut Netlink, slot: Slot, bridge: &Link) -> Result<bool, TapError> {
    Ok(netlink.link(&slot.carrier())?.is_some_and(|link| link.up && link.carrier && link.master == Some(bridge.index)))
}
