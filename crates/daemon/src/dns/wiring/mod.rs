//! How this host's programs come to know VMs by their names: systemd-resolved asks this daemon for names of its domain, or
//! `/etc/hosts` has them in a block of banger's. What is set up is recorded, and set up again where the bridge is made anew.
//!
//! The record comes before the first effect and goes after the last one is undone.

mod by_hand;
mod hosts;
mod port;
mod programs;
mod resolved;
mod seen;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;

use banger_api::dns::Wired;
use banger_linux::netlink::{Events, Netlink, NetlinkError};
use tokio::sync::Mutex as AsyncMutex;

pub use self::by_hand::lines as by_hand;
pub use self::hosts::HostsError;
pub use self::port::{Holder, holder};
pub use self::programs::Told;
use self::programs::look_up;
pub use self::resolved::ResolvedError;
pub use self::seen::{Seen, look};
use super::names::Names;
use crate::context::{Context, blocking};
use crate::ground::{Mark, Slot};
use crate::net::addresses::Subnet;
use crate::net::claim;
use crate::store::{Store, StoreError};

/// Where the host has names and addresses of its own (hosts(5)).
const HOSTS: &str = "/etc/hosts";

/// What is set up on the host.
#[derive(Debug)]
pub struct Wiring {
    hosts: PathBuf,
    /// The directory that all daemons of this host lock.
    claims: PathBuf,
    /// The ground of these names.
    mark: Mark,
    /// Held while something is set up or undone.
    state: AsyncMutex<State>,
}

#[derive(Debug, Default)]
struct State {
    wired: Wired,
    /// The number of the bridge that systemd-resolved was told of, and its subnet.
    link: Option<(u32, Subnet)>,
}

/// Why the host is not told names.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    /// The configuration does not want it.
    #[error("this host is not answered: the configuration has dns.port = 0")]
    Off,
    /// The port is somebody's.
    #[error("{refusal}{}", holder.as_ref().map(|holder| format!("; {holder} has it")).unwrap_or_default())]
    Unanswered {
        /// What the server said.
        refusal: String,
        /// Who has the port, if that is found.
        holder: Option<Holder>,
    },
    /// systemd-resolved cannot be told.
    #[error("cannot have systemd-resolved ask for the names of VMs")]
    Resolved(#[from] ResolvedError),
    /// It was told, and does not answer as it should.
    #[error(
        "systemd-resolved was told of the names of VMs, but for {name} it has {found} and not {wanted}; that was undone"
    )]
    NotResolved {
        /// The name that was looked up.
        name: String,
        /// What was found.
        found: String,
        /// What should have been.
        wanted: Ipv4Addr,
    },
    /// The block cannot be kept.
    #[error("cannot keep the names of VMs in the host's list")]
    Hosts(#[from] HostsError),
    /// The block is there, and nobody reads it.
    #[error("{HOSTS} has the names of VMs, but for {name} programs are told {found} and not {wanted}; that was undone")]
    HostsUnread {
        /// The name that was looked up.
        name: String,
        /// What was found.
        found: String,
        /// What should have been.
        wanted: Ipv4Addr,
    },
    /// The bridge is not found.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The record.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WiringError {
    /// What to do.
    pub fn help(&self) -> String {
        let help = match self {
            WiringError::Off => {
                "set `port` below `[dns]` in the configuration, and start the daemon anew; or give --hosts-file"
            }
            WiringError::Unanswered { holder: Some(holder), .. } if holder.is_daemon() => {
                "set another `port` below `[dns]` in the configuration of one of both daemons, and start that one anew"
            }
            WiringError::Unanswered { .. } => {
                "end the program that has the port, or set another `port` below `[dns]` in the configuration and start the \
                 daemon anew"
            }
            WiringError::Resolved(error) => return error.help(),
            WiringError::NotResolved { .. } => {
                "`resolvectl status` and `journalctl -u systemd-resolved` say more; or give --hosts-file"
            }
            WiringError::Hosts(error) => return error.help(),
            WiringError::HostsUnread { .. } => "put `files` first on the line `hosts:` of /etc/nsswitch.conf",
            WiringError::Netlink(_) | WiringError::Store(_) => "the daemon's log says more",
        };
        help.to_owned()
    }
}

