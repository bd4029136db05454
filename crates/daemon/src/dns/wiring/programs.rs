//! What programs of this host are told when they look a name up: the C library is asked, as they ask it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use tokio::sync::oneshot;

/// How long it may take. Where there are name servers and none answers, the C library takes many seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// What programs are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Addresses, which may be none.
    Addresses(Vec<Ipv4Addr>),
    /// That there are none, and why.
    Nothing(String),
    /// Nothing in time.
    Late,
}

impl fmt::Display for Told {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Addresses(addresses) if addresses.is_empty() => write!(to, "no address"),
            Told::Addresses(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(Ipv4Addr::to_string).collect();
                write!(to, "{}", addresses.join(" "))
            }
            Told::Nothing(why) => write!(to, "no address ({why})"),
            Told::Late => write!(to, "no answer within {} s", PATIENCE.as_secs()),
        }
    }
}

/// Looks a name up as programs do, by nsswitch.conf(5).
pub async fn look_up(name: &str) -> Told {
    let (tell, told) = oneshot::channel();
    let name = name.to_owned();
    // A thread that nobody waits for: one of the runtime's would keep a daemon that goes waiting for name servers.
    let thread = std::thread::Builder::new().name("lookup".into()).spawn(move || {
        let found = (name.as_str(), 0).to_socket_addrs().map(|addresses| {
            let addresses = addresses.filter_map(|address| match address.ip() {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            });
            addresses.collect()
        });
        // Who asked may not wait any more.
        drop(tell.send(found));
    });
    if let Err(error) = thread {
        return Told::Nothing(error.to_string());
    }
    match tokio::time::timeout(PATIENCE, told).await {
        Ok(Ok(Ok(addresses))) => Told::Addresses(addresses),
        Ok(Ok(Err(error))) => Told::Nothing(error.to_string()),
        Ok(Err(_)) | Err(_) => Told::Late,
    }
}

/// Whether programs of this host ask systemd-resolved: by its stub (systemd-resolved.service(8)), or by its module for the C
/// library (nss-resolve(8)).
pub fn leads_to_resolved(resolv_conf: &Path, nsswitch: &Path) -> bool {
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    let is_stub = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        words.next() == Some("nameserver") && matches!(words.next(), Some("127.0.0.53" | "127.0.0.54"))
    };
    let is_module = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        words.next() == Some("hosts:") && words.any(|word| word == "resolve")
    };
    read(resolv_conf).lines().any(is_stub) || read(nsswitch).lines().any(is_module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn programs_are_told_of_the_host_itself() {
        let Told::Addresses(found) = look_up("localhost").await else { panic!("localhost is not found") };
        assert_eq!(found, [Ipv4Addr::LOCALHOST]);
        // No name at all, so that nobody on the network is asked.
        assert!(matches!(look_up("no name").await, Told::Nothing(_)));
    }

    #[test]
    fn the_way_to_resolved_is_its_stub_or_its_module() {
        let dir = tempfile::tempdir().unwrap();
        let (resolv, nsswitch) = (dir.path().join("resolv.conf"), dir.path().join("nsswitch.conf"));
        let leads = |servers: &str, hosts: &str| {
            std::fs::write(&resolv, servers).unwrap();
            std::fs::write(&nsswitch, hosts).unwrap();
            leads_to_resolved(&resolv, &nsswitch)
        };
        assert!(leads("# x\nnameserver 127.0.0.53\noptions edns0\n", "hosts: files dns\n"));
        assert!(leads("nameserver 10.0.0.1\n", "passwd: files\nhosts: files resolve [!UNAVAIL=return] dns\n"));
        assert!(!leads("nameserver 10.0.0.1\n# nameserver 127.0.0.53\n", "hosts: files dns\npasswd: resolve\n"));
    }
}
