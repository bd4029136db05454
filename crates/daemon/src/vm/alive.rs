//! Which VMs live. The only place that decides whether a VM's VMM lives; a missing file is never a proof that it does
//! not.
//!
//! The record and the pid file are hints. The process that they name is the VMM only if it has the recorded start time,
//! runs as the VM's user and has the VM's id in its command line. If the hints lead to nothing, this module searches
//! `/proc` for such a process. It ends nothing. The daemon may end only a VMM that was found here: any other process
//! that runs as a VM's user is a stranger.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::sync::Arc;

use banger_linux::process::{self, Process, ProcessError};

use super::definition::{VmId, VmRecord};
use super::error::VmError;
use crate::context::{Context, blocking};
use crate::paths::Paths;
use crate::vmm::{Vmm, VmmError};

/// The living processes of a VM.
#[derive(Debug, Default)]
pub struct Living {
    /// Its VMM.
    pub vmm: Option<Process>,
    /// Other processes that run as its user and may write to its disks.
    pub strangers: Vec<Stranger>,
}

/// A process that runs as a VM's user and is not known as its VMM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stranger {
    /// Its process id.
    pub pid: u32,
    /// The kernel's name for it.
    pub program: String,
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.program)
    }
}

/// What a VM's owner knows of its VMM.
#[derive(Debug)]
pub(super) enum Hold {
    /// Nothing: the last look found strangers.
    Unknown,
    /// There is none.
    Gone,
    /// The owner holds it.
    Held(Process),
}

impl Hold {
    /// Whether a VMM may live.
    pub(super) fn may_live(&self) -> bool {
        matches!(self, Hold::Unknown) || self.living().is_some()
    }

    /// The VMM, if the owner holds it and it has not ended.
    pub(super) fn living(&self) -> Option<&Process> {
        match self {
            Hold::Held(process) if !process.has_ended() => Some(process),
            Hold::Held(_) | Hold::Gone | Hold::Unknown => None,
        }
    }
}

impl Living {
    /// Holds the VMM that the look found.
    pub(super) fn hold(&mut self) -> Hold {
        match self.vmm.take() {
            Some(process) => Hold::Held(process),
            None if self.strangers.is_empty() => Hold::Gone,
            None => Hold::Unknown,
        }
    }
}

/// Which VMMs to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Those that use the disks in this state directory.
    Own,
    /// Also those of the directory that this one is a copy of: their VMs have the same ids.
    Originals,
}

/// The VMs whose VMMs live, with these VMMs. Changes nothing, so that a daemon can ask before it takes anything over.
///
/// # Errors
/// [`VmmError`], if it cannot tell.
pub fn of_records(
    records: &[VmRecord],
    vmm: &dyn Vmm,
    paths: &Paths,
    whose: Whose,
) -> Result<Vec<(VmRecord, Process)>, VmmError> {
    let survey = survey_whose(records, vmm, paths, whose)?;
    let living = records.iter().zip(survey).filter_map(|(record, living)| Some((record.clone(), living.vmm?)));
    Ok(living.collect())
}

/// The living processes of each of these VMs, in their order. Searches `/proc` once, and only if the hints do not find
/// every VM; otherwise it reports no strangers.
///
/// # Errors
/// [`VmmError`], if it cannot tell.
pub fn survey(records: &[VmRecord], vmm: &dyn Vmm, paths: &Paths) -> Result<Vec<Living>, VmmError> {
    survey_whose(records, vmm, paths, Whose::Own)
}

fn survey_whose(records: &[VmRecord], vmm: &dyn Vmm, paths: &Paths, whose: Whose) -> Result<Vec<Living>, VmmError> {
    let mut survey = Vec::new();
    for record in records {
        survey.push(Living { vmm: hinted(record, vmm, paths, whose)?, strangers: Vec::new() });
    }
    if survey.iter().any(|living| living.vmm.is_none()) {
        search(records, &mut survey, vmm, paths, whose)?;
    }
    Ok(survey)
}