impl Wiring {
    /// What an earlier daemon has set up. `claims` is the directory of all daemons' claims.
    pub fn new(mark: Mark, wired: Wired, claims: PathBuf) -> Wiring {
        Wiring { hosts: HOSTS.into(), claims, mark, state: AsyncMutex::new(State { wired, link: None }) }
    }

    /// The owner of the names in the host's list that stand in this daemon's place, in words.
    pub async fn others_names(&self, slot: Slot) -> Option<String> {
        let (path, mark) = (self.hosts.clone(), self.mark.clone());
        blocking(move || hosts::others(&path, slot, &mark)).await
    }

    /// What is set up.
    pub async fn wired(&self) -> Wired {
        self.state.lock().await.wired
    }

    /// Sets one up in place of whatever there was, and looks a name up by it. Where that fails it is undone.
    ///
    /// # Errors
    /// [`WiringError`].
    pub async fn install(
        &self,
        store: &Store,
        names: &Names,
        subnet: Subnet,
        hosts_file: bool,
    ) -> Result<(), WiringError> {
        let mut state = self.state.lock().await;
        let wanted = if hosts_file { Wired::HostsFile } else { Wired::Resolved };
        let other = Some(state.wired).filter(|before| *before != wanted && *before != Wired::None);
        if wanted == Wired::Resolved {
            answered(names).await?;
            resolved::usable().await?;
        }
        store.set_wired(wanted).await?;
        let made = match wanted {
            Wired::HostsFile => self.make_hosts(names, subnet).await,
            _ => make_resolved(names, subnet).await.map(|link| state.link = Some((link, subnet))),
        };
        if let Err(error) = made {
            self.undo(names.slot(), wanted).await?;
            state.wired = other.unwrap_or_default();
            store.set_wired(state.wired).await?;
            return Err(error);
        }
        state.wired = wanted;
        match other {
            Some(other) => self.undo(names.slot(), other).await,
            None => Ok(()),
        }
    }

    /// Undoes all that was set up; nothing where nothing was.
    ///
    /// # Errors
    /// [`WiringError`]; what is left is tried again by the next call.
    pub async fn uninstall(&self, store: &Store, names: &Names) -> Result<(), WiringError> {
        let mut state = self.state.lock().await;
        if state.wired == Wired::Resolved {
            self.undo(names.slot(), Wired::Resolved).await?;
        }
        // No matter what the record says: the ground's own marks identify its block.
        self.undo(names.slot(), Wired::HostsFile).await?;
        store.set_wired(Wired::None).await?;
        *state = State::default();
        Ok(())
    }

    /// Makes what is set up true again after names changed or the bridge was made.
    ///
    /// # Errors
    /// [`WiringError`]; it is tried again after the next change.
    pub async fn renew(&self, names: &Names) -> Result<(), WiringError> {
        let mut state = self.state.lock().await;
        let Some(subnet) = names.subnet() else { return Ok(()) };
        match state.wired {
            Wired::None => {}
            Wired::HostsFile => self.write_hosts(names.slot(), Some(names.all())).await?,
            Wired::Resolved => {
                let Some(link) = self.bridge(names.slot())? else { return Ok(()) };
                if state.link != Some((link, subnet)) {
                    answered(names).await?;
                    resolved::usable().await?;
                    state.link = Some((make_resolved(names, subnet).await?, subnet));
                }
            }
        }
        Ok(())
    }

    async fn make_hosts(&self, names: &Names, subnet: Subnet) -> Result<(), WiringError> {
        self.write_hosts(names.slot(), Some(names.all())).await?;
        let (name, wanted) = (names.host(), subnet.host());
        match look_up(&name).await {
            Told::Addresses(told) if told.contains(&wanted) => Ok(()),
            told => Err(WiringError::HostsUnread { name, found: told.to_string(), wanted }),
        }
    }

    async fn write_hosts(&self, slot: Slot, names: Option<Vec<(Ipv4Addr, String)>>) -> Result<(), WiringError> {
        let (path, claims, mark) = (self.hosts.clone(), self.claims.clone(), self.mark.clone());
        Ok(blocking(move || hosts::write(&path, &claims, slot, &mark, names.as_deref())).await?)
    }

    async fn undo(&self, slot: Slot, wired: Wired) -> Result<(), WiringError> {
        match wired {
            Wired::None => Ok(()),
            Wired::HostsFile => self.write_hosts(slot, None).await,
            // What it was told of a link goes with the link.
            Wired::Resolved if self.bridge(slot)?.is_none() => Ok(()),
            Wired::Resolved => Ok(resolved::revert(&slot.bridge()).await?),
        }
    }

