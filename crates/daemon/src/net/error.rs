//! Why a VM has no network, and what to do about it.

use banger_linux::netlink::NetlinkError;

use super::bridge::BridgeError;
use super::forwarding::ForwardingError;
use super::nft::NftError;
use super::taps::TapError;

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
        match self {
            NetworkError::Bridge(BridgeError::Foreign { .. }) => Some(
                "set `slot` below `[ground]` in the configuration to \"auto\" or to a free number, or create VMs with --net none",
            ),
            NetworkError::Bridge(BridgeError::NoSlot { .. }) => Some(
                "stop a daemon that is not needed, with its VMs; `ip -d link show type bridge` says whose each bridge is",
            ),
            NetworkError::Bridge(BridgeError::Taken { .. }) => Some("name another subnet in the configuration"),
            NetworkError::Bridge(BridgeError::NoneFree) => Some("name a subnet in the configuration"),
            NetworkError::Rules(NftError::Missing) => Some("install it: apt install nftables"),
            _ if self.is_forbidden() => Some("run the daemon as root, or create VMs with --net none"),
            NetworkError::Rules(NftError::Unfit { .. } | NftError::Refused { .. } | NftError::Listing(_)) => Some(
                "install nftables 0.9.8 or newer, built with JSON, on a kernel with nf_tables; or create VMs with --net none",
            ),
            NetworkError::Forwarding(ForwardingError::Switch { .. }) => {
                Some("make /proc/sys/net writable for the daemon, or create VMs with --net none")
            }
            NetworkError::Forwarding(ForwardingError::Directory(_)) => {
                Some("see that /run/banger-ground is root's alone (mode 0700), or create VMs with --net none")
            }
            NetworkError::Tap(_) => Some("see that /dev/net/tun is there: modprobe tun; or create VMs with --net none"),
            _ => None,
        }
    }

    /// Whether the daemon lacks `CAP_NET_ADMIN`.
    fn is_forbidden(&self) -> bool {
        let is_denied = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
        match self {
            NetworkError::Bridge(BridgeError::Netlink(error))
            | NetworkError::Tap(TapError::Netlink(error))
            | NetworkError::Forwarding(ForwardingError::Netlink(error))
            | NetworkError::Netlink(error) => error.is_forbidden(),
            NetworkError::Tap(TapError::Make { source, .. } | TapError::Open { source, .. }) => is_denied(source),
            NetworkError::Rules(NftError::Refused { said } | NftError::Unfit { said }) => {
                said.contains("Operation not permitted")
            }
            _ => false,
        }
    }
}
