//! The fake VMM: no virtual machine, but the real agent as a process of the host. For tests; it shuts nothing in.
//!
//! Everything around it is as with a real one: a process in a session of its own with a record, which outlives the daemon
//! and is adopted; a boot file out of the initramfs; a channel that is renewed by connecting anew. What a guest would write
//! to its work disk is in a directory beside that disk, `work.ext4.d`: it survives a stop and goes when the VM is removed,
//! and the disk itself stays as it was.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use banger_linux::process::{Launch, Process, ProcessError, Program, Stream};
use banger_protocol::boot;
use futures::FutureExt;
use futures::future::BoxFuture;
use rustix::process::Signal;
use tokio::net::UnixStream;
use tokio::sync::watch;

use super::{Capabilities, Channel, Console, Farewell, Instance, Machine, PID_FILE, Shortage, Vmm, VmmError, failed};

/// The agent's socket, in the machine's runtime directory.
const SOCKET: &str = "agent.sock";

/// Where the boot file is laid out, in the machine's runtime directory.
const BOOT: &str = "boot.json";

/// The option that marks an agent as a guest.
const FAKE_GUEST: &str = "--fake-guest";

/// How much of an initramfs's end is searched for the boot file, which is the last thing in it.
const TAIL: u64 = 256 * 1024;

/// The driver that runs agents instead of VMs.
#[derive(Debug)]
pub struct Fake {
    agent: PathBuf,
}

impl Fake {
    /// A driver that runs this agent.
    pub fn new(agent: PathBuf) -> Fake {
        Fake { agent }
    }
}

#[async_trait]
impl Vmm for Fake {
    fn capabilities(&self) -> Capabilities {
        Capabilities { name: "fake", power_button: true }
    }

    async fn ready(&self) -> Result<(), VmmError> {
        Ok(())
    }

    async fn start(&self, machine: &Machine) -> Result<Box<dyn Instance>, VmmError> {
        super::not_running(self, machine)?;
        let process = Process::start(launch(&self.agent, machine)?)?;
        Ok(Box::new(FakeInstance::new(process, machine)))
    }

    async fn adopt(&self, machine: &Machine, process: Process) -> Result<Box<dyn Instance>, VmmError> {
        match process.has_ended() {
            true => Err(VmmError::Gone),
            false => Ok(Box::new(FakeInstance::new(process, machine))),
        }
    }

    /// Its boot file is in a directory with the machine's name.
    fn machine_of(&self, command: &[Vec<u8>]) -> Option<String> {
        command.iter().position(|word| word == FAKE_GUEST.as_bytes())?;
        let boot = after(command, b"--boot")?;
        boot.parent().filter(|_| boot.ends_with(BOOT))?.file_name()?.to_str().map(str::to_owned)
    }

    /// Its directory is next to the work disk.
    fn works_on(&self, _process: &Process, command: &[Vec<u8>], disks: &[&Path]) -> Option<bool> {
        let which = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
        let root = which(after(command, b"--root")?)?;
        let own: Vec<_> = disks.iter().filter_map(|disk| which(&beside(disk))).collect();
        (!own.is_empty()).then(|| own.contains(&root))
    }

    /// It runs as the daemon's user.
    fn user_of(&self, _uid: u32) -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn runtime_files(&self) -> &'static [&'static str] {
        &[PID_FILE, SOCKET]
    }
}

/// The path after an option.
fn after<'c>(command: &'c [Vec<u8>], option: &[u8]) -> Option<&'c Path> {
    let at = command.iter().position(|word| word == option)?;
    command.get(at + 1).map(|word| Path::new(OsStr::from_bytes(word)))
}

/// The agent gets its socket listening, as its standard input, so that it can be connected to before it has come so far as to accept.
fn launch(agent: &Path, machine: &Machine) -> Result<Launch, VmmError> {
    let dir = &machine.runtime_dir;
    std::fs::create_dir_all(dir).map_err(failed("make", dir))?;
    let boot = dir.join(BOOT);
    let description = boot_file(&machine.initramfs).map_err(failed("find the boot file in", &machine.initramfs))?;
    std::fs::write(&boot, description).map_err(failed("write", &boot))?;
    let work = machine.disks.iter().find(|disk| disk.serial == boot::serial::WORK);
    let root = work.map_or_else(|| dir.join("root"), |disk| beside(&disk.path));
    std::fs::create_dir_all(&root).map_err(failed("make", &root))?;
    let socket = dir.join(SOCKET);
    if let Err(error) = std::fs::remove_file(&socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(failed("replace", &socket)(error));
    }
    let listener = UnixListener::bind(&socket).map_err(failed("listen on", &socket))?.into();
    let console = File::create(&machine.console_log).map_err(failed("write", &machine.console_log))?;
    let pid_file = dir.join(PID_FILE);

    let args = [FAKE_GUEST, "--listen", "-", "--root"].map(Into::into);
    let args = args.into_iter().chain([root.into_os_string(), "--boot".into(), boot.into_os_string()]);
    let mut launch = Launch::new(Program::Agent(agent.to_owned()), args);
    launch.stderr = Stream::Fd(console.into());
    launch.stdin = Stream::Fd(listener);
    launch.session = true;
    launch.pid_file = Some(File::create(&pid_file).map_err(failed("write", &pid_file))?);
    Ok(launch)
}

