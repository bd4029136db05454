//! A missing file is no proof of death: whatever happens to a running VM's runtime files, its process decides.
//!
//! The test deletes and garbles files, and kills and restarts the daemon, in every combination. Then each verb either
//! ends the process, or refuses and names it. The test judges disks by their inodes and processes by /proc.

#![expect(clippy::unwrap_used, reason = "a test that fails panics")]

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::{House, Verb, runs};
use banger_api::daemon::Verdict;
use banger_api::verify::{Kind, Problem};
use banger_api::vm::{Lifetime, VmCreate};
use banger_linux::process::{Identity, Launch, Leash, Process, Program};
use bangerd::operation::Operation;
use bangerd::store::Store;
use bangerd::vm::alive;
use bangerd::vm::definition::{Traces, VmRecord};
use bangerd::vm::error::VmError;
use bangerd::vm::request::View;
use bangerd::vm::state::State;
use bangerd::vmm::Vmm;
use bangerd::vmm::fake::Fake;
use rustix::process::Signal;

/// What happens to a running VM's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    RuntimeDirectory,
    AllRuntimeDirectories,
    PidFile,
    EmptyPidFile,
    GarbledPidFile,
    AnothersPidFile,
    Sockets,
}

const LOSSES: [Loss; 7] = [
    Loss::RuntimeDirectory,
    Loss::AllRuntimeDirectories,
    Loss::PidFile,
    Loss::EmptyPidFile,
    Loss::GarbledPidFile,
    Loss::AnothersPidFile,
    Loss::Sockets,
];

/// A process that has nothing to do with VMs.
struct Innocent(Leash);

impl Innocent {
    fn new() -> Innocent {
        Innocent(Leash::start(Launch::new(Program::Command("/bin/sleep".into()), ["600"])).unwrap())
    }

    fn identity(&self) -> Identity {
        self.0.process().unwrap().identity().unwrap()
    }

    fn lives(&self) -> bool {
        !self.0.process().unwrap().has_ended()
    }
}

fn lose(house: &House, view: &View, loss: Loss, innocent: &Innocent) {
    let paths = house.paths().vm(view.definition.id.as_str());
    match loss {
        Loss::RuntimeDirectory => std::fs::remove_dir_all(paths.runtime).unwrap(),
        Loss::AllRuntimeDirectories => std::fs::remove_dir_all(house.paths().vms_runtime()).unwrap(),
        Loss::PidFile => std::fs::remove_file(paths.pid_file).unwrap(),
        Loss::EmptyPidFile => std::fs::write(paths.pid_file, "").unwrap(),
        Loss::GarbledPidFile => std::fs::write(paths.pid_file, b"\xff\0 no number\n").unwrap(),
        Loss::AnothersPidFile => {
            let Identity { pid, start } = innocent.identity();
            std::fs::write(paths.pid_file, format!("{pid} {start}\n")).unwrap();
        }
        Loss::Sockets => {
            for entry in std::fs::read_dir(paths.runtime).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "sock") {
                    std::fs::remove_file(path).unwrap();
                }
            }
        }
    }
}

fn running() -> (House, View, Process) {
    let mut house = House::new();
    let view = house.run_or_die(Verb::Create).unwrap().unwrap();
    let process = Process::open(view.pid.unwrap(), None).unwrap();
    (house, view, process)
}

fn restart(house: &mut House) {
    house.kill();
    house.start();
}

fn disk(house: &House, view: &View) -> Option<u64> {
    std::fs::metadata(house.paths().vm(view.definition.id.as_str()).work).ok().map(|metadata| metadata.ino())
}

fn records(house: &House) -> Vec<VmRecord> {
    house.run(async |daemon| daemon.context.store.vms().await.unwrap())
}

/// Edits a record to look like an older daemon's; no daemon runs.
fn edit_record(house: &House, edit: impl Fn(&mut VmRecord)) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = Store::open(&house.paths().database()).unwrap();
    runtime.block_on(async {
        for mut record in store.vms().await.unwrap() {
            edit(&mut record);
            store.update_vm(record).await.unwrap();
        }
    });
}

