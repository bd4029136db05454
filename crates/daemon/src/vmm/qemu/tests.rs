//! The driver against stand-ins for QEMU that misbehave, and against the real one.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use banger_linux::process::{Process, Program};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::launch::QMP_SOCKET;
use super::qmp::Qmp;
use super::{Qemu, console, kernel};
use crate::vmm::stand_in::script;
use crate::vmm::{Disk, Instance, Machine, PID_FILE, Vmm, VmmError, is_vmm_of};

fn machine(dir: &TempDir) -> Machine {
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("vmlinux"), kernel::elf()).unwrap();
    std::fs::set_permissions(path("vmlinux"), std::fs::Permissions::from_mode(0o644)).unwrap();
    std::fs::write(path("initramfs"), "no archive").unwrap();
    std::fs::File::create(path("root.ext4")).unwrap().set_len(1 << 20).unwrap();
    Machine {
        id: "test".into(),
        runtime_dir: path("run"),
        kernel: path("vmlinux"),
        initramfs: path("initramfs"),
        cmdline: String::new(),
        disks: vec![Disk { path: path("root.ext4"), serial: "root".into() }],
        card: None,
        cpus: 1,
        memory_mib: 64,
        uid: 123_456,
        console_log: path("console.log"),
        kvm: false,
    }
}

/// A QEMU of this version that does as this script says.
async fn stand_in(dir: &TempDir, version: &str, behaviour: &str) -> Qemu {
    let asked = dir.path().join("asked");
    let answer = format!("echo asked >> {}; echo 'QEMU emulator version {version}'; exit", asked.display());
    let path = script(dir.path(), "qemu", &format!("if [ \"$1\" = --version ]; then {answer}; fi\n{behaviour}")).await;
    // The temporary directory lets only its owner in, and stand-ins run as another user.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    Qemu::new(Program::StandIn(path))
}

async fn refusal(qemu: &Qemu, machine: &Machine) -> VmmError {
    match qemu.start(machine).await {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    }
}

fn nothing_runs(machine: &Machine) -> bool {
    Process::recorded(&machine.runtime_dir.join(PID_FILE)).is_err()
}

#[tokio::test]
async fn a_qemu_that_dies_at_once_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let qemu =
        stand_in(&dir, "10.0.2", "echo first >&2; echo 'qemu: could not\tset up: no luck' >&2; echo >&2; exit 3").await;
    let machine = machine(&dir);
    let start = Instant::now();
    let error = refusal(&qemu, &machine).await.to_string();
    assert!(error.ends_with("ended at once (exit status: 3): qemu: could not set up: no luck"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(10), "nobody waits for a deadline when the process is gone");
    assert!(nothing_runs(&machine));
}

#[tokio::test]
async fn a_qemu_that_is_silent_is_ended_at_the_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let qemu = stand_in(&dir, "10.0.2", "exec sleep 600").await.with_patience(Duration::from_millis(300));
    let machine = machine(&dir);
    assert!(matches!(refusal(&qemu, &machine).await, VmmError::Silent { .. }));
    assert!(nothing_runs(&machine));
}

#[tokio::test]
async fn a_start_that_is_cancelled_leaves_no_process() {
    let dir = tempfile::tempdir().unwrap();
    let qemu = stand_in(&dir, "10.0.2", "exec sleep 600").await;
    let machine = machine(&dir);
    let started = tokio::time::timeout(Duration::from_secs(1), qemu.start(&machine)).await;
    assert!(started.is_err());
    assert!(machine.runtime_dir.join(PID_FILE).metadata().unwrap().len() > 0, "it ran");
    assert!(nothing_runs(&machine));
}

#[tokio::test]
async fn an_old_qemu_is_unfit() {
    let dir = tempfile::tempdir().unwrap();
    let qemu = stand_in(&dir, "6.2.0", "exit 1").await;
    let error = refusal(&qemu, &machine(&dir)).await;
    assert!(matches!(error, VmmError::Unfit { .. }));
    assert!(error.to_string().ends_with("it is version 6.2, and 7.2 is the oldest that is supported"), "{error}");
}

#[tokio::test]
async fn no_qemu_is_unfit() {
    let dir = tempfile::tempdir().unwrap();
    let qemu = Qemu::new(Program::StandIn(dir.path().join("none")));
    assert!(matches!(refusal(&qemu, &machine(&dir)).await, VmmError::Unfit { .. }));
}

