//! What is installed in an image: dpkg's status file, as a table. Pure.

use sha2::{Digest, Sha256};

/// The installed packages of a system, one a line: name, version, architecture, between tabs, sorted. The same packages
/// make the same text.
pub fn table(status: &str) -> String {
    let mut lines: Vec<String> = status.split("\n\n").filter_map(line).collect();
    lines.sort_unstable();
    lines.concat()
}

/// The table's SHA-256, in hexadecimal.
pub fn sha256(table: &str) -> String {
    Sha256::digest(table).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How many packages a table lists.
pub fn count(table: &str) -> u32 {
    u32::try_from(table.lines().count()).unwrap_or(u32::MAX)
}

fn line(paragraph: &str) -> Option<String> {
    let field = |name: &str| {
        let mut values = paragraph.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        values.next().map(str::trim)
    };
    // Wanted, error, state: `install ok installed`, `hold ok installed`.
    let installed = field("Status")?.ends_with(" ok installed");
    installed.then_some(format!("{}\t{}\t{}\n", field("Package")?, field("Version")?, field("Architecture")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_packages_sorted() {
        let status = "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:1.2\nDescription: a\n b\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: all\nVersion: 1\n\n\
                      Package: base\nStatus: hold ok installed\nArchitecture: all\nVersion: 2~rc1\n\n";
        let table = table(status);
        assert_eq!(table, "base\t2~rc1\tall\nzlib1g\t1:1.2\tamd64\n");
        assert_eq!(count(&table), 2);
        assert_eq!(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
