//! Claims on user ids: a file for each uid slot below `/run/banger-ground`, locked by flock(2) while its daemon runs.
//!
//! A claim outlives its daemon if it must: the file names the ground, and while a process runs under one of its ids, no
//! other ground takes the slot. The lock does not work across mount and pid namespaces: configure a slot there.
//!
//! Daemons make, look at and give up claims under a lock on the directory, so that none removes a file that another one
//! locks.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_linux::file::{lock_within, try_lock};
use banger_linux::process::{self, Process, ProcessError, Seen};

use super::record::{self, Claim, existing, is_held, read};
use super::{Choice, ClaimError, GroundId, Slot, Uids, lock_directory};

/// How long a killed daemon may hold its claim through a child that has not executed its program yet.
const DYING: Duration = Duration::from_secs(5);

/// The directory of all claims.
#[derive(Debug, Clone)]
pub struct Claims {
    dir: PathBuf,
}

/// A claim as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Its uid slot.
    pub slot: Slot,
    /// Its content.
    pub claim: Claim,
    /// Whether its daemon runs, and so holds its lock.
    pub is_held: bool,
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

impl Claimant<'_> {
    fn claim(&self, uids: Uids) -> Claim {
        Claim { id: self.id, uids, state: self.state.to_owned(), socket: self.socket.to_owned() }
    }
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

/// A slot that somebody owns.
struct Other {
    slot: Slot,
    uids: Uids,
    by: String,
}

