//! systemd-resolved, told by resolvectl(1) whom to ask for names below which domains. What it is told belongs to one link and
//! goes with it; the resolver's own restart keeps it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use banger_linux::file;
use banger_linux::netlink::{Events, Netlink, NetlinkError};
use banger_linux::process::Program;
use tokio::net::UnixStream;

use crate::ground::Slot;
use crate::image::tool::{Tool, ToolError};

/// Where it listens for programs that do not ask by DNS. It answers there when it answers at all.
const SOCKET: &str = "/run/systemd/resolve/io.systemd.Resolve";

/// The oldest one that takes a server with a port. An older one drops the port without a word.
const OLDEST: u32 = 246;

/// How long one call may take. A look-up of which nobody answers takes far longer by itself.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the kernel may take to say that a link carries packets. It says so at most once a second.
const CARRIER: Duration = Duration::from_secs(3);

/// Why systemd-resolved does not ask us.
#[derive(Debug, thiserror::Error)]
pub enum ResolvedError {
    /// It is not installed.
    #[error("this host has no {}", Program::Resolvectl.path().display())]
    Missing,
    /// It is not running.
    #[error("systemd-resolved does not run: nobody listens on {SOCKET}")]
    NotRunning,
    /// It knows other links than this daemon does.
    #[error("systemd-resolved is in another network namespace than this daemon")]
    Elsewhere,
    /// It takes no port.
    #[error("systemd-resolved is of systemd {found}, which cannot ask at a port of its own")]
    TooOld {
        /// Its version.
        found: u32,
    },
    /// It does not take what it is told.
    #[error("cannot {attempted}")]
    Refused {
        /// What was attempted.
        attempted: String,
        /// What it said.
        #[source]
        source: ToolError,
    },
    /// It says nothing.
    #[error("cannot {attempted}: no answer within {} s", PATIENCE.as_secs())]
    Silent {
        /// What was attempted.
        attempted: String,
    },
    /// It could not be heard.
    #[error("cannot {attempted}")]
    Io {
        /// What was attempted.
        attempted: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Nothing is at the link's other end.
    #[error("{link} carries no packets, and systemd-resolved does not use such a link")]
    NoCarrier {
        /// The link.
        link: String,
    },
    /// The link is not found.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl ResolvedError {
    /// What to do.
    pub fn help(&self) -> String {
        let help = match self {
            ResolvedError::Missing => {
                "install systemd-resolved, or give --hosts-file, or write the lines above for the resolver that there is"
            }
            ResolvedError::NotRunning => {
                "systemctl enable --now systemd-resolved; or give --hosts-file, or write the lines above for the resolver that \
                 there is"
            }
            ResolvedError::Elsewhere => "run the daemon where systemd-resolved runs, or give --hosts-file",
            ResolvedError::TooOld { .. } => "use systemd 246 or newer, or give --hosts-file",
            ResolvedError::Refused { .. } | ResolvedError::Silent { .. } => {
                "run the daemon as root; `systemctl status systemd-resolved` says more; or give --hosts-file"
            }
            ResolvedError::NoCarrier { link } => {
                let carrier = Slot::of_bridge(link).unwrap_or_default().carrier();
                return format!("see `ip link show master {link}`, where {carrier} should be up; or give --hosts-file");
            }
            ResolvedError::Io { .. } | ResolvedError::Netlink(_) => "the daemon's log says more; or give --hosts-file",
        };
        help.to_owned()
    }
}

/// Whether there is one that can be told.
pub(super) async fn usable() -> Result<(), ResolvedError> {
    if !Program::Resolvectl.path().exists() {
        return Err(ResolvedError::Missing);
    }
    let Ok(stream) = UnixStream::connect(SOCKET).await else { return Err(ResolvedError::NotRunning) };
    if !is_here(&stream) {
        return Err(ResolvedError::Elsewhere);
    }
    let said = run("ask systemd-resolved for its version", ["--version"]).await?;
    match said.first().and_then(|line| version(line)) {
        Some(found) if found < OLDEST => Err(ResolvedError::TooOld { found }),
        // One that says it in another way is newer than this.
        _ => Ok(()),
    }
}

/// Waits until a link carries packets; its number.
pub(super) async fn until_running(link: &str) -> Result<u32, ResolvedError> {
    let heard = |source| ResolvedError::Io { attempted: format!("follow the state of {link}"), source };
    // Opened before the first look: no change is lost in between.
    let events = Events::open()?;
    let waiting = async {
        loop {
            match Netlink::open()?.link(link)? {
                Some(found) if found.running => return Ok(found.index),
                _ => drop(events.next().await.map_err(heard)?),
            }
        }
    };
    tokio::time::timeout(CARRIER, waiting)
        .await
        .unwrap_or_else(|_| Err(ResolvedError::NoCarrier { link: link.to_owned() }))
}

/// Has it ask this server, and no other, for names in these zones, and for no others. The server comes last: until then nothing
/// is asked.
pub(super) async fn wire(
    link: &str,
    server: SocketAddrV4,
    zones: impl Iterator<Item = String>,
) -> Result<(), ResolvedError> {
    let attempted = format!("set up {link} in systemd-resolved");
    // Answers have no signatures, and the server speaks no TLS; whatever holds for the host's other links.
    for property in ["default-route", "llmnr", "mdns", "dnssec", "dnsovertls"] {
        run(&attempted, [property, link, "no"]).await?;
    }
    let zones = zones.map(|zone| format!("~{zone}"));
    run(&attempted, ["domain", link].into_iter().map(str::to_owned).chain(zones)).await?;
    run(&attempted, ["dns", link, &server.to_string()]).await.map(drop)
}

/// Has it forget all that it was told of a link.
pub(super) async fn revert(link: &str) -> Result<(), ResolvedError> {
    // One that does not run cannot be told. Where it comes back it may still know of the link, and asks a server that answers; that
    // goes with the link, or with this start of the host.
    let here = UnixStream::connect(SOCKET).await.is_ok_and(|stream| is_here(&stream));
    if !here || !Program::Resolvectl.path().exists() {
        return Ok(());
    }
    run(&format!("take {link} out of systemd-resolved"), ["revert", link]).await.map(drop)
}

/// The addresses that it has for a name.
pub(super) async fn look_up(name: &str) -> Result<Vec<Ipv4Addr>, ResolvedError> {
    let said = run(&format!("look {name} up by systemd-resolved"), ["query", "--legend=no", "--type=A", name]).await?;
    Ok(said.iter().filter_map(|line| address(line)).collect())
}

/// Whether it is in this daemon's network namespace. It knows links by their numbers: elsewhere the bridge's would be another
/// device's.
fn is_here(stream: &UnixStream) -> bool {
    // Zero in another pid namespace, and no process has that number.
    let Some(pid) = stream.peer_cred().ok().and_then(|peer| peer.pid()) else { return false };
    let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).ok();
    let its = namespace(&pid.to_string());
    its.is_some() && its == namespace("self")
}