/// All living processes of one VM.
///
/// # Errors
/// [`VmmError`], if it cannot tell.
pub fn look(record: &VmRecord, vmm: &dyn Vmm, paths: &Paths) -> Result<Living, VmmError> {
    let mut living = [Living { vmm: hinted(record, vmm, paths, Whose::Own)?, strangers: Vec::new() }];
    search(std::slice::from_ref(record), &mut living, vmm, paths, Whose::Own)?;
    let [living] = living;
    Ok(living)
}

/// [`survey`] outside the event loop.
pub(super) async fn survey_of(context: &Context, records: &[VmRecord]) -> Result<Vec<Living>, VmError> {
    let (records, vmm, paths) = (records.to_vec(), Arc::clone(&context.vmm), context.paths.clone());
    Ok(blocking(move || survey(&records, &*vmm, &paths)).await?)
}

/// [`look`] outside the event loop.
pub(super) async fn look_for(context: &Context, record: &VmRecord) -> Result<Living, VmError> {
    let (record, vmm, paths) = (record.clone(), Arc::clone(&context.vmm), context.paths.clone());
    Ok(blocking(move || look(&record, &*vmm, &paths)).await?)
}

/// The VMM that the record or the pid file names.
fn hinted(record: &VmRecord, vmm: &dyn Vmm, paths: &Paths, whose: Whose) -> Result<Option<Process>, VmmError> {
    let id = record.definition.id.as_str();
    let is_it = |process: &Process| {
        let (command, user) = (process.command_line()?, process.user()?);
        Ok(is_vmm_of(record, vmm, process, &command, user, paths, whose))
    };
    let recorded = record.traces.as_ref().map(|traces| traces.process);
    let by_record = || recorded.map(|process| Process::open(process.pid, Some(process.start)));
    let by_file = || Some(Process::recorded(&paths.vm(id).pid_file));
    for hint in [&by_record as &dyn Fn() -> Option<Result<Process, ProcessError>>, &by_file] {
        match hint() {
            Some(Ok(process)) => match is_it(&process) {
                Ok(true) => return Ok(Some(process)),
                // Another process has that number by now, or it ended during the look.
                Ok(false) | Err(ProcessError::Gone { .. }) => {}
                Err(error) => return Err(error.into()),
            },
            // The hint says nothing, and proves nothing.
            Some(Err(ProcessError::Gone { .. } | ProcessError::Record { .. })) | None => {}
            Some(Err(error)) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Looks at every process that runs as one of these VMs' users.
fn search(
    records: &[VmRecord],
    survey: &mut [Living],
    vmm: &dyn Vmm,
    paths: &Paths,
    whose: Whose,
) -> Result<(), VmmError> {
    let places: HashMap<&str, usize> =
        records.iter().enumerate().map(|(place, record)| (record.definition.id.as_str(), place)).collect();
    let users: HashSet<u32> = records.iter().map(|record| vmm.user_of(record.definition.uid)).collect();
    // If all VMMs run as the daemon's user, nothing identifies strangers.
    let daemons = rustix::process::geteuid().as_raw();
    let own =
        |record: &VmRecord| Some(record.definition.uid).filter(|uid| vmm.user_of(*uid) == *uid && *uid != daemons);
    let by_user: HashMap<u32, usize> =
        records.iter().enumerate().filter_map(|(place, record)| Some((own(record)?, place))).collect();
    let mut found: Vec<Vec<Process>> = records.iter().map(|_| Vec::new()).collect();

    let all = process::all().map_err(unlisted)?;
    for seen in all.iter().filter(|seen| users.contains(&seen.uid)) {
        let mut judge = || -> Result<(), ProcessError> {
            let process = Process::open(seen.pid, None)?;
            let (command, user) = (process.command_line()?, process.user()?);
            let named = vmm.machine_of(&command);
            let named_place = named.as_deref().and_then(|id| places.get(id).copied());
            let is_it = |place: &usize| is_vmm_of(&records[*place], vmm, &process, &command, user, paths, whose);
            if let Some(place) = named_place.filter(is_it) {
                found[place].push(process);
            } else if let Some(&place) = by_user.get(&user)
                // With the VM's own id it is a VMM of this VM whose disks were replaced under it.
                && (named.is_none() || named_place == Some(place) || may_use(&process, &records[place].definition.id, paths)?)
            {
                survey[place].strangers.push(stranger(&process)?);
            }
            Ok(())
        };
        match judge() {
            // It ended during the look.
            Ok(()) | Err(ProcessError::Gone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for ((record, living), found) in records.iter().zip(survey).zip(found) {
        choose(living, found, own(record).is_some())?;
    }
    Ok(())
}

/// Whether a process is the VMM of this record, by its user, its words and its disks. True if nothing tells which disks it
/// uses.
fn is_vmm_of(
    record: &VmRecord,
    vmm: &dyn Vmm,
    process: &Process,
    command: &[Vec<u8>],
    user: u32,
    paths: &Paths,
    whose: Whose,
) -> bool {
    let id = record.definition.id.as_str();
    if user != vmm.user_of(record.definition.uid) || vmm.machine_of(command).as_deref() != Some(id) {
        return false;
    }
    let disks = paths.vm(id);
    whose == Whose::Originals
        || vmm.works_on(process, command, &[disks.root.as_path(), disks.work.as_path()]).unwrap_or(true)
}

/// Chooses among several VMMs of one VM: the one that the record names, else the one that leads a session, as a VMM
/// does and its forked children do not. Counts the others as strangers.
fn choose(living: &mut Living, mut found: Vec<Process>, has_own_user: bool) -> Result<(), VmmError> {
    found.sort_by_key(|process| (!process.leads_session(), process.identity().map_or(u64::MAX, |it| it.start)));
    if living.vmm.is_none() && !found.is_empty() {
        living.vmm = Some(found.remove(0));
    }
    let chosen = living.vmm.as_ref().map(Process::pid);
    for other in found.iter().filter(|other| has_own_user && Some(other.pid()) != chosen) {
        match stranger(other) {
            Ok(stranger) => living.strangers.push(stranger),
            Err(ProcessError::Gone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    living.strangers.sort_by_key(|stranger| stranger.pid);
    Ok(())
}

/// Whether a process that calls itself the VMM of another VM has a disk of this one open. So daemons that share uids by
/// mistake do not block each other.
fn may_use(process: &Process, id: &VmId, paths: &Paths) -> Result<bool, ProcessError> {
    let disks = paths.vm(id.as_str());
    match process.has_open(&[disks.root.as_path(), disks.work.as_path()]) {
        Err(ProcessError::Watch { .. }) => Ok(true),
        other => other,
    }
}

fn stranger(process: &Process) -> Result<Stranger, ProcessError> {
    Ok(Stranger { pid: process.pid(), program: process.name()? })
}

fn unlisted(source: io::Error) -> VmmError {
    VmmError::Io { attempted: "list the processes of this host".to_owned(), source }
}

#[cfg(test)]
mod tests {
    use banger_linux::process::{Credentials, Launch, Leash, Program, Stream};

    use super::*;
    use crate::vm::definition::Traces;
    use crate::vm::state::State;
    use crate::vmm::qemu::Qemu;

    /// A uid that no user and no VM of a daemon has.
    const UID: u32 = 1_800_000_000;

    fn record(id: &str, uid: u32) -> VmRecord {
        VmRecord { state: State::Stopped { reason: None }, ..VmRecord::sample(id, uid) }
    }

    /// A process with these words, as this user, with this file open.
    fn plant(uid: u32, words: &[&str], session: bool, open: Option<&std::path::Path>) -> Leash {
        let words = ["-e", "sleep 60", "--"].iter().chain(words);
        let mut launch = Launch::new(Program::Command("/usr/bin/perl".into()), words);
        launch.credentials = Some(Credentials { uid, gid: uid, groups: Vec::new() });
        launch.session = session;
        if let Some(path) = open {
            launch.stdin = Stream::Fd(std::fs::File::open(path).unwrap().into());
        }
        Leash::start(launch).unwrap()
    }

    fn pid(leash: &Leash) -> u32 {
        leash.process().unwrap().pid()
    }

    struct Ground {
        dir: tempfile::TempDir,
        paths: Paths,
        vmm: Qemu,
    }

    impl Ground {
        /// `None` without root: only root starts processes as other users.
        fn new() -> Option<Ground> {
            if !rustix::process::geteuid().is_root() {
                banger_skip::skipped!("not root, so no process can run as another user");
                return None;
            }
            let dir = tempfile::tempdir().unwrap();
            let paths = Paths {
                state: dir.path().join("s"),
                runtime: dir.path().join("r"),
                config: dir.path().join("c"),
                claims: dir.path().join("g"),
            };
            Some(Ground { dir, paths, vmm: Qemu::new(Program::Qemu) })
        }

        fn look(&self, record: &VmRecord) -> (Option<u32>, Vec<u32>) {
            let living = look(record, &self.vmm, &self.paths).unwrap();
            (living.vmm.map(|vmm| vmm.pid()), living.strangers.iter().map(|stranger| stranger.pid).collect())
        }

        fn write_pid_file(&self, id: &str, leash: &Leash) {
            let identity = leash.process().unwrap().identity().unwrap();
            let file = self.paths.vm(id).pid_file;
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, format!("{} {}\n", identity.pid, identity.start)).unwrap();
        }
    }

    #[test]
    fn a_vmm_is_found_by_user_and_name_and_by_neither_alone() {
        let Some(ground) = Ground::new() else { return };
        let (one, two) = (record("one", UID), record("two", UID + 1));
        assert_eq!(ground.look(&one), (None, Vec::new()));
        let vmm = plant(UID, &["-name", "guest=one,debug-threads=on"], true, None);
        let stranger = plant(UID, &["unnamed"], true, None);
        let _named_as_another_user = plant(UID + 2, &["-name", "guest=one,debug-threads=on"], true, None);
        assert_eq!(ground.look(&one), (Some(pid(&vmm)), vec![pid(&stranger)]));
        assert_eq!(ground.look(&two), (None, Vec::new()));
        let described = look(&one, &ground.vmm, &ground.paths).unwrap().strangers[0].to_string();
        assert_eq!(described, format!("process {} (perl)", pid(&stranger)));

        let found = of_records(&[two.clone(), one.clone()], &ground.vmm, &ground.paths, Whose::Own).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&found[0].0, found[0].1.pid()), (&one, pid(&vmm)));
        drop(vmm);
        assert_eq!(ground.look(&one), (None, vec![pid(&stranger)]));
        let mut survey = survey(&[two, one], &ground.vmm, &ground.paths).unwrap();
        assert!(matches!(survey[0].hold(), Hold::Gone) && matches!(survey[1].hold(), Hold::Unknown));
    }

    #[test]
    fn a_pid_and_a_start_time_are_only_where_to_look() {
        let Some(ground) = Ground::new() else { return };
        // One has the name, but runs as another user; one has neither.
        for words in [&["-name", "guest=three"][..], &["unnamed"]] {
            let innocent = plant(UID + 12, words, true, None);
            let mut three = record("three", UID + 10);
            ground.write_pid_file("three", &innocent);
            assert_eq!(ground.look(&three), (None, Vec::new()));
            three.traces = Some(Traces { process: innocent.process().unwrap().identity().unwrap(), tap: None });
            assert_eq!(ground.look(&three), (None, Vec::new()));
        }
        let unnamed = plant(UID + 10, &["unnamed"], true, None);
        ground.write_pid_file("three", &unnamed);
        assert_eq!(ground.look(&record("three", UID + 10)), (None, vec![pid(&unnamed)]));
        // With both it is the VMM, whatever the file holds.
        let vmm = plant(UID + 10, &["-name", "guest=three"], true, None);
        for content in [&b""[..], b"\xff\xfe", b"1", b"99999999999999999999 1", b"4294967296 1", b"0 0"] {
            std::fs::write(ground.paths.vm("three").pid_file, content).unwrap();
            assert_eq!(ground.look(&record("three", UID + 10)).0, Some(pid(&vmm)), "{content:?}");
        }
    }

    #[test]
    fn another_daemons_vm_of_the_same_user_is_no_stranger_unless_it_has_the_disks() {
        let Some(ground) = Ground::new() else { return };
        let four = record("four", UID + 20);
        let disk = ground.paths.vm("four").work;
        std::fs::create_dir_all(disk.parent().unwrap()).unwrap();
        std::fs::write(&disk, "a disk").unwrap();
        let other = ground.dir.path().join("other");
        std::fs::write(&other, "another disk").unwrap();
        let _others = plant(UID + 20, &["-name", "guest=elsewhere"], true, Some(&other));
        assert_eq!(ground.look(&four), (None, Vec::new()));
        let disguised = plant(UID + 20, &["-name", "guest=elsewhere"], true, Some(&disk));
        assert_eq!(ground.look(&four), (None, vec![pid(&disguised)]));
    }

    #[test]
    fn the_vmm_of_a_copied_vm_is_the_one_with_the_disks_of_this_directory() {
        let Some(ground) = Ground::new() else { return };
        let six = record("six", UID + 40);
        let (ours, theirs) = (ground.paths.vm("six").work, ground.dir.path().join("original"));
        std::fs::create_dir_all(ours.parent().unwrap()).unwrap();
        for disk in [&ours, &theirs] {
            std::fs::write(disk, "a disk").unwrap();
        }
        let original = plant(UID + 40, &["-name", "guest=six"], true, Some(&theirs));
        ground.write_pid_file("six", &original);
        // As when the disks of a running VM are replaced: it is not to be taken for stopped.
        assert_eq!(ground.look(&six), (None, vec![pid(&original)]));
        let found = |whose| of_records(std::slice::from_ref(&six), &ground.vmm, &ground.paths, whose).unwrap();
        assert_eq!((found(Whose::Own).len(), found(Whose::Originals)[0].1.pid()), (0, pid(&original)));
        let copy = plant(UID + 40, &["-name", "guest=six"], true, Some(&ours));
        assert_eq!(ground.look(&six), (Some(pid(&copy)), vec![pid(&original)]));
        // A copy gets other user ids, and the original is none of its business.
        assert_eq!(ground.look(&record("six", UID + 41)), (None, Vec::new()));
    }

    #[test]
    fn a_vmm_that_exits_is_waited_for_and_no_stranger() {
        let Some(ground) = Ground::new() else { return };
        let mut launch = Launch::new(
            Program::Command("/usr/bin/perl".into()),
            ["-Mthreads", "-e", "async { sleep 1; syscall 231, 0 }; syscall 60, 0", "--", "-name", "guest=seven"],
        );
        launch.credentials = Some(Credentials { uid: UID + 50, gid: UID + 50, groups: Vec::new() });
        let vmm = Leash::start(launch).unwrap();
        let seven = record("seven", UID + 50);
        ground.write_pid_file("seven", &vmm);
        // The first of its two threads has exited, and with it the words are gone.
        let stat = format!("/proc/{}/stat", pid(&vmm));
        while !std::fs::read_to_string(&stat).unwrap().contains(") Z ") {
            std::thread::yield_now();
        }
        assert_eq!(ground.look(&seven), (None, Vec::new()));
    }

    #[test]
    fn of_two_vmms_of_one_vm_the_other_is_a_stranger() {
        let Some(ground) = Ground::new() else { return };
        let five = record("five", UID + 30);
        let forked = plant(UID + 30, &["-name", "guest=five"], false, None);
        let leader = plant(UID + 30, &["-name", "guest=five"], true, None);
        assert_eq!(ground.look(&five), (Some(pid(&leader)), vec![pid(&forked)]));
        ground.write_pid_file("five", &forked);
        assert_eq!(ground.look(&five), (Some(pid(&forked)), vec![pid(&leader)]));
    }
}