#[tokio::test]
async fn the_version_is_asked_for_once_until_the_file_changes() {
    let dir = tempfile::tempdir().unwrap();
    let qemu = stand_in(&dir, "10.0.2", "exit 1").await;
    let asked = || std::fs::read_to_string(dir.path().join("asked")).unwrap().lines().count();
    for _ in 0..3 {
        assert_eq!(qemu.supported().await.unwrap().to_string(), "10.0");
    }
    assert_eq!(asked(), 1);
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    std::fs::File::open(dir.path().join("qemu")).unwrap().set_modified(later).unwrap();
    qemu.supported().await.unwrap();
    assert_eq!(asked(), 2);
}

#[tokio::test]
async fn a_kernel_that_only_root_can_read_is_named() {
    if !rustix::process::geteuid().is_root() {
        banger_skip::skipped!("not root, so the VMM runs as the same user");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(&dir);
    std::fs::set_permissions(&machine.kernel, std::fs::Permissions::from_mode(0o600)).unwrap();
    let error = refusal(&stand_in(&dir, "10.0.2", "exit 1").await, &machine).await;
    assert!(error.to_string().contains("vmlinux"), "{error}");
}

fn real_qemu() -> Option<Qemu> {
    let found = Program::Qemu.path().exists();
    if !found {
        banger_skip::skipped!("no {}", Program::Qemu.path().display());
    }
    found.then(|| Qemu::new(Program::Qemu))
}

/// Ends the VM when the test ends, however it ends.
struct Ended<'a>(&'a Machine);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if let Ok(process) = Process::recorded(&self.0.runtime_dir.join(PID_FILE)) {
            process.signal(Signal::KILL).unwrap();
        }
    }
}

async fn is_over(channel: &mut (impl AsyncReadExt + Unpin)) -> bool {
    let read = tokio::time::timeout(Duration::from_secs(5), channel.read(&mut [0; 16])).await;
    matches!(read, Ok(Ok(0) | Err(_)))
}

async fn is_open(channel: &mut (impl AsyncReadExt + Unpin)) -> bool {
    tokio::time::timeout(Duration::from_millis(50), channel.read(&mut [0; 16])).await.is_err()
}

async fn monitor(machine: &Machine) -> Qmp {
    Qmp::connect(&machine.runtime_dir.join(QMP_SOCKET), Duration::from_secs(20)).await.unwrap()
}

async fn kill(instance: &dyn Instance) {
    instance.process().signal(Signal::KILL).unwrap();
    instance.process().ended().await.unwrap();
}