async fn run<A: Into<String>>(
    attempted: &str,
    args: impl IntoIterator<Item = A>,
) -> Result<Vec<String>, ResolvedError> {
    let attempted = || attempted.to_owned();
    let log = file::in_memory("resolvectl").map_err(|source| ResolvedError::Io { attempted: attempted(), source })?;
    let mut lines = Vec::new();
    let tool = Tool::new(Program::Resolvectl, args.into_iter().map(Into::into).collect());
    let ran = tokio::time::timeout(PATIENCE, tool.run(&log, |line| lines.push(line.to_owned()))).await;
    match ran {
        Ok(Ok(())) => Ok(lines),
        Ok(Err(source)) => Err(ResolvedError::Refused { attempted: attempted(), source }),
        Err(_) => Err(ResolvedError::Silent { attempted: attempted() }),
    }
}

/// Of a line as `systemd 252 (252.39-1~deb12u2)`.
fn version(line: &str) -> Option<u32> {
    let word = line.strip_prefix("systemd ")?.split_ascii_whitespace().next()?;
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    word[..digits].parse().ok()
}

/// Of a line as `host.vm IN A 10.137.77.1    -- link: banger0`.
fn address(line: &str) -> Option<Ipv4Addr> {
    let (_, rest) = line.split_once(" IN A ")?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_words_are_understood() {
        assert_eq!(version("systemd 252 (252.39-1~deb12u2)"), Some(252));
        assert_eq!(version("systemd 257~rc1 (257~rc1)"), Some(257));
        assert_eq!((version("systemd"), version("resolvectl 1")), (None, None));
        assert_eq!(address("host.vm IN A 10.137.77.1    -- link: banger0"), Some([10, 137, 77, 1].into()));
        assert_eq!((address("host.vm IN AAAA ::1"), address("-- Data is authenticated")), (None, None));
    }

    #[test]
    fn the_help_names_the_devices_of_the_links_own_slot() {
        let help = |link: &str| ResolvedError::NoCarrier { link: link.to_owned() }.help();
        assert!(help("banger0").starts_with("see `ip link show master banger0`, where banger-carrier should be up"));
        assert!(help("banger7").starts_with("see `ip link show master banger7`, where bangercarrier7 should be up"));
    }

    #[tokio::test]
    async fn this_process_is_here() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(is_here(&one));
    }
}
