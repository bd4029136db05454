//! The configuration file: TOML, every key optional, unknown keys refused with a suggestion.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

const MIB: u64 = 1024 * 1024;

/// How many user ids are kept for VMMs.
pub const VMM_UIDS: u32 = 65_536;

/// What a daemon is told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Config {
    /// What a VM gets when its creator does not say.
    pub defaults: Defaults,
    /// How images are built.
    pub image: Image,
    /// How long is waited for whom.
    pub timeouts: Timeouts,
    /// How VMMs are run.
    pub vmm: Vmm,
    /// What guests are made to be.
    pub guest: Guest,
}

/// What a VM gets when its creator does not say.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Defaults {
    /// The name of the image.
    pub image: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// The work disk, in MiB.
    pub disk_mib: u64,
}

/// How images are built.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Image {
    /// The root disk, in MiB.
    pub size_mib: u64,
    /// The work seed, in MiB; the smallest work disk.
    pub seed_mib: u64,
    /// What keeps packages' own scripts from the host.
    pub namespace: Namespace,
}

/// What keeps packages' own scripts, which run while an image is built, from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Namespace {
    /// A user namespace where that is possible, else nothing.
    #[default]
    Auto,
    /// A user namespace; without one nothing is built.
    User,
    /// Nothing: they run as root.
    None,
}

/// How long is waited for whom.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// From the start of a VMM until the agent answers, in seconds.
    pub agent_s: u64,
    /// For a guest that was asked to power off, in seconds.
    pub stop_s: u64,
    /// For a guest whose power button was pressed after that, in seconds.
    pub button_s: u64,
}

/// How VMMs are run.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Vmm {
    /// The first of the user ids that VMMs run as, one for each VM.
    pub first_uid: u32,
}

/// What guests are made to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Guest {
    /// Whom a guest has beside root.
    pub user: GuestUser,
}

/// Whom a guest has beside root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestUser {
    /// Who created the VM, unless that is root.
    #[default]
    Caller,
    /// Nobody.
    None,
}

impl Default for Defaults {
    fn default() -> Defaults {
        Defaults { image: "debian".into(), cpus: 2, memory_mib: 1024, disk_mib: 8 * 1024 }
    }
}

impl Default for Image {
    fn default() -> Image {
        Image { size_mib: 8 * 1024, seed_mib: 1024, namespace: Namespace::Auto }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts { agent_s: 60, stop_s: 30, button_s: 5 }
    }
}

impl Default for Vmm {
    fn default() -> Vmm {
        // Above what Debian gives to people, system users and, by default, to containers (adduser.conf(5), subuid(5)).
        Vmm { first_uid: 1_879_048_192 }
    }
}

/// The keys that exist, by table.
const KEYS: [(&str, &[&str]); 5] = [
    ("defaults", &["image", "cpus", "memory_mib", "disk_mib"]),
    ("image", &["size_mib", "seed_mib", "namespace"]),
    ("timeouts", &["agent_s", "stop_s", "button_s"]),
    ("vmm", &["first_uid"]),
    ("guest", &["user"]),
];

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file exists but cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no TOML, or a value has the wrong type.
    #[error("cannot use the configuration {}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The parser's words, one line.
        problem: String,
    },
    /// A key that does not exist.
    #[error("the configuration {} has an unknown key {key}{}", path.display(), suggestion.as_deref().map(|known| format!("; did you mean {known}?")).unwrap_or_default())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, with its table.
        key: String,
        /// The key that is nearest to it.
        suggestion: Option<String>,
    },
}

impl Config {
    /// Reads a file. A missing one is an empty one.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        Config::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let malformed = |error: toml::de::Error| ConfigError::Malformed {
            path: path.to_owned(),
            problem: error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
        };
        let table: toml::Table = text.parse().map_err(malformed)?;
        if let Some((key, suggestion)) = unknown_key(&table) {
            return Err(ConfigError::UnknownKey { path: path.to_owned(), key, suggestion });
        }
        table.try_into().map_err(malformed)
    }

    /// Memory of a VM by default, in bytes.
    pub fn memory(&self) -> u64 {
        self.defaults.memory_mib * MIB
    }

    /// Work disk of a VM by default, in bytes.
    pub fn disk(&self) -> u64 {
        self.defaults.disk_mib * MIB
    }

    /// Root disk of an image by default, in bytes.
    pub fn image_size(&self) -> u64 {
        self.image.size_mib * MIB
    }

    /// Work seed of an image, in bytes.
    pub fn seed_size(&self) -> u64 {
        self.image.seed_mib * MIB
    }

    /// The first of the user ids that belong to a build's user namespace: they follow those of VMMs.
    pub fn build_uid(&self) -> u32 {
        self.vmm.first_uid.saturating_add(VMM_UIDS)
    }
}

