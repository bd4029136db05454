//! The configuration's keys in one table: which there are, how large they can be, what they say in the manual.
//!
//! **To add a key**: a field in `config.rs`, a line here, and the block in README.md, which a test compares with
//! [`sample`]. What holds without a key is not written here: it is the field's default.

use super::Config;

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The table that it stands in.
    pub table: &'static str,
    /// Its name there.
    pub key: &'static str,
    /// The largest number that it takes; 0 where it is a text.
    pub most: i64,
    /// What it is, in few words.
    pub text: &'static str,
}

/// The largest disk that ext4 takes with blocks of 4 KiB, in MiB; more than any host has of memory.
const MOST_MIB: i64 = 16 * 1024 * 1024;

/// A year. Nobody waits longer, and a deadline that is made of it can be.
const MOST_SECONDS: i64 = 365 * 24 * 3600;

/// Every key, in the order in which they are explained.
pub const KEYS: &[Key] = &[
    key("defaults", "image", 0, "of a new machine: the image's name"),
    key("defaults", "cpus", 255, "its processors"),
    key("defaults", "memory_mib", MOST_MIB, "its memory, in MiB"),
    key("defaults", "disk_mib", MOST_MIB, "its work disk, which is /root, in MiB"),
    key("defaults", "net", 0, "whom it can reach: \"nat\", all; \"isolated\", nobody but for names; or \"none\""),
    key("image", "size_mib", MOST_MIB, "of `image build`: the root disk, in MiB"),
    key("image", "seed_mib", MOST_MIB, "the smallest work disk, in MiB"),
    key(
        "image",
        "namespace",
        0,
        "packages' scripts run in a user namespace: where it can be made, \"user\": or not at all, \"none\": as root",
    ),
    key("timeouts", "agent_s", MOST_SECONDS, "seconds until a booting guest answers"),
    key("timeouts", "stop_s", MOST_SECONDS, "seconds for a guest to power off"),
    key("timeouts", "button_s", MOST_SECONDS, "seconds more, after its power button was pressed, too"),
    key(
        "vmm",
        "first_uid",
        u32::MAX as i64 - 131_072,
        "QEMU runs as this user or one above it; a build's user namespace has 65536 from 65536 above it on",
    ),
    key("guest", "user", 0, "a new guest has its creator as a user beside root; or \"none\""),
    key("network", "subnet", 0, "of guests, as \"10.77.0.0/24\"; or one that is free"),
    key("network", "taps", 64, "network devices that wait for machines"),
    key("dns", "domain", 0, "of machines' names: devbox is devbox.vm"),
    key("dns", "port", 65_535, "on 127.0.0.1, where this host is told them; 0 for none"),
    key("ground", "slot", 99, "\"auto\", or the number of this daemon's slot; a daemon in a container needs one"),
];

const fn key(table: &'static str, key: &'static str, most: i64, text: &'static str) -> Key {
    Key { table, key, most, text }
}

impl Key {
    /// What holds without it, as it is written in the file.
    ///
    /// # Panics
    /// For a key that no field has, which a test excludes.
    pub fn default(&self) -> String {
        let defaults = toml::Table::try_from(Config::default()).expect("every field has a form in TOML");
        defaults[self.table][self.key].to_string()
    }
}

/// A file with every key and what holds without it.
pub fn sample() -> String {
    let set: Vec<String> = KEYS.iter().map(|key| format!("{} = {}", key.key, key.default())).collect();
    let width = set.iter().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    let mut table = "";
    for (key, set) in KEYS.iter().zip(set) {
        if key.table != table {
            let gap = if table.is_empty() { "" } else { "\n" };
            table = key.table;
            text += &format!("{gap}[{table}]\n");
        }
        text += &format!("{set:<width$}  # {}\n", key.text);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn the_table_has_every_field_and_no_other() {
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        let fields = defaults
            .iter()
            .flat_map(|(table, keys)| keys.as_table().unwrap().keys().map(move |key| format!("{table}.{key}")));
        let mut fields: Vec<String> = fields.collect();
        let mut known: Vec<String> = KEYS.iter().map(|key| format!("{}.{}", key.table, key.key)).collect();
        fields.sort();
        known.sort();
        assert_eq!(fields, known);
    }

    #[test]
    fn the_sample_is_a_configuration_that_changes_nothing() {
        assert_eq!(Config::parse(&sample(), Path::new("sample")).unwrap(), Config::default());
    }

    #[test]
    fn the_readme_has_the_sample() {
        let readme = include_str!("../../../../README.md");
        assert!(readme.contains(&format!("```toml\n{}```", sample())), "README.md wants this:\n{}", sample());
    }
}
