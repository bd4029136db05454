//! Claims on user ids: a file for each uid slot below `/run/banger-ground`, locked by flock(2) while its daemon runs.
//!
//! A claim outlives its daemon if it must: the file names the ground, and while a process runs under one of its ids, no
//! other ground takes the slot. The lock does not work across mount and pid namespaces: configure a slot there.
//!
//! Daemons make and give up claims under a lock on the directory, so that none removes a file that another one locks.

use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_linux::file::{lock_within, try_lock};
use banger_linux::process::{self, Process};
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::{Choice, GroundId, Slot, Uids};

/// The longest claim that a daemon reads, in bytes: two paths and some words.
const LONGEST: u64 = 16 * 1024;

/// How long a killed daemon may hold its claim through a child that has not executed its program yet.
const DYING: Duration = Duration::from_secs(5);

/// The directory of all claims.
#[derive(Debug, Clone)]
pub struct Claims {
    dir: PathBuf,
}

/// The content of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The ground.
    pub id: GroundId,
    /// Its user ids.
    pub uids: Uids,
    /// Its state directory.
    pub state: PathBuf,
    /// The socket of its daemon.
    pub socket: PathBuf,
}

/// A ground that claims user ids.
#[derive(Debug, Clone)]
pub struct Claimant<'a> {
    /// The ground.
    pub id: GroundId,
    /// Its state directory.
    pub state: &'a Path,
    /// The socket of its daemon.
    pub socket: &'a Path,
    /// Which slots it may take.
    pub choice: Choice,
    /// The slot that it had last.
    pub had: Option<Slot>,
    /// Where slot 0 begins.
    pub first_uid: u32,
    /// The processes of its own VMs.
    pub own: &'a HashSet<u32>,
    /// The user ids that its VMs have.
    pub kept: &'a HashSet<u32>,
}

/// A uid slot of this daemon, until the value is dropped or [given up](Claimed::give_up).
#[derive(Debug)]
pub struct Claimed {
    /// The slot.
    pub slot: Slot,
    /// Its user ids.
    pub uids: Uids,
    /// The files and directory of its claims; `None` for a daemon that cannot change its user anyway.
    held: Option<Held>,
}

/// The locked files of the claims: that of the slot, and those of earlier slots whose ids VMs still have.
#[derive(Debug)]
struct Held {
    files: Vec<(Slot, Uids, File)>,
    claims: Claims,
}

/// Why no user ids can be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The directory or a file in it.
    #[error("cannot {attempted} {}", path.display())]
    Io {
        /// What was attempted.
        attempted: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another user could change claims.
    #[error("{} is not a directory of root's alone", path.display())]
    Unsafe {
        /// The directory.
        path: PathBuf,
    },
    /// Another ground has the configured slot.
    #[error("uid slot {slot} is taken: {by}")]
    Taken {
        /// The slot.
        slot: Slot,
        /// Its owner.
        by: String,
    },
    /// Other grounds have all slots.
    #[error("no uid slot is free; the first one is taken: {by}")]
    NoneFree {
        /// The owner of the first one.
        by: String,
    },
    /// The slot has no ids.
    #[error("uid slot {slot} has no user ids: with first_uid = {first_uid} they would reach past the last one")]
    NoIds {
        /// The slot.
        slot: Slot,
        /// Where slot 0 begins.
        first_uid: u32,
    },
}

impl ClaimError {
    /// What to do.
    pub fn help(&self) -> &'static str {
        match self {
            ClaimError::Io { .. } => "run the daemon as root, with /run mounted for writing",
            ClaimError::Unsafe { .. } => "look at who made it, and remove it; banger makes it again with mode 0700",
            ClaimError::Taken { .. } => {
                "set `slot` below `[ground]` in the configuration to a free number or to \"auto\""
            }
            ClaimError::NoneFree { .. } => "stop a daemon that is not needed, with its VMs",
            ClaimError::NoIds { .. } => "set `first_uid` below `[vmm]` in the configuration to a lower number",
        }
    }
}