impl Other {
    /// Whether it stands in the way of a claim. Each slot has one file, so that a slot is taken with any user ids.
    fn has(&self, slot: Slot, uids: Uids) -> bool {
        self.slot == slot || self.uids.overlaps(uids)
    }
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
        let taken = |slot, by| match choice {
            Choice::Fixed(_) => ClaimError::Taken { slot, by },
            Choice::Auto => ClaimError::NoneFree { by },
        };
        if !rustix::process::geteuid().is_root() {
            // Its VMMs run as the daemon's own user.
            let slot = choice.expected(had);
            return Ok(Claimed { slot, uids: Uids::of(slot, first_uid).ok_or(no_ids(slot))?, held: None });
        }
        let _guard = lock_directory(&self.dir)?;
        let others = self.others(claimant)?;
        let mut first = None;
        for slot in choice.candidates(had) {
            let Some(uids) = Uids::of(slot, first_uid) else {
                first.get_or_insert(no_ids(slot));
                continue;
            };
            if let Some(other) = others.iter().find(|other| other.has(slot, uids)) {
                first.get_or_insert(taken(slot, other.by.clone()));
                continue;
            }
            let path = self.file(slot);
            let file = record::make(&path).map_err(io_error("open", &path))?;
            if !try_lock(&file).map_err(io_error("lock", &path))? {
                first.get_or_insert(taken(slot, "a process that does not say so".to_owned()));
                continue;
            }
            record::write(&file, &claimant.claim(uids)).map_err(io_error("write", &path))?;
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
            let is_free = |uids: &Uids| !others.iter().any(|other| other.has(slot, *uids));
            if let Some(uids) = Uids::of(slot, claimant.first_uid).filter(is_kept).filter(is_free) {
                let file = record::make(&path).map_err(io_error("open", &path))?;
                if try_lock(&file).map_err(io_error("lock", &path))? {
                    record::write(&file, &claimant.claim(uids)).map_err(io_error("write", &path))?;
                    files.push((slot, uids, file));
                }
            } else if let Some(mut file) = existing(&path).map_err(io_error("open", &path))?
                && read(&mut file).is_some_and(|claim| claim.id == claimant.id && !is_kept(&claim.uids))
            {
                std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(files)
    }

    /// All recorded claims, by slot. Changes nothing, and skips files that it cannot read.
    pub fn recorded(&self) -> Vec<Recorded> {
        if !self.dir.exists() {
            return Vec::new();
        }
        // Only an attempt shows whether a lock is held. Under the directory's lock it disturbs no daemon that claims.
        let guard = lock_directory(&self.dir).ok();
        let look = |slot| {
            let mut file = existing(&self.file(slot)).ok()??;
            let claim = read(&mut file)?;
            Some(Recorded { slot, claim, is_held: guard.is_none() || is_held(&file) })
        };
        Slot::all().filter_map(look).collect()
    }

    /// The file in which the grounds of this network namespace record the links that they switched.
    pub fn forwarding(&self) -> PathBuf {
        let namespace = banger_linux::netns::cookie().unwrap_or_default();
        self.dir.join(format!("forwarding-{namespace}"))
    }

    /// The owners of the slots that are not free: those whose lock is held, and those with a process under their ids
    /// that is none of the claimant's. Removes claims that no longer stand for anything.
    fn others(&self, claimant: &Claimant<'_>) -> Result<Vec<Other>, ClaimError> {
        let running = process::all().map_err(ClaimError::Processes)?;
        let mut others = Vec::new();
        for slot in Slot::all() {
            let path = self.file(slot);
            let expected = Uids::of(slot, claimant.first_uid);
            let strangers = running.iter().filter(|process| !claimant.own.contains(&process.pid));
            let Some(mut file) = existing(&path).map_err(io_error("open", &path))? else {
                // A daemon without claims (an older one) has its VMs here.
                if let Some(uids) = expected
                    && let Some(process) = living(strangers, uids)
                {
                    others.push(Other { slot, uids, by: format!("{}, of no claim", told(process.pid)) });
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
                others.push(Other { slot, uids, by: whose() });
            } else if is_own {
                continue;
            } else if let Some(process) = living(strangers, uids) {
                others.push(Other { slot, uids, by: format!("{}, of {}", told(process.pid), whose()) });
            } else {
                std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(others)
    }

    fn file(&self, slot: Slot) -> PathBuf {
        self.dir.join(slot.to_string())
    }
}

impl Claimed {
    /// Whether a VM may have this user id, because this daemon has claimed its slot. Always true for a daemon that cannot
    /// change its user, which claims none.
    pub fn has(&self, uid: u32) -> bool {
        match &self.held {
            Some(held) => held.files.iter().any(|(_, uids, _)| uids.is_vmm(uid)),
            None => true,
        }
    }

    /// Gives the slot up. While VMs run, or other processes under its ids, the claim stays and names their owner.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn give_up(&mut self, vms_run: bool) -> Result<(), ClaimError> {
        let Some(Held { files, claims }) = self.held.take() else { return Ok(()) };
        let _guard = lock_directory(&claims.dir)?;
        if vms_run {
            return Ok(());
        }
        let running = process::all().map_err(ClaimError::Processes)?;
        for (slot, uids, file) in files {
            let path = claims.file(slot);
            let own = file.metadata().map_err(io_error("look at", &path))?;
            // Somebody may have removed it, and another daemon may have made its own in its place.
            let is_own = std::fs::metadata(&path).is_ok_and(|now| (now.dev(), now.ino()) == (own.dev(), own.ino()));
            if is_own && living(running.iter(), uids).is_none() {
                std::fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        // Fails if other claims are in it.
        drop(std::fs::remove_dir(&claims.dir));
        Ok(())
    }
}

/// A living process under these user ids.
fn living<'a>(mut processes: impl Iterator<Item = &'a Seen>, uids: Uids) -> Option<&'a Seen> {
    // If it cannot be looked at, it may well live.
    let has_ended = |pid| match Process::open(pid, None) {
        Ok(process) => process.has_ended(),
        Err(error) => matches!(error, ProcessError::Gone { .. }),
    };
    processes.find(|process| uids.contains(process.uid) && !has_ended(process.pid))
}

/// A process in words.
fn told(pid: u32) -> String {
    let name = Process::open(pid, None).and_then(|process| process.name());
    name.map_or_else(|_| format!("process {pid}"), |name| format!("process {pid} ({name})"))
}

fn io_error(attempted: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClaimError {
    let path = path.to_owned();
    move |source| ClaimError::Io { attempted, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::IDS;
    use banger_linux::process::{Credentials, Launch, Leash, Program};
    use std::os::unix::fs::PermissionsExt;
    use std::sync::{Mutex, PoisonError};

    /// Claims take all processes of the host into account, so that one test's processes would be strangers to another.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    /// The first of this run's ids. Nobody on a host has them by chance, and another run at the same time has others.
    fn first() -> u32 {
        const LOWEST: u32 = 1_900_000_000;
        const OF_A_RUN: u32 = 101 * IDS;
        LOWEST + std::process::id() % ((u32::MAX - LOWEST) / OF_A_RUN) * OF_A_RUN
    }

    /// Runs a test with a directory for claims; only root has anything to claim.
    fn with_claims(test: impl FnOnce(&Claims)) {
        if !rustix::process::geteuid().is_root() {
            return banger_skip::skipped!("only root claims user ids");
        }
        let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
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
        Wish { number, choice: Choice::Auto, had: None, first_uid: first(), own: HashSet::new(), kept: HashSet::new() }
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

    /// Waits until no other test's child has the claim's descriptor any more: it has until it executes its program.
    fn until_free(claims: &Claims, at: usize) {
        while claims.recorded()[at].is_held {
            std::thread::yield_now();
        }
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
            assert_eq!((one.uids.first(), two.uids.first()), (first(), first() + 131_072));
            let [lower, upper] = [0, 1].map(|at| claims.recorded()[at].clone());
            let Claim { state, socket, .. } = lower.claim;
            assert_eq!((lower.slot, state, socket), (slot(0), "/state/1".into(), "/run/socket".into()));
            assert_eq!((upper.claim.id, upper.claim.uids), (GroundId::from_random([2; 8]), two.uids));
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
            let vm = process(first() + 7);
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
    fn the_claim_stays_while_any_process_runs_under_its_ids() {
        with_claims(|claims| {
            let mut ours = claim(claims, &wish(1)).unwrap();
            // The daemon knows of no VM that runs.
            let stranger = process(first() + 7);
            ours.give_up(false).unwrap();
            until_free(claims, 0);
            assert_eq!(claims.recorded()[0].claim.id, GroundId::from_random([1; 8]));
            assert_eq!(claim(claims, &wish(2)).unwrap().slot, slot(1));
            drop(stranger);
            let mut ours = claim(claims, &wish(1)).unwrap();
            assert!(claims.recorded()[0].is_held);
            ours.give_up(false).unwrap();
            assert!(!claims.file(slot(0)).exists());
        });
    }

    #[test]
    fn a_look_tells_which_daemons_run_and_takes_no_claim() {
        with_claims(|claims| {
            assert!(claims.recorded().is_empty() && !claims.dir.exists());
            let one = claim(claims, &wish(1)).unwrap();
            let _two = claim(claims, &wish(2)).unwrap();
            assert!(claims.recorded().iter().all(|one| one.is_held));
            // Its daemon is killed.
            drop(one);
            until_free(claims, 0);
            assert!(claims.recorded()[1].is_held);
            let file = record::make(&claims.file(slot(0))).unwrap();
            assert!(!claims.recorded()[0].is_held && try_lock(&file).unwrap());
        });
    }

    #[test]
    fn a_daemon_from_before_there_were_claims_keeps_its_ids() {
        with_claims(|claims| {
            let vm = process(first());
            assert_eq!(claim(claims, &wish(1)).unwrap().slot, slot(1));
            let own = HashSet::from([vm.process().unwrap().pid()]);
            assert_eq!(claim(claims, &Wish { own, ..wish(1) }).unwrap().slot, slot(0));
        });
    }

    #[test]
    fn ranges_that_overlap_by_another_first_uid_are_not_shared() {
        with_claims(|claims| {
            let _one = claim(claims, &wish(1)).unwrap();
            let two = claim(claims, &Wish { first_uid: first() + 100, ..wish(2) }).unwrap();
            assert_eq!((two.slot, two.uids.first()), (slot(1), first() + 100 + 131_072));
            let end = Wish { first_uid: u32::MAX - 131_072, choice: Choice::Fixed(slot(1)), ..wish(3) };
            assert!(matches!(claim(claims, &end), Err(ClaimError::NoIds { .. })));
        });
    }

    #[test]
    fn a_slot_is_taken_whatever_first_uid_its_owner_has() {
        with_claims(|claims| {
            let vm = process(first() + 7);
            let own = HashSet::from([vm.process().unwrap().pid()]);
            claim(claims, &Wish { own, ..wish(1) }).unwrap().give_up(true).unwrap();
            // Their ids do not overlap in any slot.
            let far = |number| Wish { first_uid: first() + 50 * IDS, choice: Choice::Fixed(slot(0)), ..wish(number) };
            let error = claim(claims, &far(2)).unwrap_err().to_string();
            assert!(error.starts_with("uid slot 0 is taken: process ") && error.contains("/state/1"), "{error}");
            assert_eq!(claim(claims, &Wish { choice: Choice::Auto, ..far(2) }).unwrap().slot, slot(1));
            // The same for a slot whose ids its VMs still have.
            let kept = HashSet::from([first() + 50 * IDS + 1]);
            let theirs = claim(claims, &Wish { choice: Choice::Fixed(slot(3)), kept, ..far(2) }).unwrap();
            assert!(theirs.slot == slot(3) && !theirs.has(first() + 50 * IDS + 1));
            assert_eq!(claims.recorded()[0].claim.id, GroundId::from_random([1; 8]));
        });
    }

    #[test]
    fn ids_that_vms_still_have_are_nobody_elses_whatever_slot_their_daemon_has() {
        with_claims(|claims| {
            drop(claim(claims, &wish(1)).unwrap());
            let kept = HashSet::from([first() + 3]);
            let mut ours = claim(claims, &Wish { choice: Choice::Fixed(slot(5)), kept, ..wish(1) }).unwrap();
            assert!(ours.slot == slot(5) && ours.has(first() + 3));
            let other = claim(claims, &wish(2)).unwrap();
            assert_eq!(other.slot, slot(1));
            ours.give_up(false).unwrap();
            // Without such VMs nothing is kept, and nothing is left.
            drop(claim(claims, &wish(1)).unwrap());
            let mut ours = claim(claims, &Wish { choice: Choice::Fixed(slot(5)), ..wish(1) }).unwrap();
            ours.give_up(false).unwrap();
            assert_eq!(claims.recorded().iter().map(|one| one.slot.number()).collect::<Vec<_>>(), [1]);
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
    fn a_directory_or_file_that_others_could_put_there_is_refused() {
        with_claims(|claims| {
            std::fs::create_dir(&claims.dir).unwrap();
            std::fs::set_permissions(&claims.dir, std::fs::Permissions::from_mode(0o755)).unwrap();
            let error = claim(claims, &wish(1)).unwrap_err();
            assert!(matches!(error, ClaimError::Directory(crate::ground::DirectoryError::Unsafe { .. })), "{error}");
            let dir = claims.dir.display();
            assert!(error.help().contains(&format!("chown root:root {dir} && chmod 0700 {dir}")));
            std::fs::set_permissions(&claims.dir, std::fs::Permissions::from_mode(0o700)).unwrap();
            // The daemon does not follow something else in a claim's place either.
            let file = claims.file(slot(0));
            std::os::unix::fs::symlink("/etc/hostname", &file).unwrap();
            let error = claim(claims, &wish(1)).unwrap_err();
            assert_eq!(error.to_string(), format!("cannot open the claim {}", file.display()));
            assert!(error.help().contains(&format!("`ls -l {}`", file.display())), "{}", error.help());
        });
    }
}
