//! Builds real images: with root, mmdebstrap, and the mirror that this machine's apt uses. A whole build takes a minute or
//! more and runs only where `BANGER_TEST_IMAGE` is set; that a build which is given up leaves nothing is tested wherever it
//! can be.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use banger_linux::file;
use banger_linux::process::{Launch, Leash, Process, Program, Stream};
use bangerd::config::Namespace;
use bangerd::image::install::Mmdebstrap;
use bangerd::image::{self, BuildRequest, Built, Progress, containment, names};
use bangerd::operation::fault::Faults;
use tokio::sync::Notify;

/// User ids that nobody has.
const FIRST_UID: u32 = 1_900_000_000;

fn request(dir: &Path, namespace: Namespace) -> BuildRequest {
    BuildRequest {
        name: "test".into(),
        size: 2 << 30,
        seed_size: 256 << 20,
        scratch: dir.join("scratch"),
        dir: dir.join("image"),
        log: dir.join("log"),
        suite: "bookworm".to_owned(),
        added: Vec::new(),
        namespace,
        first_uid: FIRST_UID,
    }
}

/// Why no image can be built here.
fn obstacle() -> Option<&'static str> {
    let apt = |name: &str| Path::new("/etc/apt").join(name).exists();
    if !rustix::process::geteuid().is_root() {
        Some("not root")
    } else if !Program::Mmdebstrap.path().exists() {
        Some("mmdebstrap is not installed")
    } else if !apt("sources.list") && !apt("sources.list.d") {
        Some("this machine's apt has no sources")
    } else {
        None
    }
}

/// Whether images can be built in a user namespace here.
async fn containable(dir: &Path) -> bool {
    match containment::attempt(FIRST_UID, dir).await {
        Ok(()) => true,
        Err(obstacle) => {
            banger_skip::skipped!("{obstacle}");
            false
        }
    }
}

/// The processes whose command line, root, working directory or mounts are in `dir`. A namespace sees it at another place.
fn processes_in(dir: &Path) -> Vec<PathBuf> {
    let text = dir.to_str().unwrap();
    let of_interest = |process: &PathBuf| {
        let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let link = |name| std::fs::read_link(process.join(name)).is_ok_and(|target| target.starts_with(dir));
        let mounts = std::fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(text) || link("root") || link("cwd") || mounts.contains(text)
    };
    let all = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.file_name().unwrap().to_str().unwrap().parse::<u32>().is_ok()).filter(of_interest).collect()
}

#[tokio::test]
async fn a_build_that_is_given_up_leaves_nothing_but_its_log() {
    if let Some(obstacle) = obstacle() {
        banger_skip::skipped!("{obstacle}");
        return;
    }
    given_up(Namespace::None).await;
    if containable(tempfile::tempdir().unwrap().path()).await {
        given_up(Namespace::User).await;
    }
}

async fn given_up(namespace: Namespace) {
    let dir = tempfile::tempdir().unwrap();
    let request = request(dir.path(), namespace);
    // Given up in the middle: dpkg is at work in the chroot, with /proc, /sys and /dev mounted in it.
    let under_way = Notify::new();
    let seen = Mutex::new(Vec::new());
    let progress = |progress: Progress| {
        if matches!(&progress, Progress::Line(line) if line.starts_with("unpacking") || line.starts_with("setting up"))
        {
            assert!(!processes_in(dir.path()).is_empty(), "nothing is under way");
            under_way.notify_one();
        }
        seen.lock().unwrap().push(progress);
    };
    let faults = Faults::default();
    tokio::select! {
        ended = image::build(&request, &Mmdebstrap, &progress, &faults) => panic!("it ended by itself: {ended:?}"),
        // The build is dropped before this arm runs.
        () = under_way.notified() => {}
    }
    // One that is dying closes its files, and so is heard no more, before it lets go of its directories and mounts.
    for process in processes_in(dir.path()) {
        let pid = process.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let Ok(process) = Process::open(pid, None) else { continue };
        let ended = tokio::time::timeout(Duration::from_secs(5), process.ended()).await;
        assert!(ended.is_ok(), "{pid} lives: {:?}", process.command_line());
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
    assert!(!request.dir.exists() && request.log.exists());
    assert_eq!(seen.lock().unwrap().first(), Some(&Progress::Stage("packages.install")));
    // Its files are removed on a thread of their own.
    let began = Instant::now();
    while request.scratch.exists() && began.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!request.scratch.exists());
}

