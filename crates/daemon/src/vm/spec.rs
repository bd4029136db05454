//! From a request to a validated machine. Pure: the last point without effects.

use std::collections::{BTreeMap, HashSet};

use banger_api::exec::MAX_PATH;
use banger_api::name::HOST;
use banger_api::port::Publish;
use banger_api::ssh;
use banger_api::vm::{Lifetime, MAX_CPUS, MAX_DISK, MAX_PUBLISH, MIN_MEMORY, Net, RestartPolicy, User, VmCreate};

use crate::config::{Config, GuestUser};
use crate::image::record::ImageRecord;

const MIB: u64 = 1024 * 1024;

/// The longest name of a variable, and the most bytes of all variables; far below the kernel's own limit (execve(2)).
const MAX_ENV: usize = 64 * 1024;

/// A validated machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// A valid name.
    pub name: String,
    /// The image.
    pub image: ImageRecord,
    /// At least one.
    pub cpus: u32,
    /// Bytes, a multiple of a MiB.
    pub memory: u64,
    /// Bytes, a multiple of a MiB.
    pub disk: u64,
    /// Variables with valid names.
    pub env: BTreeMap<String, String>,
    /// An absolute path.
    pub workdir: Option<String>,
    /// Whom the guest has beside root, without a flaw.
    pub user: Option<User>,
    /// Public SSH keys whose owners may log in.
    pub ssh_keys: Vec<String>,
    /// Whom the guest can reach.
    pub net: Net,
    /// Ports of the host that lead to its own: not too many, each once.
    pub publish: Vec<Publish>,
    /// When it goes by itself.
    pub lifetime: Lifetime,
    /// When it starts again by itself.
    pub restart: RestartPolicy,
}

/// What the host has to offer, looked up before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Physical memory, in bytes.
    pub memory: u64,
}

