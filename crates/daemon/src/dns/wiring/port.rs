//! Who has a port of this host's, as /proc knows (proc_net(5), proc_pid_fd(5)).

use std::collections::HashSet;
use std::fmt;
use std::path::Path;

/// The process that has a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

impl Holder {
    /// Whether it has the name of banger's daemon.
    pub fn is_daemon(&self) -> bool {
        self.name == "bangerd"
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "process {} ({})", self.pid, self.name.escape_debug())
    }
}

/// Another process than this one that listens at a port of the loopback address, by UDP or TCP. Nothing where none is found, as
/// one of another container is not.
pub fn holder(port: u16) -> Option<Holder> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let sockets: HashSet<String> = inodes(&read("/proc/net/udp"), port)
        .chain(inodes(&read("/proc/net/tcp"), port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    let own = std::process::id();
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pid = pids.filter(|pid| *pid != own).find(|pid| has_one(*pid, &sockets))?;
    Some(Holder { pid, name: read(&format!("/proc/{pid}/comm")).trim_end().to_owned() })
}

fn has_one(pid: u32, sockets: &HashSet<String>) -> bool {
    let Ok(fds) = std::fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else { return false };
    let targets = fds.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    targets.into_iter().any(|target| target.to_str().is_some_and(|target| sockets.contains(target)))
}

/// The inodes of sockets that are in the way of one at the loopback address and this port: a UDP socket has the state 07 there, a
/// TCP socket that listens 0A. An address is written as the number that it is in memory.
fn inodes(table: &str, port: u16) -> impl Iterator<Item = &str> {
    let address = |host: [u8; 4]| format!("{:08X}:{port:04X}", u32::from_ne_bytes(host));
    let taken = [address([127, 0, 0, 1]), address([0; 4])];
    table.lines().filter_map(move |line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
        (taken.iter().any(|taken| taken == local) && matches!(*state, "07" | "0A")).then_some(*inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::BufRead;

    #[test]
    fn sockets_in_the_way_are_found_by_address_port_and_state() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 0100007F:A455 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 101 2 0 0\n\
                     1: 00000000:A455 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 102 2 0 0\n\
                     2: 0100007F:A455 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 103 2 0 0\n\
                     3: 0200007F:A455 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 104 2 0 0\n\
                     4: 0100007F:A456 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 105 2 0 0\n";
        assert_eq!(inodes(table, 42069).collect::<Vec<_>>(), ["101", "102"]);
    }

    #[test]
    fn another_process_is_found_and_this_one_is_not() {
        let own = std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = own.local_addr().unwrap().port();
        // A child of another test may have the socket until it executes its program.
        drop(holder(port));
        let (mut said, says) = std::io::pipe().unwrap();
        let mut launch = banger_linux::process::Launch::new(
            banger_linux::process::Program::Command("/bin/sh".into()),
            ["-c", "echo; exec cat"],
        );
        let (given, giver) = std::io::pipe().unwrap();
        launch.stdin = banger_linux::process::Stream::Fd(given.into());
        launch.stdout = banger_linux::process::Stream::Fd(says.into());
        launch.inherit = vec![own.into()];
        let child = banger_linux::process::Leash::start(launch).unwrap();
        std::io::BufReader::new(&mut said).read_line(&mut String::new()).unwrap();
        assert_eq!(holder(port).unwrap().pid, child.process().unwrap().pid());
        drop((child, giver));
    }
}
