//! The configuration file: TOML, every key optional, unknown keys refused with a suggestion.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_api::vm::Net;
use serde::{Deserialize, Serialize};

use crate::dns::domain::Domain;
use crate::ground::Choice;
use crate::net::addresses::Subnet;

mod keys;

pub use keys::{KEYS, Key, sample};

const MIB: u64 = 1024 * 1024;

/// How many user ids are kept for VMMs.
pub const VMM_UIDS: u32 = 65_536;

/// What a daemon is told.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
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
    /// The network that guests are in.
    pub network: Network,
    /// Their names.
    pub dns: Dns,
    /// What keeps this daemon apart from others.
    pub ground: Ground,
}

/// What keeps this daemon apart from others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ground {
    /// Its slot.
    pub slot: Choice,
}

/// What a VM gets when its creator does not say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Whom the guest can reach.
    pub net: Net,
}

/// How images are built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Vmm {
    /// The first of the user ids that VMMs run as, one for each VM.
    pub first_uid: u32,
}

/// What guests are made to be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Guest {
    /// Whom a guest has beside root.
    pub user: GuestUser,
}

/// The network that guests are in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Its subnet; one that is free where none is named.
    #[serde(with = "subnet")]
    pub subnet: Option<Subnet>,
    /// How many TAPs wait for VMs.
    pub taps: usize,
}

/// The names of VMs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// The domain that they are in.
    pub domain: Domain,
    /// Where the host is answered, on its loopback address; 0 for nowhere.
    pub port: u16,
}

/// A subnet as a text, which may be empty.
mod subnet {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::net::addresses::Subnet;

    pub(super) fn serialize<S: Serializer>(subnet: &Option<Subnet>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&subnet.map(|subnet| subnet.to_string()).unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Subnet>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
    }
}

/// Whom a guest has beside root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
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
        Defaults { image: "debian".into(), cpus: 2, memory_mib: 1024, disk_mib: 8 * 1024, net: Net::Nat }
    }
}

impl Default for Dns {
    fn default() -> Dns {
        Dns { domain: Domain::default(), port: 42069 }
    }
}

impl Default for Network {
    fn default() -> Network {
        Network { subnet: None, taps: 4 }
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
    /// A number that is larger than what it stands for can be.
    #[error("the configuration {} has {key} = {value}, and it can be {most} at most", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The key, with its table.
        key: String,
        /// Its value.
        value: i64,
        /// The largest that is taken.
        most: i64,
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

    /// Reads a file's text; `path` is for messages.
    ///
    /// # Errors
    /// [`ConfigError`], but for [`ConfigError::Read`].
    pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
        let malformed = |error: toml::de::Error| ConfigError::Malformed {
            path: path.to_owned(),
            problem: one_line(&error.to_string()),
        };
        let table: toml::Table = text.parse().map_err(malformed)?;
        if let Some((key, suggestion)) = unknown_key(&table) {
            return Err(ConfigError::UnknownKey { path: path.to_owned(), key: one_line(&key), suggestion });
        }
        for Key { table: name, key, most, .. } in KEYS {
            if let Some(&toml::Value::Integer(value)) = table.get(*name).and_then(|table| table.get(*key))
                && value > *most
            {
                let key = format!("{name}.{key}");
                return Err(ConfigError::TooLarge { path: path.to_owned(), key, value, most: *most });
            }
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
        let known = || KEYS.iter().filter(|key| key.table == name).map(|key| key.key);
        if known().next().is_none() {
            return Some((name.clone(), nearest(name, KEYS.iter().map(|key| key.table))));
        }
        for key in value.as_table().into_iter().flat_map(toml::Table::keys) {
            if !known().any(|known| known == key) {
                let suggestion = nearest(key, known()).map(|known| format!("{name}.{known}"));
                return Some((format!("{name}.{key}"), suggestion));
            }
        }
    }
    None
}

/// A parser's words on one line, with what it quotes of the file made harmless to a terminal.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        for char in word.chars() {
            if char.is_control() { line.extend(char.escape_default()) } else { line.push(char) }
        }
    }
    line
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
    fn what_an_error_quotes_cannot_command_a_terminal() {
        for text in ["a = 1\n\u{8}\n", "\"\u{1b}[2J\\n\" = 1", "[defaults]\n\"\\u001b\" = 1", "a = \"\u{85}"] {
            let error = parse(text).unwrap_err();
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn numbers_that_nothing_can_be_are_refused() {
        let error = parse("[image]\nseed_mib = 9223372036854775807\n").unwrap_err();
        assert!(error.contains("image.seed_mib = 9223372036854775807") && error.contains("16777216"), "{error}");
        for key in KEYS.iter().filter(|key| key.most > 0) {
            let with = |value: i64| parse(&format!("[{}]\n{} = {value}\n", key.table, key.key));
            let config = with(key.most).unwrap();
            // None of these overflows.
            let _sizes = [config.memory(), config.disk(), config.image_size(), config.seed_size()];
            let _deadline = std::time::Instant::now() + config.timeouts.agent() + config.timeouts.stop();
            with(key.most + 1).unwrap_err();
        }
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
    fn a_slot_is_auto_or_a_number() {
        let slot = |text: &str| parse(&format!("[ground]\n{text}\n")).map(|config| config.ground.slot);
        assert_eq!((slot(""), slot("slot = 'auto'")), (Ok(Choice::Auto), Ok(Choice::Auto)));
        for number in [0, 7, 99] {
            let fixed = crate::ground::Slot::new(number).map(Choice::Fixed).unwrap();
            assert_eq!(slot(&format!("slot = {number}")), Ok(fixed));
        }
        for bad in ["slot = -1", "slot = 'one'", "slot = ''", "slot = 1.0", "slot = [1]"] {
            assert!(slot(bad).unwrap_err().contains("\"auto\" or a number from 0 to 99"), "{bad}");
        }
        assert!(slot("slot = 100").unwrap_err().contains("ground.slot = 100, and it can be 99 at most"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_an_error_in_one_line() {
        let error = parse("[defaults]\ncpus = 'two'\n").unwrap_err();
        assert!(error.contains("cpus") && !error.contains('\n'), "{error}");
    }
}