    /// The number of the ground's bridge in a slot, where it is there. Without a network, the bridge of the expected slot
    /// may be another ground's.
    fn bridge(&self, slot: Slot) -> Result<Option<u32>, NetlinkError> {
        let link = Netlink::open()?.link(&slot.bridge())?;
        Ok(link.filter(|link| claim::is_of(link, self.mark.id)).map(|link| link.index))
    }
}

/// Keeps what is set up true, for as long as the daemon runs. Where something is, the network is there from the beginning: names
/// are answered when no VM runs, too.
pub async fn keep(context: Arc<Context>) {
    let mut changed = context.names.follow();
    if context.wiring.wired().await != Wired::None
        && let Err(error) = context.subnet().await
    {
        tracing::warn!(error = crate::api::error::chain(&error), "names are not answered: there is no network yet");
    }
    // Without them the bridge is looked at when names change.
    let events = Events::open().ok();
    let mut told = None;
    loop {
        // Seen before it is acted on, so that what changes meanwhile is not lost; several changes at once are one.
        changed.mark_unchanged();
        let failed = context.wiring.renew(&context.names).await.err().map(|error| crate::api::error::chain(&error));
        // It is tried after each change, and said once.
        if failed != told
            && let Some(error) = &failed
        {
            tracing::warn!(error, "this host is not told the names of VMs");
        }
        told = failed;
        // The bridge may be made anew by who watches over the network, and names stay the same then.
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return },
            () = happened(events.as_ref()) => {}
        }
    }
}

async fn happened(events: Option<&Events>) {
    match events {
        Some(events) if events.next().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// Where the host is answered, which must be so before anybody is sent there.
async fn answered(names: &Names) -> Result<SocketAddrV4, WiringError> {
    let at = names.for_host().ok_or(WiringError::Off)?;
    match names.refusals().host {
        None => Ok(at),
        Some(refusal) => {
            let holder = blocking(move || holder(at.port())).await;
            Err(WiringError::Unanswered { refusal, holder })
        }
    }
}

/// Has systemd-resolved ask this daemon; the number of the bridge that it was told of. The look-up shows what no return value
/// does: an older one, for example, drops the port without a word.
async fn make_resolved(names: &Names, subnet: Subnet) -> Result<u32, WiringError> {
    let at = names.for_host().ok_or(WiringError::Off)?;
    let bridge = names.slot().bridge();
    let link = resolved::until_running(&bridge).await?;
    let zones = std::iter::once(names.domain().to_string()).chain(subnet.reverse_zones());
    resolved::wire(&bridge, at, zones).await?;
    let (name, wanted) = (names.host(), subnet.host());
    let found = match resolved::look_up(&name).await {
        Ok(found) if found.contains(&wanted) => return Ok(link),
        Ok(found) => Told::Addresses(found).to_string(),
        Err(error) => format!("no address ({})", crate::api::error::chain(&error)),
    };
    Err(WiringError::NotResolved { name, found, wanted })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::GroundId;
    use banger_linux::netlink::LinkChange;
    use banger_linux::netns;

    #[test]
    fn the_bridge_of_another_ground_is_not_touched_in_systemd_resolved() {
        let ran = netns::in_new_network(|| {
            let mark = |number| Mark { id: GroundId::from_random([number; 8]), state: "/state".into() };
            let (own, other) = (mark(1), mark(2));
            let wiring = Wiring::new(own.clone(), Wired::Resolved, "/no/such".into());
            assert_eq!(wiring.bridge(Slot::FIRST).unwrap(), None);
            let mut netlink = Netlink::open().unwrap();
            netlink.add_bridge("banger0", other.id.mac()).unwrap();
            let link = netlink.link("banger0").unwrap().unwrap();
            for (alias, expected) in [(String::new(), None), (other.text(), None), (own.text(), Some(link.index))] {
                let change = LinkChange { alias: Some(alias.clone()), ..LinkChange::default() };
                netlink.change_link(&link, &change).unwrap();
                assert_eq!(wiring.bridge(Slot::FIRST).unwrap(), expected, "{alias}");
            }
        });
        if let Err(error) = ran {
            banger_skip::skipped!("no network namespace can be made: {error}");
        }
    }
}