/// A slot that somebody owns.
struct Other {
    uids: Uids,
    by: String,
}

impl Claims {
    /// The claims in this directory. Made at the first claim.
    pub fn new(dir: PathBuf) -> Claims {
        Claims { dir }
    }

    /// Claims a slot: the first one that the claimant may take and whose ids nobody else has.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn claim(&self, claimant: &Claimant<'_>) -> Result<Claimed, ClaimError> {
        let Claimant { choice, had, first_uid, .. } = *claimant;
        let no_ids = |slot| ClaimError::NoIds { slot, first_uid };
        if !rustix::process::geteuid().is_root() {
            // Its VMMs run as the daemon's own user.
            let slot = choice.expected(had);
            return Ok(Claimed { slot, uids: Uids::of(slot, first_uid).ok_or(no_ids(slot))?, held: None });
        }
        let _guard = self.guard()?;
        let others = self.others(claimant)?;
        let mut first = None;
        for slot in choice.candidates(had) {
            let Some(uids) = Uids::of(slot, first_uid) else {
                first.get_or_insert(no_ids(slot));
                continue;
            };
            if let Some(other) = others.iter().find(|other| other.uids.overlaps(uids)) {
                let by = other.by.clone();
                first.get_or_insert(match choice {
                    Choice::Fixed(_) => ClaimError::Taken { slot, by },
                    Choice::Auto => ClaimError::NoneFree { by },
                });
                continue;
            }
            let path = self.file(slot);
            let file = open(&path, true)?;
            if !try_lock(&file).map_err(io_error("lock", &path))? {
                first.get_or_insert(ClaimError::Taken { slot, by: "a process that does not say so".to_owned() });
                continue;
            }
            write(&file, claimant, uids).map_err(io_error("write", &path))?;
            let mut files = vec![(slot, uids, file)];
            files.extend(self.earlier(claimant, slot, &others)?);
            return Ok(Claimed { slot, uids, held: Some(Held { files, claims: self.clone() }) });
        }
        Err(first.unwrap_or(no_ids(Slot::FIRST)))
    }

    /// Claims the other slots whose ids the ground's VMs still have, if they are free. Removes the ground's other claims.
    fn earlier(
        &self,
        claimant: &Claimant<'_>,
        claimed: Slot,
        others: &[Other],
    ) -> Result<Vec<(Slot, Uids, File)>, ClaimError> {
        let mut files = Vec::new();
        for slot in Slot::all().filter(|slot| *slot != claimed) {
            let path = self.file(slot);
            let is_kept = |uids: &Uids| claimant.kept.iter().any(|uid| uids.is_vmm(*uid));
            let is_free = |uids: &Uids| !others.iter().any(|other| other.uids.overlaps(*uids));
            if let Some(uids) = Uids::of(slot, claimant.first_uid).filter(is_kept).filter(is_free) {
                let file = open(&path, true)?;
                if try_lock(&file).map_err(io_error("lock", &path))? {
                    write(&file, claimant, uids).map_err(io_error("write", &path))?;
                    files.push((slot, uids, file));
                }
            } else if let Some(mut file) = existing(&path)?
                && read(&mut file).is_some_and(|claim| claim.id == claimant.id && !is_kept(&claim.uids))
            {
                std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(files)
    }

    /// All recorded claims, by slot. Locks nothing and skips files that it cannot read.
    pub fn recorded(&self) -> Vec<(Slot, Claim)> {
        let read = |slot: Slot| Some((slot, read(&mut File::open(self.file(slot)).ok()?)?));
        Slot::all().filter_map(read).collect()
    }

    /// The file in which the grounds of this network namespace record the links that they switched.
    pub fn forwarding(&self) -> PathBuf {
        let namespace = banger_linux::netns::cookie().unwrap_or_default();
        self.dir.join(format!("forwarding-{namespace}"))
    }

    /// The owners of the slots that are not free: those whose lock is held, and those with a process under their ids
    /// that is none of the claimant's. Removes claims that no longer stand for anything.
    fn others(&self, claimant: &Claimant<'_>) -> Result<Vec<Other>, ClaimError> {
        let running = process::all().map_err(io_error("list processes in", Path::new("/proc")))?;
        let mut others = Vec::new();
        for slot in Slot::all() {
            let path = self.file(slot);
            let expected = Uids::of(slot, claimant.first_uid);
            let mut stranger = running.iter().filter(|process| !claimant.own.contains(&process.pid));
            let Some(mut file) = existing(&path)? else {
                // A daemon without claims (an older one) has its VMs here.
                if let Some(uids) = expected
                    && let Some(process) = stranger.find(|process| uids.contains(process.uid))
                {
                    others.push(Other { uids, by: format!("{}, of no claim", told(process.pid)) });
                }
                continue;
            };
            let claim = read(&mut file);
            let is_own = claim.as_ref().is_some_and(|claim| claim.id == claimant.id);
            // This daemon holds the state directory's lock: another holder of the ground's claim is about to end.
            let is_free = if is_own { lock_within(&file, DYING) } else { try_lock(&file) };
            let is_free = is_free.map_err(io_error("lock", &path))?;
            let Some(uids) = claim.as_ref().map(|claim| claim.uids).or(expected) else { continue };
            let whose = || match &claim {
                Some(claim) => format!("the daemon of {}, on {}", claim.state.display(), claim.socket.display()),
                None => "a daemon that does not say so".to_owned(),
            };
            if !is_free {
                others.push(Other { uids, by: whose() });
            } else if is_own {
                continue;
            } else if let Some(process) = stranger.find(|process| uids.contains(process.uid)) {
                others.push(Other { uids, by: format!("{}, of {}", told(process.pid), whose()) });
            } else {
                std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(others)
    }

    fn file(&self, slot: Slot) -> PathBuf {
        self.dir.join(slot.to_string())
    }

    /// The directory, locked. Opened again if another daemon removes it between opening and locking.
    fn guard(&self) -> Result<File, ClaimError> {
        loop {
            let made = DirBuilder::new().mode(0o700).create(&self.dir);
            match made {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io_error("make the directory", &self.dir)(error));
                }
                _ => {}
            }
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let dir = match rustix::fs::open(&self.dir, flags, Mode::empty()) {
                Ok(opened) => File::from(opened),
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(io_error("open the directory", &self.dir)(error.into())),
            };
            let found = dir.metadata().map_err(io_error("look at the directory", &self.dir))?;
            if found.uid() != 0 || found.mode() & 0o077 != 0 {
                return Err(ClaimError::Unsafe { path: self.dir.clone() });
            }
            rustix::fs::flock(&dir, FlockOperation::LockExclusive)
                .map_err(|error| io_error("lock the directory", &self.dir)(error.into()))?;
            let is_it =
                std::fs::metadata(&self.dir).is_ok_and(|now| now.ino() == found.ino() && now.dev() == found.dev());
            if is_it {
                return Ok(dir);
            }
        }
    }
}

impl Claimed {
    /// The claims of others.
    pub fn others(&self) -> Vec<Claim> {
        let Some(held) = &self.held else { return Vec::new() };
        let is_own = |slot: Slot| held.files.iter().any(|(own, ..)| *own == slot);
        held.claims.recorded().into_iter().filter(|(slot, _)| !is_own(*slot)).map(|(_, claim)| claim).collect()
    }

    /// Whether a VM may have this user id, because this daemon has claimed its slot. Always true for a daemon that cannot
    /// change its user, which claims none.
    pub fn has(&self, uid: u32) -> bool {
        match &self.held {
            Some(held) => held.files.iter().any(|(_, uids, _)| uids.is_vmm(uid)),
            None => true,
        }
    }

    /// Gives the slot up. While VMs run under its ids, the claim stays and names their owner.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn give_up(&mut self, vms_run: bool) -> Result<(), ClaimError> {
        let Some(Held { files, claims }) = self.held.take() else { return Ok(()) };
        let _guard = claims.guard()?;
        if !vms_run {
            for (slot, _, file) in files {
                let path = claims.file(slot);
                let own = file.metadata().map_err(io_error("look at", &path))?;
                // Somebody may have removed it, and another daemon may have made its own in its place.
                if std::fs::metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (own.dev(), own.ino())) {
                    std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
                }
            }
            // Fails if other claims are in it.
            drop(std::fs::remove_dir(&claims.dir));
        }
        Ok(())
    }
}