fn remove_without_force(house: &House) -> Result<View, VmError> {
    house.run(async |daemon| {
        let handle = daemon.registry.find("one")?;
        handle.remove(false, Operation::begin("rm", "one").0).await
    })
}

#[test]
fn whatever_is_lost_a_running_vm_is_ended_by_each_verb_before_its_disks_go() {
    let innocent = Innocent::new();
    const VERBS: [Verb; 4] = [Verb::Kill, Verb::Stop, Verb::Restart, Verb::Remove];
    for (place, loss) in LOSSES.into_iter().enumerate() {
        for daemon_dies in [false, true] {
            // All verbs for the worst loss, some for each other one.
            let verbs: Vec<Verb> = match loss {
                Loss::RuntimeDirectory => VERBS.to_vec(),
                _ => vec![VERBS[(place + usize::from(daemon_dies)) % 4], VERBS[(place + 2) % 4]],
            };
            for verb in verbs {
                let at = format!("{loss:?}, daemon dies: {daemon_dies}, {verb:?}");
                let (mut house, view, process) = running();
                let before = disk(&house, &view);
                lose(&house, &view, loss, &innocent);
                if daemon_dies {
                    restart(&mut house);
                    let adopted = house.vm("one").unwrap();
                    assert!(runs(&adopted.state), "{at}: {:?}", adopted.state);
                    assert_eq!(adopted.pid, view.pid, "{at}");
                    assert!(!process.has_ended(), "{at}: a new daemon ended it");
                }
                assert!(matches!(remove_without_force(&house), Err(VmError::RemoveRunning(_))), "{at}");
                house.run_or_die(verb).unwrap().map_err(|error| format!("{at}: {error}")).unwrap();
                assert!(process.has_ended(), "{at}: process {} lives", process.pid());
                match verb {
                    Verb::Remove => {
                        std::fs::create_dir_all(house.paths().vms_runtime()).unwrap();
                        assert_eq!(house.left(), Vec::<String>::new(), "{at}");
                    }
                    Verb::Restart => {
                        assert!(runs(&house.vm("one").unwrap().state), "{at}");
                        assert_eq!((disk(&house, &view), house.processes().len()), (before, 1), "{at}");
                    }
                    _ => {
                        assert!(matches!(house.vm("one").unwrap().state, State::Stopped { .. }), "{at}");
                        assert_eq!(disk(&house, &view), before, "{at}");
                        house.run_or_die(Verb::Start).unwrap().unwrap();
                    }
                }
                assert!(innocent.lives(), "{at}: a process that only has the number was ended");
            }
        }
    }
}

#[test]
fn a_vm_of_an_older_daemon_is_found_without_record_and_file() {
    let (mut house, view, process) = running();
    assert_eq!(records(&house)[0].traces.as_ref().map(|traces| traces.process), process.identity().ok());
    house.kill();
    edit_record(&house, |record| record.traces = None);
    std::fs::remove_dir_all(house.paths().vm(view.definition.id.as_str()).runtime).unwrap();
    house.start();
    assert_eq!(house.vm("one").unwrap().pid, view.pid);
    house.run_or_die(Verb::Kill).unwrap().unwrap();
    assert!(process.has_ended());
}

#[test]
fn a_record_that_names_an_innocent_process_ends_the_vmm_and_not_that_one() {
    let innocent = Innocent::new();
    let (mut house, view, process) = running();
    house.kill();
    edit_record(&house, |record| record.traces = Some(Traces { process: innocent.identity(), tap: None }));
    lose(&house, &view, Loss::AnothersPidFile, &innocent);
    house.start();
    assert_eq!(house.vm("one").unwrap().pid, view.pid);
    house.run_or_die(Verb::Remove).unwrap().unwrap();
    assert!(process.has_ended() && innocent.lives());
}

#[test]
fn a_vm_that_has_ended_is_gone_though_its_number_is_anothers() {
    let innocent = Innocent::new();
    let (mut house, view, process) = running();
    house.kill();
    process.signal(Signal::KILL).unwrap();
    edit_record(&house, |record| record.traces = Some(Traces { process: innocent.identity(), tap: None }));
    lose(&house, &view, Loss::AnothersPidFile, &innocent);
    house.start();
    let stopped = house.vm("one").unwrap();
    assert!(matches!(stopped.state, State::Stopped { .. }), "{:?}", stopped.state);
    house.run_or_die(Verb::Start).unwrap().unwrap();
    house.run_or_die(Verb::Remove).unwrap().unwrap();
    assert!(innocent.lives());
    assert_eq!(house.left(), Vec::<String>::new());
}

