//! How busy the guest is.

use std::fs;
use std::io;

use banger_protocol::call::{CallError, CallErrorCode, FileSystem, Load};

/// Where the guest's two disks are mounted.
const DISKS: [&str; 2] = ["/", "/root"];

/// Gathers it.
///
/// # Errors
/// The error that the caller is to be told, where the kernel does not say.
pub fn gather() -> Result<Load, CallError> {
    let read = |path: &str| {
        fs::read_to_string(path).map_err(|source| CallError {
            code: CallErrorCode::Failed,
            message: format!("cannot read {path}: {source}"),
        })
    };
    let (averages, tasks) = parse_load(&read("/proc/loadavg")?);
    let memory = read("/proc/meminfo")?;
    let uptime = read("/proc/uptime")?;
    Ok(Load {
        averages,
        tasks,
        memory: parse_memory(&memory, "MemTotal:"),
        memory_available: parse_memory(&memory, "MemAvailable:"),
        file_systems: DISKS.iter().filter_map(|path| file_system(path).ok()).collect(),
        uptime: uptime.split('.').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0),
    })
}

fn file_system(path: &str) -> io::Result<FileSystem> {
    let found = rustix::fs::statvfs(path)?;
    Ok(FileSystem {
        mounted_on: path.to_owned(),
        size: found.f_blocks * found.f_frsize,
        free: found.f_bfree * found.f_frsize,
    })
}

/// The averages, in hundredths, and how many tasks there are (proc_loadavg(5)).
fn parse_load(text: &str) -> ([u32; 3], u32) {
    let hundredths = |word: &str| {
        let (whole, part) = word.split_once('.')?;
        Some(whole.parse::<u32>().ok()?.saturating_mul(100).saturating_add(part.get(..2)?.parse().ok()?))
    };
    let mut words = text.split_ascii_whitespace();
    let averages = [(); 3].map(|()| words.next().and_then(hundredths).unwrap_or(0));
    let tasks = words.next().and_then(|word| word.split_once('/')?.1.parse().ok());
    (averages, tasks.unwrap_or(0))
}

/// A line of proc_meminfo(5), in bytes.
fn parse_memory(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kibibytes: Option<u64> = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    kibibytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        assert_eq!(parse_load("0.52 12.05 1.00 2/234 5678\n"), ([52, 1205, 100], 234));
        assert_eq!(parse_load("nonsense"), ([0; 3], 0));
        let memory = "MemTotal:        1013312 kB\nMemAvailable:     917504 kB\n";
        assert_eq!(parse_memory(memory, "MemAvailable:"), 917_504 * 1024);
        assert_eq!(parse_memory(memory, "Swap:"), 0);
    }

    #[test]
    fn this_machine_is_up_and_has_memory() {
        let load = gather().unwrap();
        assert!(load.memory > load.memory_available && load.memory_available > 0 && load.tasks > 1);
        assert!(load.file_systems.iter().any(|found| found.mounted_on == "/" && found.size > found.free));
    }
}