#[tokio::test]
async fn a_real_qemu_runs_without_rights_and_logs_its_console() {
    let Some(qemu) = real_qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(&dir);
    let _ended = Ended(&machine);
    let vm = qemu.start(&machine).await.unwrap();
    let initramfs = machine.initramfs.metadata().unwrap();
    assert_eq!(initramfs.len(), 4096);
    let status = std::fs::read_to_string(format!("/proc/{}/status", vm.process().pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), (vec!["1".to_owned()], vec!["2".to_owned()]));
    if rustix::process::geteuid().is_root() {
        assert_eq!(initramfs.uid(), machine.uid);
        assert_eq!((field("Uid:"), field("Gid:")), (vec!["123456".to_owned(); 4], vec!["123456".to_owned(); 4]));
        assert_eq!((field("Groups:"), field("CapEff:")), (Vec::new(), vec!["0000000000000000".to_owned()]));
    } else {
        banger_skip::skipped!("not root, so no rights can be dropped");
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while console::read(&machine.console_log).await.unwrap() != b"hi" {
        assert!(Instant::now() < deadline, "{:?}", console::read(&machine.console_log).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    kill(&*vm).await;
}

#[tokio::test]
async fn a_channel_is_renewed_by_the_daemon_that_started_it_and_by_the_next_one() {
    let Some(qemu) = real_qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(&dir);
    let _ended = Ended(&machine);
    let vm = qemu.start(&machine).await.unwrap();
    let mut channel = vm.connect().await.unwrap();
    assert!(is_open(&mut channel).await);
    for _ in 0..10 {
        channel.write_all(b"half a frame").await.unwrap();
        let renewed = vm.connect().await.unwrap();
        assert!(is_over(&mut std::mem::replace(&mut channel, renewed)).await);
        assert!(is_open(&mut channel).await);
    }
    let process = vm.process().try_clone().unwrap();
    let adopted = Qemu::new(Program::Qemu).adopt(&machine, process).await.unwrap();
    let mut next = adopted.connect().await.unwrap();
    assert!(is_over(&mut channel).await && is_open(&mut next).await);

    let (mut one, mut two) = tokio::try_join!(adopted.connect(), adopted.connect()).unwrap();
    assert!(is_over(&mut next).await);
    let (one, two) = (is_open(&mut one).await, is_open(&mut two).await);
    assert!(one != two, "of two that race one wins: {one} {two}");

    let names = monitor(&machine).await.chardevs().await.unwrap();
    assert!(names.len() < 10, "those of old channels are removed: {names:?}");
    adopted.press_power_button().await.unwrap();
    kill(&*adopted).await;
}

#[tokio::test]
async fn a_renewal_leads_out_of_one_that_was_cut_short() {
    let Some(qemu) = real_qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(&dir);
    let _ended = Ended(&machine);
    let vm = qemu.start(&machine).await.unwrap();
    drop(vm.connect().await.unwrap());
    for microseconds in (0..4000).step_by(200) {
        drop(tokio::time::timeout(Duration::from_micros(microseconds), vm.connect()).await);
    }
    assert!(is_open(&mut vm.connect().await.unwrap()).await);
    let mut qmp = monitor(&machine).await;
    qmp.device_del("port").await.unwrap();
    drop(qmp);
    assert!(is_open(&mut vm.connect().await.unwrap()).await);
    kill(&*vm).await;
}

#[tokio::test]
async fn a_vm_that_has_ended_is_gone() {
    let Some(qemu) = real_qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(&dir);
    let _ended = Ended(&machine);
    let vm = qemu.start(&machine).await.unwrap();
    drop(vm.connect().await.unwrap());
    assert!(matches!(refusal(&qemu, &machine).await, VmmError::Runs { pid } if pid == vm.process().pid()));
    kill(&*vm).await;
    assert!(matches!(vm.connect().await, Err(VmmError::Gone)));
    assert!(matches!(vm.press_power_button().await, Err(VmmError::Gone)));
    let process = vm.process().try_clone().unwrap();
    assert!(matches!(qemu.adopt(&machine, process).await, Err(VmmError::Gone)));
    assert!(Path::new(&machine.console_log).exists());
    let again = qemu.start(&machine).await.unwrap();
    assert!(is_open(&mut again.connect().await.unwrap()).await);
    kill(&*again).await;
}

#[tokio::test]
async fn a_vm_without_its_runtime_files_is_taken_over_by_its_process() {
    let Some(qemu) = real_qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let machine = machine(&dir);
    let vm = qemu.start(&machine).await.unwrap();
    let held = || vm.process().try_clone().unwrap();
    assert!(is_vmm_of(&qemu, &machine.id, machine.uid, vm.process()).unwrap());
    assert!(!is_vmm_of(&qemu, "another", machine.uid, vm.process()).unwrap());
    if rustix::process::geteuid().is_root() {
        assert!(!is_vmm_of(&qemu, &machine.id, machine.uid + 1, vm.process()).unwrap());
    }
    for name in qemu.runtime_files() {
        assert!(machine.runtime_dir.join(name).exists(), "{name}");
    }
    std::fs::remove_dir_all(&machine.runtime_dir).unwrap();
    let adopted = qemu.adopt(&machine, held()).await.unwrap();
    assert_eq!(adopted.process().pid(), vm.process().pid());
    assert!(adopted.console().is_none());
    assert!(matches!(adopted.connect().await, Err(VmmError::Io { .. })));
    assert!(matches!(adopted.press_power_button().await, Err(VmmError::Io { .. })));
    kill(&*adopted).await;
    assert!(matches!(qemu.adopt(&machine, held()).await, Err(VmmError::Gone)));
}

#[tokio::test]
async fn what_a_real_qemu_refuses_is_quoted() {
    let Some(qemu) = real_qemu() else { return };
    let dir = tempfile::tempdir().unwrap();
    let machine = Machine { cpus: 100_000, ..machine(&dir) };
    let error = refusal(&qemu, &machine).await;
    assert!(matches!(&error, VmmError::Died { said, .. } if said.contains("Invalid SMP CPUs")), "{error}");
    assert!(nothing_runs(&machine));
}
