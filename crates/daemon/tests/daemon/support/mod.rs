//! A daemon on the fake VMM, in places of its own, that can be killed and started again; and a host that is judged by
//! /proc and the file system, not by the daemon.

#![expect(clippy::unwrap_used, reason = "a test that fails shall panic")]

mod tree;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use banger_api::client::Client;
use banger_api::vm::{Net, VmCreate};
use bangerd::image::record::{ImageRecord, ImageState};
use bangerd::operation::Operation;
use bangerd::operation::fault::Faults;
use bangerd::paths::Paths;
use bangerd::serve::{Daemon, Options, ServeError};
use bangerd::store::Store;
use bangerd::vm::error::VmError;
use bangerd::vm::request::View;
use bangerd::vm::state::State;
use tokio::runtime::Runtime;
pub use tree::TinyTree;

/// How long anything here may take; far more than it does.
const PATIENCE: Duration = Duration::from_secs(30);

/// A place for daemons, and the life of one.
pub struct House {
    dir: tempfile::TempDir,
    /// What the next fault is.
    pub faults: Faults,
    life: Option<(Runtime, Arc<Daemon>)>,
}

impl House {
    /// A house with one small image, and a daemon in it.
    pub fn new() -> House {
        House::with(r#"exec "$AGENT" "$@""#)
    }

    /// A house whose VMs have the default network: only for a thread with a network namespace of its own.
    pub fn networked() -> House {
        House::of(r#"exec "$AGENT" "$@""#, Net::Nat)
    }

    /// A house whose guests are what this shell script runs; `$AGENT` is the agent, `$@` are its arguments.
    pub fn with(guest: &str) -> House {
        House::of(guest, Net::None)
    }

    fn of(guest: &str, net: Net) -> House {
        let dir = tempfile::Builder::new().prefix("bg").tempdir_in("/tmp").unwrap();
        let mut house = House { dir, faults: Faults::plannable(), life: None };
        house.furnish(net);
        let script = format!("#!/bin/sh\nAGENT={}\n{guest}\n", agent().display());
        std::fs::write(house.guest(), script).unwrap();
        std::fs::set_permissions(house.guest(), Permissions::from_mode(0o755)).unwrap();
        house.start();
        house
    }

    /// Where things are.
    pub fn paths(&self) -> Paths {
        let base = self.dir.path();
        Paths {
            state: base.join("s"),
            runtime: base.join("r"),
            config: base.join("c.toml"),
            claims: base.join("claims"),
        }
    }

    fn guest(&self) -> PathBuf {
        self.dir.path().join("guest")
    }

    fn furnish(&self, net: Net) {
        let paths = self.paths();
        let image = paths.image("image1");
        std::fs::create_dir_all(image.join("modules")).unwrap();
        std::fs::write(image.join("root.ext4"), vec![7; 64 * 1024]).unwrap();
        std::fs::write(image.join("work-seed.ext4"), vec![9; 64 * 1024]).unwrap();
        std::fs::write(image.join("vmlinux"), b"no kernel").unwrap();
        std::fs::write(image.join("modules.list"), b"").unwrap();
        std::fs::write(
            &paths.config,
            format!("[defaults]\ndisk_mib = 1\nnet = \"{}\"\n[timeouts]\nstop_s = 5\nagent_s = 3\n", net.as_str()),
        )
        .unwrap();
        let record = ImageRecord {
            id: "image1".into(),
            name: "debian".into(),
            state: ImageState::Ready,
            system: "Fake".into(),
            kernel: "0".into(),
            size: 64 * 1024,
            packages: 0,
            manifest: String::new(),
            work_seed: true,
            suite: String::new(),
            added: Vec::new(),
            created: 1,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = Store::open(&paths.database()).unwrap();
        runtime.block_on(store.insert_image(record)).unwrap();
    }

    /// Starts a daemon, and waits until it has taken over what there is.
    pub fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let options = Options {
            paths: self.paths(),
            agent: self.guest(),
            fake_vmm: true,
            installer: Arc::new(TinyTree),
            faults: self.faults.clone(),
        };
        let daemon = runtime.block_on(async {
            let daemon = start_daemon(options).await;
            let settled = async {
                for handle in daemon.registry.handles() {
                    // A request behind the recovery in the queue: its answer says that the recovery is over.
                    drop(handle.settle().await);
                    // Who is to come back is back.
                    drop(handle.follow().wait_for(|view| !view.missed && view.busy.is_none()).await);
                }
            };
            tokio::time::timeout(PATIENCE, settled).await.unwrap();
            daemon
        });
        self.life = Some((runtime, daemon));
    }

    /// Ends the daemon as `kill -9` does: nothing of it goes on, nothing is tidied up.
    pub fn kill(&mut self) {
        let (runtime, daemon) = self.life.take().unwrap();
        drop(daemon);
        runtime.shutdown_timeout(PATIENCE);
    }

    /// Lets the daemon listen on its socket, and returns when it does.
    pub fn listen(&self) -> Client {
        let (said, ready) = std::io::pipe().unwrap();
        let ready = std::fs::File::from(std::os::fd::OwnedFd::from(ready));
        self.run(async |daemon| tokio::spawn(daemon.serve(Some(ready))));
        assert_eq!(std::io::read_to_string(said).unwrap(), "ready\n");
        Client::new(self.paths().socket())
    }

    /// Runs something on the daemon.
    pub fn run<T>(&self, work: impl AsyncFnOnce(Arc<Daemon>) -> T) -> T {
        let (runtime, daemon) = self.life.as_ref().unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, work(Arc::clone(daemon))).await.unwrap() })
    }

    /// Runs a verb until it is done, or until a planned kill strikes: then the daemon is dead.
    pub fn run_or_die(&mut self, verb: Verb) -> Option<Result<View, VmError>> {
        self.or_die(async |daemon| verb.run(daemon).await)
    }

    /// Runs something until it is done, or until a planned kill strikes: then the daemon is dead.
    pub fn or_die<T>(&mut self, work: impl AsyncFnOnce(Arc<Daemon>) -> T) -> Option<T> {
        let faults = self.faults.clone();
        let ended = self.run(async move |daemon| {
            tokio::select! {
                done = work(daemon) => Some(done),
                () = faults.struck() => None,
            }
        });
        if ended.is_none() {
            self.kill();
        }
        ended
    }

    /// The VM, if the daemon knows it.
    pub fn vm(&self, name: &str) -> Option<View> {
        self.run(async |daemon| daemon.registry.find(name).ok().map(|handle| handle.view()))
    }

    /// A checksum of a VM's work disk, and its inode: the very file, unchanged.
    pub fn work_disk(&self, view: &View) -> (u64, Vec<u8>) {
        let path = self.paths().vm(view.definition.id.as_str()).work;
        let disk = std::fs::read(&path).unwrap();
        (std::fs::metadata(&path).unwrap().ino(), disk)
    }

    /// All processes and files that are there because of VMs.
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for place in [self.paths().vms(), self.paths().vms_runtime(), self.paths().scratch()] {
            left.extend(std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path().display().to_string()));
        }
        left.extend(self.processes().into_iter().map(|(pid, command)| format!("{pid}: {command}")));
        left
    }

    /// The images that there are: as they are recorded, and the directories.
    pub fn images(&self) -> (Vec<String>, usize) {
        let recorded = self.run(async |daemon| daemon.context.store.images().await.unwrap());
        let recorded = recorded.into_iter().map(|image| format!("{}: {}", image.name, image.state.as_str())).collect();
        (recorded, std::fs::read_dir(self.paths().images()).unwrap().count())
    }

    /// The processes that have this house in their command line.
    pub fn processes(&self) -> BTreeMap<u32, String> {
        let house = self.dir.path().display().to_string();
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let path = entry.unwrap().path();
            let Some(pid) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
            // A zombie has no command line; a process that ended meanwhile has no file.
            let command = std::fs::read(path.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(&house) {
                found.insert(pid, command);
            }
        }
        found
    }
}