/// A process in words.
fn told(pid: u32) -> String {
    let name = Process::open(pid, None).and_then(|process| process.name());
    name.map_or_else(|_| format!("process {pid}"), |name| format!("process {pid} ({name})"))
}

fn open(path: &Path, create: bool) -> Result<File, ClaimError> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let flags = if create { flags | OFlags::CREATE } else { flags };
    let opened = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600));
    opened.map(File::from).map_err(|error| io_error("open", path)(error.into()))
}

fn existing(path: &Path) -> Result<Option<File>, ClaimError> {
    match open(path, false) {
        Err(ClaimError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn write(mut file: &File, claimant: &Claimant<'_>, uids: Uids) -> io::Result<()> {
    let Claimant { id, state, socket, .. } = claimant;
    // A path with a line break is cut there; nobody acts on it.
    let path = |path: &Path| path.display().to_string().lines().next().unwrap_or_default().to_owned();
    let text = format!("ground {id}\nfirst-uid {}\nstate {}\nsocket {}\n", uids.first(), path(state), path(socket));
    io::Seek::rewind(&mut file)?;
    // In this order, so that no reader ever finds an empty file.
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

fn read(file: &mut File) -> Option<Claim> {
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    Some(Claim {
        id: value("ground")?.parse().ok()?,
        uids: Uids::from(value("first-uid")?.parse().ok()?),
        state: value("state")?.into(),
        socket: value("socket")?.into(),
    })
}

fn io_error(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClaimError {
    let path = path.to_owned();
    move |source| ClaimError::Io { attempted, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_linux::process::{Credentials, Launch, Leash, Program};
    use std::os::unix::fs::PermissionsExt;

    /// Ids that nobody on a host has by chance.
    const FIRST: u32 = 3_000_000_000;

    /// Runs a test with a directory for claims; only root has anything to claim.
    fn with_claims(test: impl FnOnce(&Claims)) {
        if !rustix::process::geteuid().is_root() {
            return banger_skip::skipped!("only root claims user ids");
        }
        let dir = tempfile::tempdir().unwrap();
        test(&Claims::new(dir.path().join("claims")));
    }

    struct Wish {
        number: u8,
        choice: Choice,
        had: Option<Slot>,
        first_uid: u32,
        own: HashSet<u32>,
        kept: HashSet<u32>,
    }

    fn wish(number: u8) -> Wish {
        Wish { number, choice: Choice::Auto, had: None, first_uid: FIRST, own: HashSet::new(), kept: HashSet::new() }
    }

    fn claim(claims: &Claims, wish: &Wish) -> Result<Claimed, ClaimError> {
        let state = PathBuf::from(format!("/state/{}", wish.number));
        let Wish { choice, had, first_uid, ref own, ref kept, .. } = *wish;
        let id = GroundId::from_random([wish.number; 8]);
        let socket = Path::new("/run/socket");
        claims.claim(&Claimant { id, state: &state, socket, choice, had, first_uid, own, kept })
    }

    fn slot(number: i64) -> Slot {
        Slot::new(number).unwrap()
    }

    /// A process under a user id. Dropping the result ends it.
    fn process(uid: u32) -> Leash {
        let mut launch = Launch::new(Program::Command("/bin/sleep".into()), ["60"]);
        launch.credentials = Some(Credentials { uid, gid: uid, groups: Vec::new() });
        Leash::start(launch).unwrap()
    }

    #[test]
    fn each_ground_has_a_slot_of_its_own_and_gets_it_again() {
        with_claims(|claims| {
            let [mut one, mut two] = [1, 2].map(|number| claim(claims, &wish(number)).unwrap());
            assert_eq!((one.slot.number(), two.slot.number()), (0, 1));
            assert_eq!((one.uids.first(), two.uids.first()), (FIRST, FIRST + 131_072));
            let [first, second] = [0, 1].map(|at| claims.recorded()[at].clone());
            assert_eq!((first.0, first.1.state, first.1.socket), (slot(0), "/state/1".into(), "/run/socket".into()));
            assert_eq!((second.1.id, second.1.uids), (GroundId::from_random([2; 8]), two.uids));
            for (path, mode) in [(claims.file(slot(0)), 0o600), (claims.dir.clone(), 0o700)] {
                assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o7777, mode);
            }
            let names_other =
                claim(claims, &Wish { choice: Choice::Fixed(slot(1)), ..wish(3) }).unwrap_err().to_string();
            assert_eq!(names_other, "uid slot 1 is taken: the daemon of /state/2, on /run/socket");
            // It gets the slot that it had, although others are free; a slot that was given up is free for all.
            one.give_up(false).unwrap();
            assert_eq!(claim(claims, &Wish { had: Some(slot(5)), ..wish(3) }).unwrap().slot, slot(5));
            assert_eq!(claim(claims, &wish(4)).unwrap().slot, slot(0));
            two.give_up(false).unwrap();
        });
    }

    #[test]
    fn the_last_daemon_that_goes_leaves_nothing() {
        with_claims(|claims| {
            let [mut one, mut two] = [1, 2].map(|number| claim(claims, &wish(number)).unwrap());
            one.give_up(false).unwrap();
            assert!(claims.dir.exists());
            two.give_up(false).unwrap();
            two.give_up(false).unwrap();
            assert!(!claims.dir.exists());
        });
    }

    #[test]
    fn the_claim_of_a_dead_daemon_holds_while_a_process_runs_under_its_ids() {
        with_claims(|claims| {
            let vm = process(FIRST + 7);
            let pid = vm.process().unwrap().pid();
            let own = HashSet::from([pid]);
            let mut ours = claim(claims, &Wish { own: own.clone(), ..wish(1) }).unwrap();
            ours.give_up(true).unwrap();
            let error = claim(claims, &Wish { choice: Choice::Fixed(slot(0)), ..wish(2) }).unwrap_err().to_string();
            let whose = "of the daemon of /state/1, on /run/socket";
            assert_eq!(error, format!("uid slot 0 is taken: process {pid} (sleep), {whose}"));
            assert_eq!(claim(claims, &wish(2)).unwrap().slot, slot(1));
            // The ground itself gets it back.
            assert_eq!(claim(claims, &Wish { own, ..wish(1) }).unwrap().slot, slot(0));
            drop(vm);
            assert_eq!(claim(claims, &wish(2)).unwrap().slot, slot(0));
        });
    }

    #[test]
    fn a_daemon_from_before_there_were_claims_keeps_its_ids() {
        with_claims(|claims| {
            let vm = process(FIRST);
            assert_eq!(claim(claims, &wish(1)).unwrap().slot, slot(1));
            let own = HashSet::from([vm.process().unwrap().pid()]);
            assert_eq!(claim(claims, &Wish { own, ..wish(1) }).unwrap().slot, slot(0));
        });
    }

    #[test]
    fn ranges_that_overlap_by_another_first_uid_are_not_shared() {
        with_claims(|claims| {
            let _one = claim(claims, &wish(1)).unwrap();
            let two = claim(claims, &Wish { first_uid: FIRST + 100, ..wish(2) }).unwrap();
            assert_eq!((two.slot, two.uids.first()), (slot(1), FIRST + 100 + 131_072));
            let end = Wish { first_uid: u32::MAX - 131_072, choice: Choice::Fixed(slot(1)), ..wish(3) };
            assert!(matches!(claim(claims, &end), Err(ClaimError::NoIds { .. })));
        });
    }

    #[test]
    fn ids_that_vms_still_have_are_nobody_elses_whatever_slot_their_daemon_has() {
        with_claims(|claims| {
            drop(claim(claims, &wish(1)).unwrap());
            let kept = HashSet::from([FIRST + 3]);
            let mut ours = claim(claims, &Wish { choice: Choice::Fixed(slot(5)), kept, ..wish(1) }).unwrap();
            assert!(ours.slot == slot(5) && ours.has(FIRST + 3) && ours.others().is_empty());
            let other = claim(claims, &wish(2)).unwrap();
            assert_eq!(other.slot, slot(1));
            ours.give_up(false).unwrap();
            // Without such VMs nothing is kept, and nothing is left.
            drop(claim(claims, &wish(1)).unwrap());
            let mut ours = claim(claims, &Wish { choice: Choice::Fixed(slot(5)), ..wish(1) }).unwrap();
            ours.give_up(false).unwrap();
            assert_eq!(claims.recorded().iter().map(|(slot, _)| slot.number()).collect::<Vec<_>>(), [1]);
        });
    }

    #[test]
    fn the_claim_of_another_in_the_place_of_one_that_was_removed_stays() {
        with_claims(|claims| {
            let mut ours = claim(claims, &wish(1)).unwrap();
            std::fs::remove_dir_all(&claims.dir).unwrap();
            let _theirs = claim(claims, &wish(2)).unwrap();
            ours.give_up(false).unwrap();
            assert_eq!(claim(claims, &wish(3)).unwrap().slot, slot(1));
        });
    }

    #[test]
    fn when_every_slot_is_taken_somebody_is_named() {
        with_claims(|claims| {
            let held: Vec<Claimed> = (1..=100).map(|number| claim(claims, &wish(number)).unwrap()).collect();
            let error = claim(claims, &wish(200)).unwrap_err();
            assert!(
                matches!(&error, ClaimError::NoneFree { by } if by.starts_with("the daemon of /state/1,")),
                "{error}"
            );
            drop(held);
        });
    }

    #[test]
    fn many_that_come_and_go_at_once_never_share_a_slot() {
        with_claims(|claims| {
            let taken = std::sync::Mutex::new(HashSet::new());
            std::thread::scope(|scope| {
                for number in 1..=8 {
                    let taken = &taken;
                    scope.spawn(move || {
                        for _ in 0..50 {
                            let mut claimed = claim(claims, &wish(number)).unwrap();
                            assert!(taken.lock().unwrap().insert(claimed.slot), "{}", claimed.slot);
                            std::thread::yield_now();
                            taken.lock().unwrap().remove(&claimed.slot);
                            claimed.give_up(false).unwrap();
                        }
                    });
                }
            });
            assert!(!claims.dir.exists());
        });
    }

    #[test]
    fn a_directory_that_others_can_change_is_refused() {
        with_claims(|claims| {
            let elsewhere = claims.dir.with_extension("elsewhere");
            std::fs::create_dir(&elsewhere).unwrap();
            std::os::unix::fs::symlink(&elsewhere, &claims.dir).unwrap();
            assert!(claim(claims, &wish(1)).is_err());
            std::fs::remove_file(&claims.dir).unwrap();
            std::fs::create_dir(&claims.dir).unwrap();
            let mode = |mode| std::fs::set_permissions(&claims.dir, std::fs::Permissions::from_mode(mode)).unwrap();
            for unsafe_mode in [0o755, 0o770, 0o702] {
                mode(unsafe_mode);
                assert!(matches!(claim(claims, &wish(1)), Err(ClaimError::Unsafe { .. })), "{unsafe_mode:o}");
            }
            mode(0o700);
            std::os::unix::fs::chown(&claims.dir, Some(FIRST), None).unwrap();
            assert!(matches!(claim(claims, &wish(1)), Err(ClaimError::Unsafe { .. })));
            std::os::unix::fs::chown(&claims.dir, Some(0), None).unwrap();
            // The daemon does not follow something else in a claim's place either.
            std::os::unix::fs::symlink(&elsewhere, claims.file(slot(0))).unwrap();
            assert!(claim(claims, &wish(1)).is_err());
        });
    }
}
