//! All processes, as `/proc` lists them (proc(5)).

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A process that was there when the list was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its number.
    pub pid: u32,
    /// The effective user id that it runs as.
    pub uid: u32,
    /// The name that the kernel has for it.
    pub name: String,
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.name.escape_debug())
    }
}

/// The processes in a `/proc`, by number. A process that ends meanwhile is left out.
pub fn all(proc: &Path) -> Vec<Listed> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let mut found: Vec<Listed> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // A directory of /proc belongs to its process's effective user (proc(5)).
            let uid = entry.metadata().ok()?.uid();
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            Some(Listed { pid, uid, name: name.trim_end().to_owned() })
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_among_them_as_its_user() {
        let (pid, uid) = (std::process::id(), rustix::process::geteuid().as_raw());
        let found = all(Path::new("/proc"));
        assert_eq!(found.iter().filter(|process| process.pid == pid && process.uid == uid).count(), 1);
        assert!(found.is_sorted_by_key(|process| process.pid));
        assert_eq!(all(Path::new("/no/such/directory")), []);
    }
}
