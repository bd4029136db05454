//! Links: what the network namespace has of devices.

use std::fmt;

use super::message::{Request, attributes, number, text};
use super::{Netlink, NetlinkError};

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(to, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, to)
    }
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name, of up to 15 bytes.
    pub name: String,
    /// The kind of a virtual one: `bridge`, `tun`.
    pub kind: Option<String>,
    /// Whether it is up by its administrator's will.
    pub up: bool,
    /// Whether there is somebody at the other end.
    pub carrier: bool,
    /// Whether it carries packets; the kernel says so up to a second after the carrier is there (`IFF_RUNNING`).
    pub running: bool,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    /// Its hardware address; zero where it has none of six bytes.
    pub mac: Mac,
    /// The largest packet that it carries, in bytes.
    pub mtu: u32,
    /// The note that its owner left on it (`IFLA_IFALIAS`).
    pub alias: Option<String>,
    /// A bridge's treatment of link-local frames, if the kernel reports it.
    pub link_local: Option<LinkLocal>,
}

/// A bridge's treatment of link-local frames: those to 01:80:c2:00:00:00 up to :0f, for example LLDP's.
///
/// By default the bridge hands such a frame to the host as one of the *port's*, where the bridge's rules do not see it,
/// and learns its sender's address from any sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkLocal {
    /// The frames that it treats like any others, one bit for each last byte (`IFLA_BR_GROUP_FWD_MASK`).
    pub forwarded: u16,
    /// Whether it learns addresses from the rest (`BR_BOOLOPT_NO_LL_LEARN`).
    pub learned: bool,
}

/// The longest note on a link, in bytes: the kernel takes an attribute of 255 bytes (`IFALIASZ` less one, linux/if.h), which
/// include the terminating zero.
pub const MAX_ALIAS: usize = 254;

/// What is to be another about a link; the rest stays as it is.
#[derive(Debug, Clone, Default)]
pub struct LinkChange {
    /// Whether it is up.
    pub up: Option<bool>,
    /// The bridge that it is to be a port of; 0 for none.
    pub master: Option<u32>,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// The largest packet, in bytes.
    pub mtu: Option<u32>,
    /// How many packets wait for who takes them.
    pub queue: Option<u32>,
    /// The note on it, of at most [`MAX_ALIAS`] bytes.
    pub alias: Option<String>,
    /// A bridge's treatment of link-local frames.
    pub link_local: Option<LinkLocal>,
}

/// Attributes of a bridge, and one of its one-bit options (linux/if_link.h, linux/if_bridge.h).
const IFLA_BR_GROUP_FWD_MASK: u16 = 9;
const IFLA_BR_MULTI_BOOLOPT: u16 = 46;
const NO_LL_LEARN: u32 = 1;

/// `struct ifinfomsg`: family, type, index, flags, and which flags are to change.
fn head(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [[0; 4], index.to_ne_bytes(), flags.to_ne_bytes(), change.to_ne_bytes()].concat()
}

const UP: u32 = libc::IFF_UP.cast_unsigned();

