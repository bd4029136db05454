//! Ports of guests, and of the host's that lead to them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A TCP port of a guest at which something listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Port {
    /// The port.
    pub port: u16,
    /// At which addresses of the guest's; 0.0.0.0 or :: for all.
    pub addresses: Vec<IpAddr>,
    /// The name of a process that has it open, if one was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<String>,
    /// Where it can be reached from the host and other guests, without a scheme, as `devbox.vm:8080`; absent where it listens for the
    /// guest alone, or the guest has no network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached_at: Option<String>,
    /// Ports of the host that lead to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published_at: Vec<SocketAddr>,
}

/// A port of the host that leads to one of the guest's. As a text, `[ADDRESS:]PORT[:GUEST]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The address of the host's; its loopback if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The port of the host.
    pub port: NonZeroU16,
    /// The port of the guest.
    pub guest: NonZeroU16,
}

impl Publish {
    /// Where the host listens.
    pub fn at(&self) -> SocketAddr {
        (self.address.unwrap_or(Ipv4Addr::LOCALHOST.into()), self.port.get()).into()
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.at(), self.guest)
    }
}

/// A text that is no [`Publish`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{}' is not [ADDRESS:]PORT[:GUEST], with ports from 1 to 65535; an IPv6 address is in brackets", .0.escape_debug())]
pub struct PublishError(String);

impl FromStr for Publish {
    type Err = PublishError;

    fn from_str(text: &str) -> Result<Publish, PublishError> {
        parse(text).ok_or_else(|| PublishError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Publish> {
    let (address, ports) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, ports) = rest.split_once("]:")?;
            (Some(IpAddr::V6(address.parse().ok()?)), ports)
        }
        None => match text.split_once(':') {
            Some((address, ports)) if address.contains('.') => (Some(IpAddr::V4(address.parse().ok()?)), ports),
            _ => (None, text),
        },
    };
    let (port, guest) = ports.split_once(':').unwrap_or((ports, ports));
    let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    Some(Publish { address, port: number(port)?, guest: number(guest)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_published_on_loopback_unless_it_is_said_otherwise() {
        let told = |text: &str| text.parse::<Publish>().map(|publish| publish.to_string()).unwrap_or_default();
        assert_eq!(told("8080"), "127.0.0.1:8080:8080");
        assert_eq!(told("8080:80"), "127.0.0.1:8080:80");
        assert_eq!(told("0.0.0.0:8080"), "0.0.0.0:8080:8080");
        assert_eq!(told("192.0.2.1:8080:80"), "192.0.2.1:8080:80");
        assert_eq!(told("[::1]:8080:80"), "[::1]:8080:80");
        for good in ["127.0.0.1:8080:80", "[::]:1:65535"] {
            assert_eq!(told(good), good);
        }
        for bad in [
            "",
            "0",
            "65536",
            "a",
            "+1",
            "1:",
            ":1",
            "1:2:3",
            "1.2.3:80",
            "[::1]",
            "[::1]80",
            "::1:80",
            "1.2.3.4:80:90:1",
        ] {
            assert_eq!(told(bad), "", "{bad}");
        }
    }

    #[test]
    fn its_json_is_loopback_too() {
        let publish: Publish = serde_json::from_str(r#"{"port":8080,"guest":80}"#).unwrap();
        assert_eq!(publish, "8080:80".parse().unwrap());
        assert!(serde_json::from_str::<Publish>(r#"{"port":0,"guest":80}"#).is_err());
    }
}
