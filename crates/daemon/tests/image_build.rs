//! Builds real images: with root, mmdebstrap, and the mirror that this machine's apt uses. A whole build takes a minute or
//! more and runs only where `BANGER_TEST_IMAGE` is set; that a build which is given up leaves nothing is tested wherever it
//! can be.

#![expect(clippy::unwrap_used, reason = "tests panic")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use banger_linux::file;
use banger_linux::process::{Launch, Leash, Program, Stream};
use bangerd::config::Namespace;
use bangerd::image::install::Mmdebstrap;
use bangerd::image::{self, BuildRequest, Progress, names};
use bangerd::operation::fault::Faults;
use tokio::sync::Notify;

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
        first_uid: 1_900_000_000,
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

/// The processes whose command line, root or working directory is in `dir`.
fn processes_in(dir: &Path) -> Vec<PathBuf> {
    let text = dir.to_str().unwrap();
    let of_interest = |process: &PathBuf| {
        let command = std::fs::read(process.join("cmdline")).unwrap_or_default();
        let link = |name| std::fs::read_link(process.join(name)).is_ok_and(|target| target.starts_with(dir));
        String::from_utf8_lossy(&command).contains(text) || link("root") || link("cwd")
    };
    let all = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    all.filter(|path| path.file_name().unwrap().to_str().unwrap().parse::<u32>().is_ok()).filter(of_interest).collect()
}

#[tokio::test]
async fn a_build_that_is_given_up_leaves_nothing_but_its_log() {
    if let Some(obstacle) = obstacle() {
        println!("SKIPPED: {obstacle}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let request = request(dir.path(), Namespace::Auto);
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
    assert_eq!(processes_in(dir.path()), Vec::<PathBuf>::new());
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
        println!("SKIPPED: {obstacle}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let request = request(dir.path(), Namespace::Auto);
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
}

async fn debugfs(disk: &Path, command: &str, dir: &Path) -> String {
    let answer = dir.join("answer");
    let mut launch = Launch::new(Program::Debugfs, ["-R", command, disk.to_str().unwrap()]);
    launch.stdout = Stream::Fd(File::create(&answer).unwrap().into());
    assert!(Leash::start(launch).unwrap().ended().await.unwrap().success());
    std::fs::read_to_string(answer).unwrap()
}