impl Netlink {
    /// All links.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        let parts = self.list("list network devices", Request::new(libc::RTM_GETLINK, 0, &head(0, 0, 0)))?;
        Ok(parts.iter().filter_map(|part| link(part)).collect())
    }

    /// The link of a name, where there is one.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let request = Request::new(libc::RTM_GETLINK, 0, &head(0, 0, 0)).with_text(libc::IFLA_IFNAME, name);
        match self.exchange(&format!("look for the network device {name}"), request.wanting_an_answer()) {
            Ok(parts) => Ok(parts.iter().find_map(|part| link(part))),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge, down and without ports.
    ///
    /// # Errors
    /// [`NetlinkError`]; a link of that name [is there](NetlinkError::is_there).
    pub fn add_bridge(&mut self, name: &str, mac: Mac) -> Result<(), NetlinkError> {
        let request = Request::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &head(0, 0, 0))
            .with_text(libc::IFLA_IFNAME, name)
            .with(libc::IFLA_ADDRESS, &mac.0)
            .with_nested(libc::IFLA_LINKINFO, |within| within.with(libc::IFLA_INFO_KIND, b"bridge"));
        self.tell(&format!("make the bridge {name}"), request)
    }

    /// Removes a link. One that does not exist [is missing](NetlinkError::is_missing).
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn remove_link(&mut self, link: &Link) -> Result<(), NetlinkError> {
        let request = Request::new(libc::RTM_DELLINK, 0, &head(link.index, 0, 0));
        self.tell(&format!("remove the network device {}", link.name), request)
    }

    /// Makes a link something else.
    ///
    /// # Errors
    /// [`NetlinkError`].
    pub fn change_link(&mut self, link: &Link, change: &LinkChange) -> Result<(), NetlinkError> {
        let (flags, mask) = change.up.map_or((0, 0), |up| (if up { UP } else { 0 }, UP));
        let mut request = Request::new(libc::RTM_NEWLINK, 0, &head(link.index, flags, mask));
        if let Some(master) = change.master {
            request = request.with(libc::IFLA_MASTER, &master.to_ne_bytes());
        }
        if let Some(mac) = change.mac {
            request = request.with(libc::IFLA_ADDRESS, &mac.0);
        }
        if let Some(mtu) = change.mtu {
            request = request.with(libc::IFLA_MTU, &mtu.to_ne_bytes());
        }
        if let Some(queue) = change.queue {
            request = request.with(libc::IFLA_TXQLEN, &queue.to_ne_bytes());
        }
        if let Some(alias) = &change.alias {
            request = request.with_text(libc::IFLA_IFALIAS, alias);
        }
        if let Some(LinkLocal { forwarded, learned }) = change.link_local {
            // `struct br_boolopt_multi`: the options' values, and which options the call sets.
            let options = [if learned { 0 } else { NO_LL_LEARN }, NO_LL_LEARN].map(u32::to_ne_bytes).concat();
            request = request.with_nested(libc::IFLA_LINKINFO, |within| {
                within.with(libc::IFLA_INFO_KIND, b"bridge").with_nested(libc::IFLA_INFO_DATA, |within| {
                    within.with(IFLA_BR_GROUP_FWD_MASK, &forwarded.to_ne_bytes()).with(IFLA_BR_MULTI_BOOLOPT, &options)
                })
            });
        }
        self.tell(&format!("set up the network device {}", link.name), request)
    }
}

fn link(part: &[u8]) -> Option<Link> {
    let flags = number(part, 8)?;
    let mut link = Link {
        index: number(part, 4)?,
        up: flags & UP != 0,
        carrier: flags & libc::IFF_LOWER_UP.cast_unsigned() != 0,
        running: flags & libc::IFF_RUNNING.cast_unsigned() != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(part.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => text(value).clone_into(&mut link.name),
            libc::IFLA_ADDRESS => link.mac = Mac(value.try_into().unwrap_or_default()),
            libc::IFLA_MTU => link.mtu = number(value, 0)?,
            libc::IFLA_MASTER => link.master = number(value, 0),
            libc::IFLA_IFALIAS => link.alias = Some(text(value).to_owned()),
            libc::IFLA_LINKINFO => {
                let info = |wanted| attributes(value).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
                link.kind = info(libc::IFLA_INFO_KIND).map(|kind| text(kind).to_owned());
                if link.kind.as_deref() == Some("bridge") {
                    link.link_local = info(libc::IFLA_INFO_DATA).and_then(link_local);
                }
            }
            _ => {}
        }
    }
    Some(link)
}

/// Reads a bridge's own attributes about link-local frames; `None` if the kernel is too old to know the options.
fn link_local(data: &[u8]) -> Option<LinkLocal> {
    let value = |wanted| attributes(data).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let forwarded = u16::from_ne_bytes(value(IFLA_BR_GROUP_FWD_MASK)?.try_into().ok()?);
    let options = number(value(IFLA_BR_MULTI_BOOLOPT)?, 0)?;
    Some(LinkLocal { forwarded, learned: options & NO_LL_LEARN == 0 })
}