/// Why a request cannot be made a machine of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The name breaks the rule.
    #[error("{:?} cannot be a VM's name: {rule}", shown(name))]
    Name {
        /// The name.
        name: String,
        /// The rule that it breaks.
        rule: &'static str,
    },
    /// There is no such image, or it is not ready.
    #[error("there is no image {0}")]
    NoImage(String),
    /// No virtual processor, or too many.
    #[error("a VM can have 1 to {MAX_CPUS} cpus, not {0}")]
    Cpus(u32),
    /// Too little memory.
    #[error("a VM needs at least {} MiB of memory, not {} MiB", MIN_MEMORY / MIB, .0 / MIB)]
    LittleMemory(u64),
    /// More memory than there is.
    #[error("the host has {} MiB of memory, and {} MiB were asked for", host / MIB, wanted / MIB)]
    MuchMemory {
        /// What there is.
        host: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// A work disk smaller than the image's seed, or larger than any.
    #[error("a work disk can have {} MiB to {} MiB with this image, not {} MiB", least / MIB, MAX_DISK / MIB, wanted / MIB)]
    Disk {
        /// The seed's size.
        least: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// A work disk larger than its file system can be.
    #[error("a work disk can have at most {} MiB, not {} MiB", MAX_DISK / MIB, .0 / MIB)]
    LargeDisk(u64),
    /// A variable's name is none.
    #[error("{:?} cannot be a variable's name, or its value has a NUL", shown(.0))]
    Variable(String),
    /// Too many bytes of variables.
    #[error("the variables take more than {MAX_ENV} bytes")]
    Environment,
    /// A VM that goes with its command or client, and is to start again.
    #[error("a VM that is removed when it stops cannot start again by itself")]
    RestartsRemoved,
    /// Nothing is asked for.
    #[error("nothing is to be changed")]
    NoChange,
    /// A smaller work disk.
    #[error("a work disk can only grow: it has {} MiB, and {} MiB were asked for", has / MIB, wanted / MIB)]
    Shrink {
        /// Its size.
        has: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// A working directory that is no absolute path.
    #[error("the working directory {:?} is no absolute path in the guest of at most {MAX_PATH} bytes", shown(.0))]
    Workdir(String),
    /// Too many ports.
    #[error("a VM can publish at most {MAX_PUBLISH} ports, not {0}")]
    ManyPorts(usize),
    /// A port of the host that shall lead to two.
    #[error("{} is to be published twice", .0.at())]
    PortTwice(Publish),
    /// A line that is no public SSH key, or too many of them.
    #[error("{}: {flaw}", match line { Some(line) => format!("{line:?} cannot be an SSH key"), None => "these SSH keys are too many".to_owned() })]
    SshKey {
        /// The line's begin.
        line: Option<String>,
        /// What is wrong.
        flaw: &'static str,
    },
    /// A user whom no guest can be given.
    #[error("{name:?} cannot be a guest's user with the numbers {uid} and {gid}: {flaw}")]
    User {
        /// The name.
        name: String,
        /// The user id.
        uid: u32,
        /// The group id.
        gid: u32,
        /// What is wrong.
        flaw: &'static str,
    },
}

/// Makes a validated machine of a request. `name` is the request's or a made-up one; `seed` is the size of the image's work
/// seed, in bytes.
///
/// # Errors
/// [`SpecError`].
pub fn resolve(
    request: &VmCreate,
    name: String,
    image: Option<ImageRecord>,
    seed: u64,
    host: &Host,
    config: &Config,
) -> Result<Spec, SpecError> {
    check(request)?;
    check_name(&name)?;
    let image = image
        .ok_or_else(|| SpecError::NoImage(request.image.clone().unwrap_or_else(|| config.defaults.image.clone())))?;
    let cpus = check_cpus(request.cpus.unwrap_or(config.defaults.cpus))?;
    let memory = check_memory(request.memory.unwrap_or_else(|| config.memory()), host)?;
    let disk = check_disk(request.disk.unwrap_or_else(|| config.disk().max(seed)))?;
    if disk < seed {
        return Err(SpecError::Disk { least: seed, wanted: disk });
    }
    let user = match config.guest.user {
        GuestUser::Caller => request.user.clone(),
        GuestUser::None => None,
    };
    Ok(Spec {
        name,
        image,
        cpus,
        memory,
        disk,
        env: request.env.clone(),
        workdir: request.workdir.clone(),
        user,
        ssh_keys: with_keys(&[], &request.ssh_keys)?,
        net: request.net.unwrap_or(config.defaults.net),
        publish: request.publish.clone(),
        lifetime: request.lifetime,
        restart: request.restart,
    })
}

/// Checks what can be said of a request without a look at the host.
///
/// # Errors
/// [`SpecError`].
pub fn check(request: &VmCreate) -> Result<(), SpecError> {
    request.name.as_deref().map_or(Ok(()), check_name)?;
    if request.lifetime != Lifetime::Kept && request.restart != RestartPolicy::No {
        return Err(SpecError::RestartsRemoved);
    }
    request.cpus.map(check_cpus).transpose()?;
    request.memory.map_or(Ok(()), check_least_memory)?;
    request.disk.map(check_disk).transpose()?;
    check_env(&request.env)?;
    request.workdir.as_deref().map_or(Ok(()), check_workdir)?;
    check_ports(&request.publish)?;
    with_keys(&[], &request.ssh_keys)?;
    match request.user.as_ref().and_then(|user| Some((user, user.flaw()?))) {
        Some((user, flaw)) => Err(SpecError::User { name: user.name.clone(), uid: user.uid, gid: user.gid, flaw }),
        None => Ok(()),
    }
}

/// Checks a number of processors.
///
/// # Errors
/// [`SpecError::Cpus`].
pub fn check_cpus(cpus: u32) -> Result<u32, SpecError> {
    if (1..=MAX_CPUS).contains(&cpus) { Ok(cpus) } else { Err(SpecError::Cpus(cpus)) }
}

/// Checks an amount of memory, in bytes; the same in whole MiB.
///
/// # Errors
/// [`SpecError::LittleMemory`], [`SpecError::MuchMemory`].
pub fn check_memory(memory: u64, host: &Host) -> Result<u64, SpecError> {
    check_least_memory(memory)?;
    let wanted = whole_mib(memory);
    if wanted > host.memory { Err(SpecError::MuchMemory { host: host.memory, wanted }) } else { Ok(wanted) }
}

fn check_least_memory(memory: u64) -> Result<(), SpecError> {
    if memory >= MIN_MEMORY { Ok(()) } else { Err(SpecError::LittleMemory(memory)) }
}

/// Checks a work disk's size, in bytes; the same in whole MiB.
///
/// # Errors
/// [`SpecError::LargeDisk`].
pub fn check_disk(disk: u64) -> Result<u64, SpecError> {
    if disk <= MAX_DISK { Ok(whole_mib(disk)) } else { Err(SpecError::LargeDisk(disk)) }
}

/// Bytes, rounded up to whole MiB; down only where there is no such number, which is more than anything has.
pub fn whole_mib(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(MIB).unwrap_or(u64::MAX / MIB * MIB)
}

/// Checks a directory in a guest.
///
/// # Errors
/// [`SpecError::Workdir`].
pub fn check_workdir(workdir: &str) -> Result<(), SpecError> {
    let good = workdir.starts_with('/') && !workdir.contains('\0') && workdir.len() <= MAX_PATH;
    if good { Ok(()) } else { Err(SpecError::Workdir(workdir.to_owned())) }
}

fn check_ports(ports: &[Publish]) -> Result<(), SpecError> {
    if ports.len() > MAX_PUBLISH {
        return Err(SpecError::ManyPorts(ports.len()));
    }
    let mut seen = HashSet::new();
    ports.iter().find(|port| !seen.insert(port.at())).map_or(Ok(()), |twice| Err(SpecError::PortTwice(*twice)))
}

/// Checks variables as a request gives them.
///
/// # Errors
/// [`SpecError::Variable`], [`SpecError::Environment`].
pub fn check_env(env: &BTreeMap<String, String>) -> Result<(), SpecError> {
    let bad = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = env.keys().find(bad) {
        return Err(SpecError::Variable(name.clone()));
    }
    if let Some((name, _)) = env.iter().find(|(_, value)| value.contains('\0')) {
        return Err(SpecError::Variable(name.clone()));
    }
    if env.iter().map(|(name, value)| name.len() + value.len() + 2).sum::<usize>() > MAX_ENV {
        return Err(SpecError::Environment);
    }
    Ok(())
}

/// Keys with more of them; each only once, whatever is said about it.
///
/// # Errors
/// [`SpecError::SshKey`].
pub fn with_keys(keys: &[String], more: &[String]) -> Result<Vec<String>, SpecError> {
    let mut all: Vec<String> = keys.to_vec();
    for key in more {
        if !all.iter().any(|known| ssh::key_of(known) == ssh::key_of(key)) {
            all.push(key.clone());
        }
    }
    match ssh::flaw_of_all(&all) {
        Some((line, flaw)) => Err(SpecError::SshKey { line: line.map(shown), flaw }),
        None => Ok(all),
    }
}

/// The begin of a text that may be long.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A name is a host name's label: it becomes one (RFC 1123), in lower case.
///
/// # Errors
/// [`SpecError::Name`].
pub fn check_name(name: &str) -> Result<(), SpecError> {
    let refuse = |rule| Err(SpecError::Name { name: name.to_owned(), rule });
    if name.is_empty() || name.len() > 63 {
        return refuse("it must have 1 to 63 characters");
    }
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return refuse("it may have only lower-case letters, digits and hyphens");
    }
    if !name.starts_with(|first: char| first.is_ascii_lowercase()) || name.ends_with('-') {
        return refuse("it must begin with a letter and may not end with a hyphen");
    }
    if name == HOST {
        return refuse("it is the host's own name among its VMs");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::record::ImageState;

    fn image() -> ImageRecord {
        ImageRecord {
            id: "i".into(),
            name: "debian".into(),
            state: ImageState::Ready,
            system: String::new(),
            kernel: String::new(),
            size: 8 << 30,
            packages: 1,
            manifest: String::new(),
            work_seed: true,
            suite: String::new(),
            added: Vec::new(),
            created: 0,
        }
    }

    fn with(name: &str, change: impl FnOnce(&mut VmCreate)) -> Result<Spec, SpecError> {
        let mut request = VmCreate::default();
        change(&mut request);
        let host = Host { memory: 4 << 30 };
        resolve(&request, name.to_owned(), Some(image()), 1 << 30, &host, &Config::default())
    }

    #[test]
    fn an_empty_request_takes_the_defaults() {
        let spec = with("devbox", |_| ()).unwrap();
        assert_eq!((spec.cpus, spec.memory, spec.disk), (2, 1 << 30, 8 << 30));
    }

    #[test]
    fn names_that_no_host_could_have_are_refused() {
        for name in ["", "-a", "a-", "1a", "A", "a_b", "a.b", "ä", "a b", "../x", &"a".repeat(64)] {
            assert!(matches!(with(name, |_| ()), Err(SpecError::Name { .. })), "{name}");
        }
        for name in ["a", "a-1", &"a".repeat(63)] {
            assert!(with(name, |_| ()).is_ok(), "{name}");
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        assert_eq!(with("a", |r| r.cpus = Some(0)), Err(SpecError::Cpus(0)));
        assert_eq!(with("a", |r| r.cpus = Some(256)), Err(SpecError::Cpus(256)));
        assert!(matches!(with("a", |r| r.memory = Some(1)), Err(SpecError::LittleMemory(_))));
        assert!(matches!(with("a", |r| r.memory = Some(5 << 30)), Err(SpecError::MuchMemory { .. })));
        assert!(matches!(with("a", |r| r.disk = Some(1 << 20)), Err(SpecError::Disk { .. })));
    }

    #[test]
    fn sizes_beyond_all_bounds_are_refused_and_not_rounded_to_nothing() {
        for most in [u64::MAX, u64::MAX - MIB, 1 << 63] {
            assert!(matches!(with("a", |r| r.memory = Some(most)), Err(SpecError::MuchMemory { .. })), "{most}");
            assert!(matches!(with("a", |r| r.disk = Some(most)), Err(SpecError::LargeDisk(_))), "{most}");
        }
        assert_eq!(with("a", |r| r.disk = Some(MAX_DISK)).unwrap().disk, MAX_DISK);
    }

    #[test]
    fn variables_and_directories_that_cannot_be_are_refused() {
        for name in ["", "a=b", "a\0"] {
            assert!(with("a", |r| r.env = [(name.to_owned(), String::new())].into()).is_err());
        }
        assert!(with("a", |r| r.workdir = Some("here".into())).is_err());
    }

    #[test]
    fn a_user_is_taken_unless_it_has_a_flaw_or_none_is_wanted() {
        let dev = User { name: "dev".into(), uid: 1000, gid: 1000 };
        assert_eq!(with("a", |r| r.user = Some(dev.clone())).unwrap().user, Some(dev.clone()));
        let root = User { uid: 0, ..dev.clone() };
        assert!(matches!(with("a", |r| r.user = Some(root)), Err(SpecError::User { uid: 0, .. })));
        let mut config = Config::default();
        config.guest.user = GuestUser::None;
        let request = VmCreate { user: Some(dev), ..VmCreate::default() };
        let spec = resolve(&request, "a".into(), Some(image()), 1 << 30, &Host { memory: 4 << 30 }, &config).unwrap();
        assert_eq!(spec.user, None);
    }

    #[test]
    fn keys_are_checked_and_each_is_there_once() {
        const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGJ1dCBub3QgYSByZWFsIG9uZSBhdCBhbGwhISEh";
        let (one, again) = (format!("{KEY} one"), format!("{KEY} again"));
        let keys = with("a", |r| r.ssh_keys = vec![one.clone(), again.clone()]).unwrap().ssh_keys;
        assert_eq!(keys, std::slice::from_ref(&one));
        assert_eq!(with_keys(&keys, &[again, KEY.replace("GJ1", "GJ2")]).unwrap(), [one, KEY.replace("GJ1", "GJ2")]);
        let refused = with("a", |r| r.ssh_keys = vec!["x".repeat(9000)]).unwrap_err();
        assert!(matches!(&refused, SpecError::SshKey { line: Some(line), .. } if line.len() == 80), "{refused}");
    }

    #[test]
    fn an_unknown_image_is_named() {
        let request = VmCreate { image: Some("nope".into()), ..VmCreate::default() };
        let host = Host { memory: 4 << 30 };
        let refused = resolve(&request, "a".into(), None, 0, &host, &Config::default());
        assert_eq!(refused, Err(SpecError::NoImage("nope".into())));
    }
}