#[tokio::test]
async fn a_whole_image() {
    #[expect(clippy::disallowed_methods, reason = "a test has no main.rs to be told by")]
    let wanted = std::env::var_os("BANGER_TEST_IMAGE").is_some();
    if let Some(obstacle) = obstacle().or((!wanted).then_some("BANGER_TEST_IMAGE is not set")) {
        banger_skip::skipped!("{obstacle}");
        return;
    }
    let as_root = whole(Namespace::None).await;
    if containable(tempfile::tempdir().unwrap().path()).await {
        let contained = whole(Namespace::User).await;
        // The same packages and, but for what is made anew each time, the same files.
        assert_eq!(contained, as_root);
    }
}

/// Builds an image: what it says of itself, and what its disk says of files that a namespace could have spoilt.
async fn whole(namespace: Namespace) -> (Built, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let request = request(dir.path(), namespace);
    let built = image::build(&request, &Mmdebstrap, &|_| {}, &Faults::default()).await.unwrap();
    assert!(!request.scratch.exists());
    assert_eq!(image::read(&request.dir).unwrap(), built);
    assert!(built.system.starts_with("Debian") && built.packages > 100 && built.work_seed, "{built:?}");

    let read = |name: &str| std::fs::read_to_string(request.dir.join(name)).unwrap();
    assert!(read(names::PACKAGES).contains("\nsystemd\t"));
    let modules = read(names::MODULE_LIST);
    assert!(modules.contains("virtio_blk.ko\n") && modules.contains("virtio_console.ko\n"), "{modules}");
    assert!(std::fs::read(request.dir.join(names::KERNEL)).unwrap().starts_with(b"\x7fELF"));
    let root = request.dir.join(names::ROOT);
    assert_eq!(std::fs::metadata(&root).unwrap().len(), request.size);
    assert!(file::allocated(&root).unwrap() < 500 << 20);
    assert!(file::allocated(&request.dir.join(names::WORK_SEED)).unwrap() < 512 << 10);

    // Looked at by another program than made it.
    let listing = debugfs(&root, "ls -l /etc/ssh", dir.path()).await;
    assert!(listing.contains("sshd_config") && !listing.contains("ssh_host_"), "{listing}");
    assert_eq!(debugfs(&root, "cat /etc/machine-id", dir.path()).await, "");
    assert!(debugfs(&root, "cat /etc/shadow", dir.path()).await.lines().any(|line| line.starts_with("root:*:")));
    let everything = debugfs(&root, "ls -l /etc/systemd/system", dir.path()).await;
    assert!(!everything.contains("banger"), "{everything}");
    assert!(debugfs(&request.dir.join(names::WORK_SEED), "ls -l /", dir.path()).await.contains(".bashrc"));

    let mut told = Vec::new();
    for path in ["/usr/bin/sudo", "/usr/bin/chage", "/usr/bin/ping", "/etc/shadow", "/var/cache/apt/archives/partial"] {
        let said = debugfs(&root, &format!("stat {path}"), dir.path()).await;
        // `Inode: 12 Type: regular Mode: 04755 Flags: 0x80000`, `User: 0 Group: 42 ...`
        let line = |begin: &str| said.lines().find(|line| line.starts_with(begin)).unwrap().to_owned();
        let of_mode = line("Inode:").split_once("Mode:").unwrap().1.split_whitespace().next().unwrap().to_owned();
        let of_owner: Vec<String> = line("User:").split_whitespace().take(4).map(str::to_owned).collect();
        told.push(format!("{path} {of_mode} {}", of_owner.join(" ")));
    }
    assert_eq!(told[0], "/usr/bin/sudo 04755 User: 0 Group: 0");
    // The capability to send raw packets, without a word of whose namespace it is for (version 2 of capabilities(7)).
    let capability = debugfs(&root, "ea_get -x /usr/bin/ping security.capability", dir.path()).await;
    assert!(capability.contains("01 00 00 02"), "{capability}");
    told.push(capability);
    told.push(debugfs(&root, "ls -l /dev", dir.path()).await.lines().filter_map(without_time).collect());
    (built, told)
}

/// A line of debugfs' `ls -l`, `12 20666 (3) 0 0 ... 1-Jan-2000 12:00 name`, without the inode and its time.
fn without_time(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, mode, _, user, group, .., name] = words[..] else { return None };
    Some(format!("{mode} {user} {group} {name}\n"))
}

async fn debugfs(disk: &Path, command: &str, dir: &Path) -> String {
    let answer = dir.join("answer");
    let mut launch = Launch::new(Program::Debugfs, ["-R", command, disk.to_str().unwrap()]);
    launch.stdout = Stream::Fd(File::create(&answer).unwrap().into());
    assert!(Leash::start(launch).unwrap().ended().await.unwrap().success());
    std::fs::read_to_string(answer).unwrap()
}