/// As an older daemon left it that took a missing file for an end: recorded as stopped, but alive.
fn recorded_as_stopped() -> (House, View, Process) {
    let (mut house, view, process) = running();
    house.kill();
    edit_record(&house, |record| {
        record.state = State::Stopped { reason: None };
        record.wanted = false;
        record.traces = None;
    });
    std::fs::remove_dir_all(house.paths().vm(view.definition.id.as_str()).runtime).unwrap();
    house.start();
    (house, view, process)
}

#[test]
fn a_vmm_that_lives_against_its_record_is_named_and_neither_doubled_nor_robbed() {
    let (mut house, view, process) = recorded_as_stopped();
    let before = disk(&house, &view);
    let pid = view.pid.unwrap();
    let started = house.run_or_die(Verb::Start).unwrap();
    assert!(matches!(&started, Err(VmError::Lives { pid: named, .. }) if *named == pid), "{started:?}");
    let removed = remove_without_force(&house);
    assert!(matches!(&removed, Err(VmError::Lives { pid: named, .. }) if *named == pid), "{removed:?}");
    assert!(removed.unwrap_err().to_string().contains(&format!("process {pid}")));
    assert_eq!((house.processes().len(), disk(&house, &view)), (1, before));
    assert!(!process.has_ended() && matches!(house.vm("one").unwrap().state, State::Stopped { .. }));

    let (oddities, findings) =
        house.run(async |daemon| (bangerd::verify::verify(&daemon).await.unwrap(), daemon.examine().await));
    let told = oddities.iter().find(|oddity| oddity.kind == Kind::Process && oddity.which == pid.to_string()).unwrap();
    assert_eq!((told.problem, told.fix.as_deref()), (Problem::Leak, Some("banger kill one")));
    let finding = findings.iter().find(|finding| finding.check == "vms").unwrap();
    assert!(finding.verdict == Verdict::Fail && finding.found.contains(&pid.to_string()), "{finding:?}");

    house.run_or_die(Verb::Kill).unwrap().unwrap();
    assert!(process.has_ended());
    assert_eq!(disk(&house, &view), before);
    house.run_or_die(Verb::Start).unwrap().unwrap();
}

#[test]
fn a_removal_by_force_ends_the_vmm_that_lives_against_its_record_first() {
    let (mut house, view, process) = recorded_as_stopped();
    house.run_or_die(Verb::Remove).unwrap().unwrap();
    assert!(process.has_ended() && disk(&house, &view).is_none());
    assert_eq!(house.left(), Vec::<String>::new());
}

#[test]
fn a_vm_that_runs_without_its_files_is_told_by_verify_and_doctor_and_a_restart_mends_it() {
    let (mut house, view, _) = running();
    let look = |house: &House| {
        house.run(async |daemon| {
            let oddities = bangerd::verify::verify(&daemon).await.unwrap();
            let files: Vec<_> = oddities.into_iter().filter(|oddity| oddity.kind == Kind::File).collect();
            let findings = daemon.examine().await;
            (files, findings.into_iter().find(|finding| finding.check == "vms").unwrap())
        })
    };
    assert_eq!((look(&house).0, look(&house).1.verdict), (Vec::new(), Verdict::Pass));
    std::fs::remove_dir_all(house.paths().vm(view.definition.id.as_str()).runtime).unwrap();
    let (files, finding) = look(&house);
    assert_eq!(
        (files.len(), files[0].problem, files[0].fix.as_deref()),
        (1, Problem::Missing, Some("banger restart one"))
    );
    assert!(finding.verdict == Verdict::Warn && finding.fix.unwrap().contains("banger restart one"));
    house.run_or_die(Verb::Restart).unwrap().unwrap();
    assert_eq!((look(&house).0, look(&house).1.verdict), (Vec::new(), Verdict::Pass));
}

