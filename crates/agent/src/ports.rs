//! What listens for TCP connections in the guest, by `/proc/net/tcp` and `tcp6` (proc_pid_net(5)).

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use banger_protocol::call::{CallError, CallErrorCode, Listener};

/// The state of a socket that listens, `TCP_LISTEN` of the kernel's `tcp_states.h`.
const LISTENS: &str = "0A";

/// Looks for it.
///
/// # Errors
/// The error that the caller is to be told, where the kernel does not say.
pub fn listening() -> Result<Vec<Listener>, CallError> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|source| CallError {
            code: CallErrorCode::Failed,
            message: format!("cannot read {path}: {source}"),
        })
    };
    // A kernel without IPv6 has no second table.
    let text = read("/proc/net/tcp")? + &fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    let sockets: Vec<(IpAddr, u16, u64)> = text.lines().filter_map(parse).collect();
    let owners = owners(Path::new("/proc"));
    let listener =
        |(address, port, inode): (IpAddr, u16, u64)| Listener { port, address, process: owners.get(&inode).cloned() };
    let mut found: Vec<Listener> = sockets.into_iter().map(listener).collect();
    found.sort_by_key(|listener| (listener.port, listener.address));
    Ok(found)
}

/// Address, port and inode of a socket that listens; nothing for other lines.
fn parse(line: &str) -> Option<(IpAddr, u16, u64)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    if *fields.get(3)? != LISTENS {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    // Each word of four bytes is written as the number that it is on this processor.
    let words: Option<Vec<[u8; 4]>> = (0..address.len() / 8)
        .map(|at| Some(u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect();
    let bytes = words?.concat();
    let address = match (<[u8; 4]>::try_from(&*bytes), <[u8; 16]>::try_from(&*bytes)) {
        (Ok(four), _) => Ipv4Addr::from(four).into(),
        (_, Ok(sixteen)) => Ipv6Addr::from(sixteen).into(),
        _ => return None,
    };
    Some((address, port, fields.get(9)?.parse().ok()?))
}

/// Which process has which socket open, by the socket's inode: of several, the one that came first, such as a server that has forked
/// its workers.
fn owners(proc: &Path) -> HashMap<u64, String> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    let mut owners = HashMap::new();
    for pid in pids {
        let process = proc.join(pid.to_string());
        // One that ends meanwhile has nothing open.
        for open in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            let Ok(target) = fs::read_link(open.path()) else { continue };
            let Some(inode) = target.to_str().and_then(socket) else { continue };
            let name = || fs::read_to_string(process.join("comm")).unwrap_or_default().trim_end().to_owned();
            owners.entry(inode).or_insert_with(name);
        }
    }
    owners
}

/// The inode in `socket:[4711]`.
fn socket(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_listens_here_is_found_with_its_process() {
        let listeners = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("0.0.0.0:0").unwrap()];
        let me = fs::read_to_string("/proc/self/comm").unwrap();
        let found = listening().unwrap();
        for listener in &listeners {
            let at = listener.local_addr().unwrap();
            let expected = Listener { port: at.port(), address: at.ip(), process: Some(me.trim_end().to_owned()) };
            assert!(found.contains(&expected), "{expected:?}: {found:?}");
        }
        assert!(found.is_sorted_by_key(|listener| (listener.port, listener.address)));
    }

    #[test]
    fn only_listeners_are_told() {
        let line = |address: &str, state: &str| {
            format!(
                "   0: {address}:1F90 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 4711 1 0"
            )
        };
        let v4 = format!("{:08X}", u32::from_ne_bytes([10, 0, 0, 1]));
        assert_eq!(parse(&line(&v4, "0A")), Some((Ipv4Addr::new(10, 0, 0, 1).into(), 8080, 4711)));
        assert_eq!(parse(&line(&"0".repeat(32), "0A")), Some((Ipv6Addr::UNSPECIFIED.into(), 8080, 4711)));
        assert_eq!(parse(&line(&v4, "01")), None);
        for broken in ["", "  sl  local_address", &line("0A", "0A"), &line("ZZZZZZZZ", "0A")] {
            assert_eq!(parse(broken), None, "{broken}");
        }
    }
}