impl Timeouts {
    /// From the start of a VMM until the agent answers.
    pub fn agent(&self) -> Duration {
        Duration::from_secs(self.agent_s)
    }

    /// For a guest that was asked to power off.
    pub fn stop(&self) -> Duration {
        Duration::from_secs(self.stop_s)
    }

    /// For a guest whose power button was pressed.
    pub fn button(&self) -> Duration {
        Duration::from_secs(self.button_s)
    }
}

fn unknown_key(table: &toml::Table) -> Option<(String, Option<String>)> {
    for (name, value) in table {
        let Some((_, keys)) = KEYS.iter().find(|(known, _)| known == name) else {
            return Some((name.clone(), nearest(name, KEYS.iter().map(|(known, _)| *known))));
        };
        for key in value.as_table().into_iter().flat_map(toml::Table::keys) {
            if !keys.contains(&key.as_str()) {
                let suggestion = nearest(key, keys.iter().copied()).map(|known| format!("{name}.{known}"));
                return Some((format!("{name}.{key}"), suggestion));
            }
        }
    }
    None
}

/// The known word that is nearest, if any is near at all.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = known.map(|candidate| (distance(word, candidate), candidate));
    let (distance, best) = scored.min()?;
    (distance <= best.len().max(word.len()) / 2).then(|| best.to_owned())
}

/// Levenshtein's distance.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("c.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_absent_has_its_default() {
        let config = parse("[defaults]\ncpus = 4\n").unwrap();
        assert_eq!((config.defaults.cpus, config.defaults.memory_mib), (4, 1024));
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_known_one() {
        let error = parse("[defaults]\nmemory_mb = 4\n").unwrap_err();
        assert!(error.contains("defaults.memory_mb") && error.contains("defaults.memory_mib?"), "{error}");
        let error = parse("[default]\n").unwrap_err();
        assert!(error.contains("did you mean defaults?"), "{error}");
        assert!(!parse("zzz = 1").unwrap_err().contains("did you mean"));
    }

    #[test]
    fn every_key_that_exists_is_known() {
        let text: String = [
            "[defaults]\nimage = 'a'\ncpus = 1\nmemory_mib = 1\ndisk_mib = 1\n",
            "[image]\nsize_mib = 1\nseed_mib = 1\nnamespace = 'auto'\n[timeouts]\nagent_s = 1\nstop_s = 1\nbutton_s = 1\n",
            "[vmm]\nfirst_uid = 1\n[guest]\nuser = 'none'\n",
        ]
        .concat();
        parse(&text).unwrap();
    }

    #[test]
    fn a_guests_user_is_one_of_two_words() {
        assert_eq!(parse("[guest]\n").unwrap().guest.user, GuestUser::Caller);
        assert_eq!(parse("[guest]\nuser = 'none'\n").unwrap().guest.user, GuestUser::None);
        let error = parse("[guest]\nuser = 'me'\n").unwrap_err();
        assert!(error.contains("`caller` or `none`"), "{error}");
    }

    #[test]
    fn a_builds_namespace_is_one_of_three_words() {
        let namespace = |text: &str| parse(text).map(|config| config.image.namespace);
        assert_eq!(namespace("[image]\n"), Ok(Namespace::Auto));
        assert_eq!(namespace("[image]\nnamespace = 'user'\n"), Ok(Namespace::User));
        assert_eq!(namespace("[image]\nnamespace = 'none'\n"), Ok(Namespace::None));
        assert!(namespace("[image]\nnamespace = 'pid'\n").unwrap_err().contains("`auto`, `user`, `none`"));
    }

    #[test]
    fn a_builds_ids_are_no_vmms() {
        let config = parse("[vmm]\nfirst_uid = 100000\n").unwrap();
        assert_eq!(config.build_uid(), 165_536);
        // Where there are none the kernel refuses, and the build says so.
        assert_eq!(parse("[vmm]\nfirst_uid = 4294967295\n").unwrap().build_uid(), u32::MAX);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_an_error_in_one_line() {
        let error = parse("[defaults]\ncpus = 'two'\n").unwrap_err();
        assert!(error.contains("cpus") && !error.contains('\n'), "{error}");
    }
}