#[test]
fn a_vm_that_goes_with_its_connection_takes_its_process_along() {
    let mut house = House::new();
    house.run(async |daemon| {
        let (operation, _) = Operation::begin("test", "one");
        let request = VmCreate { name: Some("one".into()), lifetime: Lifetime::Connection, ..VmCreate::default() };
        daemon.registry.create(&request, &operation).await.unwrap().done().await.unwrap();
    });
    for daemon_dies in [false, true] {
        if house.vm("one").is_none() {
            house.run(async |daemon| {
                let (operation, _) = Operation::begin("test", "one");
                let request =
                    VmCreate { name: Some("one".into()), lifetime: Lifetime::Connection, ..VmCreate::default() };
                daemon.registry.create(&request, &operation).await.unwrap().done().await.unwrap();
            });
        }
        let view = house.vm("one").unwrap();
        let process = Process::open(view.pid.unwrap(), None).unwrap();
        std::fs::remove_dir_all(house.paths().vm(view.definition.id.as_str()).runtime).unwrap();
        match daemon_dies {
            true => restart(&mut house),
            false => house.run(async |daemon| daemon.registry.find("one").unwrap().lease_ended().await),
        }
        assert!(process.has_ended(), "daemon dies: {daemon_dies}: process {} lives", process.pid());
        assert_eq!(house.left(), Vec::<String>::new(), "daemon dies: {daemon_dies}");
    }
}

#[test]
fn a_create_that_fails_after_its_files_went_leaves_no_process() {
    // Its guest removes the runtime directory itself, and never answers.
    let mut house = House::with(r#"for last; do :; done; rm -rf "${last%/*}"; exec perl -e 'sleep 600' -- "$@""#);
    let failed = house.run_or_die(Verb::Create).unwrap().unwrap_err();
    assert!(matches!(failed, VmError::AgentSilent { .. } | VmError::Guest(_)), "{failed:?}");
    assert_eq!(house.left(), Vec::<String>::new());
}

#[test]
fn a_vm_that_was_starting_when_its_daemon_and_its_files_went_is_found() {
    use bangerd::operation::fault::{Mode, Phase, Step};
    let (mut house, view, _) = running();
    house.run_or_die(Verb::Stop).unwrap().unwrap();
    house.faults.plan(Step::StartVmm, Phase::After, Mode::Hang);
    assert!(house.run_or_die(Verb::Start).is_none());
    house.faults.unplan();
    let vmm = Process::recorded(&house.paths().vm(view.definition.id.as_str()).pid_file).unwrap();
    std::fs::remove_dir_all(house.paths().vm(view.definition.id.as_str()).runtime).unwrap();
    edit_record(&house, |record| record.wanted = false);
    house.start();
    // The daemon cannot speak to it, so its start fails: it is released but not forgotten.
    assert!(matches!(house.vm("one").unwrap().state, State::Stopped { .. }));
    assert!(vmm.has_ended() && house.processes().is_empty(), "{:?}", house.processes());
    house.run_or_die(Verb::Start).unwrap().unwrap();
    assert_eq!(house.processes().len(), 1);
}

#[test]
fn a_daemon_can_ask_which_vms_live_before_it_changes_anything() {
    let (mut house, view, process) = running();
    let all = records(&house);
    house.kill();
    std::fs::remove_dir_all(house.paths().runtime).unwrap();
    let fake: &dyn Vmm = &Fake::new(PathBuf::from("/agent"));
    let living = alive::of_records(&all, fake, &house.paths(), alive::Whose::Own).unwrap();
    assert_eq!(living.len(), 1);
    assert_eq!((&living[0].0, living[0].1.pid()), (&all[0], view.pid.unwrap()));
    process.signal(Signal::KILL).unwrap();
    let ended = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let status = ended.block_on(async { tokio::time::timeout(Duration::from_secs(10), process.ended()).await });
    assert_eq!(status.unwrap().unwrap().and_then(|status| status.signal()), Some(9));
    assert!(alive::of_records(&all, fake, &house.paths(), alive::Whose::Own).unwrap().is_empty());
}