fn beside(disk: &Path) -> PathBuf {
    let mut path = disk.as_os_str().to_owned();
    path.push(".d");
    path.into()
}

/// The content of the boot file, which is the last file of the last cpio archive ("newc") of an initramfs.
fn boot_file(initramfs: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(initramfs)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    find_boot_file(&tail).map(<[u8]>::to_vec).ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn find_boot_file(archive: &[u8]) -> Option<&[u8]> {
    const HEAD: usize = 110;
    let name = format!("{}\0", boot::PATH.trim_start_matches('/'));
    let at = archive.windows(name.len()).rposition(|window| window == name.as_bytes())?;
    let start = at.checked_sub(HEAD)?;
    let head = archive.get(start..at)?;
    let size = head.strip_prefix(b"070701").and_then(|fields| fields.get(48..56))?;
    let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
    // Names begin and contents begin at multiples of four, counted from the archive's beginning; a head begins at one.
    let content = start + (HEAD + name.len()).next_multiple_of(4);
    archive.get(content..content.checked_add(size)?)
}

/// An agent that plays a guest.
struct FakeInstance {
    process: Process,
    socket: PathBuf,
    disks: Vec<PathBuf>,
}

impl FakeInstance {
    fn new(process: Process, machine: &Machine) -> FakeInstance {
        let disks = machine.disks.iter().map(|disk| disk.path.clone()).collect();
        FakeInstance { process, socket: machine.runtime_dir.join(SOCKET), disks }
    }
}

#[async_trait]
impl Instance for FakeInstance {
    fn process(&self) -> &Process {
        &self.process
    }

    async fn connect(&self) -> Result<Box<dyn Channel>, VmmError> {
        match UnixStream::connect(&self.socket).await {
            Ok(channel) => Ok(Box::new(channel)),
            Err(_) if self.process.has_ended() => Err(VmmError::Gone),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(VmmError::Gone),
            Err(error) => Err(failed("connect to", &self.socket)(error)),
        }
    }

    /// Its agent is all that it is: with that ends the process, and the stream.
    fn abandoned(&self) -> BoxFuture<'static, ()> {
        std::future::pending().boxed()
    }

    /// How its agent ended is all that is known.
    fn farewell(&self) -> BoxFuture<'static, Option<Farewell>> {
        std::future::ready(None).boxed()
    }

    /// It writes to no disk.
    fn shortage(&self) -> watch::Receiver<Shortage> {
        watch::channel(Shortage::default()).1
    }

    async fn resume(&self) -> Result<(), VmmError> {
        Ok(())
    }

    /// What its agent says goes into the log by itself.
    fn console(&self) -> Option<Console> {
        None
    }

    async fn grow_disk(&self, place: usize, bytes: u64) -> Result<(), VmmError> {
        let Some(disk) = self.disks.get(place) else { return Ok(()) };
        let grow = || File::options().write(true).open(disk)?.set_len(bytes);
        grow().map_err(failed("grow", disk))
    }

    async fn press_power_button(&self) -> Result<(), VmmError> {
        self.process.signal(Signal::TERM).map_err(|error| match error {
            ProcessError::Gone { .. } => VmmError::Gone,
            error => error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::Disk;
    use crate::vmm::qemu::console;
    use crate::vmm::stand_in::script;
    use tempfile::TempDir;

    fn machine(dir: &TempDir) -> Machine {
        let path = |name: &str| dir.path().join(name);
        let mut archive = crate::boot::cpio::Archive::new();
        archive.file("init", 0o755, b"another archive, with a name like banger/boot.json in it");
        let mut bytes = archive.finish();
        let mut archive = crate::boot::cpio::Archive::new();
        archive.file("banger/boot.json", 0o600, b"{\"modules\": []}");
        bytes.extend(archive.finish());
        std::fs::write(path("initramfs"), bytes).unwrap();
        std::fs::write(path("work.ext4"), "a file system").unwrap();
        Machine {
            id: "run".into(),
            runtime_dir: path("run"),
            kernel: path("none"),
            initramfs: path("initramfs"),
            cmdline: String::new(),
            disks: vec![Disk { path: path("work.ext4"), serial: "work".into() }],
            card: None,
            cpus: 1,
            memory_mib: 64,
            uid: 123_456,
            console_log: path("console.log"),
            kvm: false,
        }
    }

    fn recorded(machine: &Machine) -> Process {
        Process::recorded(&machine.runtime_dir.join(PID_FILE)).unwrap()
    }

    #[test]
    fn a_machine_is_known_by_the_directory_of_its_boot_file() {
        let fake = Fake::new("/agent".into());
        let of = |line: &str| {
            let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            fake.machine_of(&words)
        };
        let line = "/agent --fake-guest --listen - --root /s/vms/x3 --boot /r/vms/x3/boot.json";
        assert_eq!(of(line).as_deref(), Some("x3"));
        assert_eq!(of(&format!("/bin/sh {line} --protocol 1")).as_deref(), Some("x3"));
        assert_eq!(of("/agent --listen - --boot /r/vms/x3/boot.json"), None);
        assert_eq!(of("/agent --fake-guest --boot /r/vms/x3/other.json"), None);
        assert_eq!(of("/agent --fake-guest --boot"), None);
    }

    #[test]
    fn the_boot_file_is_found_at_the_end_of_an_initramfs() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(&dir);
        assert_eq!(boot_file(&machine.initramfs).unwrap(), b"{\"modules\": []}");
        let bytes = std::fs::read(&machine.initramfs).unwrap();
        for length in 0..bytes.len() {
            let found = find_boot_file(&bytes[..length]);
            assert!(found.is_none_or(|content| content == b"{\"modules\": []}"), "{length}: {found:?}");
        }
        assert_eq!(find_boot_file(b"banger/boot.json\0"), None);
    }

    #[test]
    fn the_agent_gets_its_socket_and_a_directory_beside_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(&dir);
        let launch = launch(Path::new("/agent"), &machine).unwrap();
        let root = dir.path().join("work.ext4.d");
        let boot = dir.path().join("run/boot.json");
        let args: Vec<_> = launch.args.iter().map(|arg| arg.to_str().unwrap()).collect();
        let (root_arg, boot_arg) = (root.to_str().unwrap(), boot.to_str().unwrap());
        assert_eq!(args, ["--fake-guest", "--listen", "-", "--root", root_arg, "--boot", boot_arg]);
        assert!(root.is_dir() && boot.is_file());
        assert_eq!(std::fs::read(dir.path().join("work.ext4")).unwrap(), b"a file system");
        assert!(std::os::unix::net::UnixStream::connect(dir.path().join("run/agent.sock")).is_ok());
    }

    #[tokio::test]
    async fn it_is_adopted_and_ends_by_its_button_and_starts_again() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(&dir);
        // One that keeps its arguments, which identify it.
        let sleeps = "exec perl -e 'sleep 60' -- \"$@\"";
        let agent = script(dir.path(), "agent", &format!("echo \"banger-agent: cannot boot: $1\" >&2; {sleeps}")).await;
        let vm = Fake::new(agent.clone()).start(&machine).await.unwrap();
        vm.connect().await.unwrap();
        let adopted = Fake::new(agent.clone()).adopt(&machine, recorded(&machine)).await.unwrap();
        assert_eq!(adopted.process().pid(), vm.process().pid());
        adopted.connect().await.unwrap();
        std::fs::write(dir.path().join("work.ext4.d/file"), "kept").unwrap();
        while console::read(&machine.console_log).await.unwrap() != b"banger-agent: cannot boot: --fake-guest\n" {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }

        assert!(matches!(Fake::new(agent.clone()).start(&machine).await, Err(VmmError::Runs { .. })));
        let held = recorded(&machine);
        adopted.press_power_button().await.unwrap();
        vm.process().ended().await.unwrap();
        assert!(matches!(adopted.connect().await, Err(VmmError::Gone)));
        assert!(matches!(Fake::new(agent.clone()).adopt(&machine, held).await, Err(VmmError::Gone)));
        assert!(dir.path().join("work.ext4.d/file").exists());

        let again = Fake::new(agent).start(&machine).await.unwrap();
        again.connect().await.unwrap();
        again.process().signal(Signal::KILL).unwrap();
        again.process().ended().await.unwrap();
    }

    #[tokio::test]
    async fn an_agent_that_is_missing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(&dir);
        assert!(Fake::new(dir.path().join("none")).start(&machine).await.is_err());
    }
}