impl House {
    /// Ends all guests behind the daemon's back.
    pub fn end_processes(&self) {
        for pid in self.processes().into_keys() {
            if let Ok(process) = banger_linux::process::Process::open(pid, None) {
                drop(process.signal(rustix::process::Signal::KILL));
            }
        }
    }

    /// Makes the records those of an earlier boot of the host.
    pub fn pretend_a_reboot(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = Store::open(&self.paths().database()).unwrap();
        runtime.block_on(async {
            for mut record in store.vms().await.unwrap() {
                record.host_boot = "an earlier boot".into();
                store.update_vm(record).await.unwrap();
            }
        });
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // A failed test leaves no guest behind either.
        self.end_processes();
    }
}

/// Starts a daemon where the one before was killed. Another test of this process may be between fork(2) and execve(2): its
/// child then holds the dead daemon's lock for some microseconds.
async fn start_daemon(options: Options) -> Arc<Daemon> {
    let began = std::time::Instant::now();
    loop {
        match Daemon::start(options.clone()).await {
            Err(ServeError::Locks(_)) if began.elapsed() < PATIENCE => tokio::task::yield_now().await,
            started => return started.map_err(|error| error.to_string()).unwrap(),
        }
    }
}

/// What is done to the VM `one`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Create,
    Start,
    Stop,
    Kill,
    Restart,
    Remove,
}

impl Verb {
    /// Does it.
    pub async fn run(self, daemon: Arc<Daemon>) -> Result<View, VmError> {
        self.run_as(daemon, Operation::begin("test", "one").0).await
    }

    /// Does it as this operation.
    pub async fn run_as(self, daemon: Arc<Daemon>, operation: Operation) -> Result<View, VmError> {
        let handle = || daemon.registry.find("one");
        match self {
            Verb::Create => {
                let request = VmCreate { name: Some("one".into()), ..VmCreate::default() };
                daemon.registry.create(&request, &operation).await?.done().await
            }
            Verb::Start => handle()?.start(operation).await,
            Verb::Stop => handle()?.stop(false, Duration::from_secs(5), operation).await,
            Verb::Kill => handle()?.stop(true, Duration::ZERO, operation).await,
            Verb::Restart => handle()?.restart(false, Duration::from_secs(5), operation).await,
            Verb::Remove => handle()?.remove(true, operation).await,
        }
    }
}

/// Whether a state says that a VMM runs.
pub fn runs(state: &State) -> bool {
    matches!(state, State::Running(_))
}

/// The agent that was built beside this test.
fn agent() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let built = test.parent().and_then(Path::parent).unwrap().join("banger-agent");
    assert!(built.exists(), "{} is not there: cargo build -p banger-agent", built.display());
    built
}
