//! One build of an image, from an empty scratch directory to the image in its place.
//!
//! Dropping the future ends the build: its tools are killed and its own threads have ended when the drop returns. The scratch
//! directory is removed however a build ends; a kill of the daemon leaves it to whoever recovers.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use banger_linux::file;
use tokio::task::JoinHandle;

use super::file_system::{self, FileSystem};
use super::install::{Installation, Installer};
use super::tree::Tree;
use super::{BuildRequest, Built, ImageError, Progress, debian, host, kernel, manifest, modules, names};
use crate::operation::Step;
use crate::operation::fault::Faults;

/// Where the host's apt is configured.
const ETC_APT: &str = "/etc/apt";

/// How often a long stage tells what it does.
const TELL_EVERY: Duration = Duration::from_millis(300);

/// Builds an image.
///
/// # Errors
/// [`ImageError`]; nothing is left then but the log.
pub async fn build(
    request: &BuildRequest,
    installer: &dyn Installer,
    progress: &(dyn Fn(Progress) + Send + Sync),
    faults: &Faults,
) -> Result<Built, ImageError> {
    if !rustix::process::geteuid().is_root() {
        return Err(ImageError::NotRoot);
    }
    let scratch = Scratch::make(&request.scratch)?;
    let result = build_in(request, installer, progress, faults).await;
    scratch.remove().await;
    result
}

async fn build_in(
    request: &BuildRequest,
    installer: &dyn Installer,
    progress: &(dyn Fn(Progress) + Send + Sync),
    faults: &Faults,
) -> Result<Built, ImageError> {
    // The image is made beside what the installer can write to.
    let (workshop, out) = (request.scratch.join("build"), request.scratch.join("image"));
    let root = workshop.join("root");
    make_directory(&workshop)?;
    make_directory(&out)?;
    let log = open_log(&request.log)?;

    progress(Progress::Stage("packages.install"));
    let mirrors = host::mirrors(Path::new(ETC_APT))?;
    let acquire = host::acquire_options(Path::new(ETC_APT))?;
    let mut teller = Teller::new(progress);
    let mut tell = |line| teller.tell(line);
    let (root, suite, acquire) = (&*root, &*request.suite, &*acquire);
    let installation = Installation {
        root,
        scratch: &workshop,
        enclosure: &request.scratch,
        suite,
        added: &request.added,
        mirrors: &mirrors,
        acquire,
        namespace: request.namespace,
        first_uid: request.first_uid,
        log: &log,
    };
    faults.step(Step::InstallPackages, installer.install(installation, &mut tell)).await?;

    progress(Progress::Stage("tree.prepare"));
    let (from, to, for_suite) = (root.to_owned(), out.clone(), suite.to_owned());
    let unpacked = blocking(move || {
        let tree = Tree::open(&from)?;
        // Read before the tree is set up: that takes the kernel out of it.
        let unpacked = read_kernel(&tree)?;
        debian::prepare(&tree, &mirrors, &for_suite)?;
        debian::make_devices(&tree)?;
        let described = describe(&tree, &to)?;
        Ok::<_, ImageError>((unpacked, described))
    });
    let ((release, packed), described) = faults.step(Step::PrepareTree, unpacked).await?;

    progress(Progress::Stage("kernel.unpack"));
    let (from, to, name) = (root.to_owned(), out.clone(), release.clone());
    let unpacked = blocking(move || unpack_kernel(&Tree::open(&from)?, &name, &packed, &to));
    faults.step(Step::UnpackKernel, unpacked).await?;

    progress(Progress::Stage("root.make"));
    let image =
        FileSystem { content: root, file: &out.join(names::ROOT), size: request.size, label: "root", reserved: 1 };
    let made = async { Ok::<_, ImageError>(file_system::make(image, &log).await?) };
    faults.step(Step::MakeRootDisk, made).await?;

    progress(Progress::Stage("seed.make"));
    let home = root.join("root");
    only_directory(&home)?;
    let seed = FileSystem {
        content: &home,
        file: &out.join(names::WORK_SEED),
        size: request.seed_size,
        label: "work",
        reserved: 0,
    };
    let made = async { Ok::<_, ImageError>(file_system::make_home(seed, &log).await?) };
    faults.step(Step::MakeWorkSeed, made).await?;

    let built = Built { kernel: release, size: request.size, work_seed: true, ..described };
    write_description(&out, &built)?;

    progress(Progress::Stage("image.sync"));
    faults.step(Step::PublishImage, publish(root, &out, &request.dir)).await?;
    Ok(built)
}

/// mke2fs follows a link that it is given, and one that a package has put there could lead to the host's files.
fn only_directory(path: &Path) -> Result<(), ImageError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(file_error("use as a directory", path)(std::io::ErrorKind::NotADirectory.into())),
        Err(error) => Err(file_error("look at", path)(error)),
    }
}

/// The kernel's release and its file, as the package brought it.
fn read_kernel(tree: &Tree) -> Result<(String, Vec<u8>), ImageError> {
    let names = tree.names("/boot")?;
    let releases: Vec<&str> = names.iter().filter_map(|name| name.strip_prefix("vmlinuz-")).collect();
    let [release] = releases[..] else { return Err(ImageError::Kernels { found: releases.len() }) };
    Ok((release.to_owned(), tree.read(&format!("/boot/vmlinuz-{release}"))?))
}

/// Writes the kernel as a VMM wants it, and the modules that the initramfs needs.
fn unpack_kernel(tree: &Tree, release: &str, packed: &[u8], out: &Path) -> Result<(), ImageError> {
    let unusable = |source| ImageError::Kernel { release: release.to_owned(), source };
    write_new(&out.join(names::KERNEL), &kernel::unpack(packed).map_err(unusable)?)?;
    let unusable = |source| ImageError::Modules { release: release.to_owned(), source };
    let below = format!("/lib/modules/{release}");
    let dependencies = tree.read_text(&format!("{below}/modules.dep"))?;
    let builtin = tree.read_text(&format!("{below}/modules.builtin"))?;
    let directory = out.join(names::MODULES);
    make_directory(&directory)?;
    let mut list = String::new();
    for path in modules::select(&modules::WANTED, &dependencies, &builtin).map_err(unusable)? {
        let content = modules::unpack(&path, tree.read(&format!("{below}/{path}"))?).map_err(unusable)?;
        let name = modules::plain_name(&path);
        write_new(&directory.join(name), &content)?;
        list.push_str(name);
        list.push('\n');
    }
    write_new(&out.join(names::MODULE_LIST), list.as_bytes())
}

/// Writes the package manifest. What comes back lacks what only the caller knows.
fn describe(tree: &Tree, out: &Path) -> Result<Built, ImageError> {
    let table = manifest::table(&tree.read_text("/var/lib/dpkg/status")?);
    write_new(&out.join(names::PACKAGES), table.as_bytes())?;
    let os_release = tree.read_text("/etc/os-release")?;
    Ok(Built {
        system: host::os_release_field(&os_release, "PRETTY_NAME").unwrap_or("Debian").to_owned(),
        kernel: String::new(),
        packages: manifest::count(&table),
        manifest_sha256: manifest::sha256(&table),
        size: 0,
        work_seed: false,
    })
}

fn write_description(out: &Path, built: &Built) -> Result<(), ImageError> {
    let path = out.join(names::DESCRIPTION);
    let text =
        serde_json::to_vec_pretty(built).map_err(|source| ImageError::Description { path: path.clone(), source })?;
    write_new(&path, &text)
}

fn sync_all(directory: &Path) -> Result<(), ImageError> {
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all()).map_err(file_error("sync", path));
    for entry in std::fs::read_dir(directory).map_err(file_error("list", directory))? {
        let entry = entry.map_err(file_error("list", directory))?;
        if entry.file_type().map_err(file_error("look at", &entry.path()))?.is_dir() {
            sync_all(&entry.path())?;
        } else {
            sync(&entry.path())?;
        }
    }
    sync(directory)
}

/// Writes all to the disk, then takes the one step that makes an image: before it there is none, after it the whole.
async fn publish(root: &Path, from: &Path, to: &Path) -> Result<(), ImageError> {
    // The installed files go first: a sync would write them too, tens of thousands, to be removed an instant later.
    let tree = root.to_owned();
    blocking(move || file::remove_tree(&tree).map_err(file_error("remove", &tree))).await?;
    let finished = from.to_owned();
    // Not waited for when the build is dropped: a sync takes as long as the disk needs, and makes nothing.
    let synced = tokio::task::spawn_blocking(move || sync_all(&finished)).await;
    synced.map_err(|error| file_error("sync", from)(error.into()))??;
    std::fs::rename(from, to).map_err(file_error("rename the finished image to", to))?;
    match to.parent() {
        Some(parent) => file::sync_dir(parent).map_err(file_error("sync", parent)),
        None => Ok(()),
    }
}

fn open_log(path: &Path) -> Result<File, ImageError> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path).map_err(file_error("open the log", path))
}

fn make_directory(path: &Path) -> Result<(), ImageError> {
    std::fs::create_dir_all(path).map_err(file_error("make", path))
}

fn write_new(path: &Path, content: &[u8]) -> Result<(), ImageError> {
    std::fs::write(path, content).map_err(file_error("write", path))
}

fn file_error(attempted: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ImageError {
    let path = path.to_owned();
    move |source| ImageError::File { attempted, path, source }
}

/// The scratch directory, removed when this is dropped.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn make(path: &Path) -> Result<Scratch, ImageError> {
        // What a killed build left under the same name is in nobody's way.
        file::remove_tree(path).map_err(file_error("clear", path))?;
        make_directory(path)?;
        Ok(Scratch { path: path.to_owned() })
    }

    /// Removes it and waits for that. What cannot be removed is found by the next start of the daemon.
    async fn remove(self) {
        let path = self.path.clone();
        drop(tokio::task::spawn_blocking(move || file::remove_tree(&path)).await);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Tens of thousands of files take most of a second, for which no thread of the runtime may stand still.
        let path = std::mem::take(&mut self.path);
        drop(std::thread::Builder::new().name("scratch".into()).spawn(move || file::remove_tree(&path)));
    }
}

/// Runs something that blocks on a thread that may. When the future is dropped the drop waits for it, so that nothing is
/// made behind the back of whoever cleans up; none of what is run here takes longer than a second.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    struct Waits<T> {
        task: JoinHandle<T>,
        ended: mpsc::Receiver<()>,
    }
    impl<T> Drop for Waits<T> {
        fn drop(&mut self) {
            self.task.abort();
            // Nothing is ever sent: it returns, with an error, when the work's half is gone.
            self.ended.recv().unwrap_or_default();
        }
    }
    let (works, ended) = mpsc::channel::<()>();
    let task = tokio::task::spawn_blocking(move || {
        let result = work();
        drop(works);
        result
    });
    let mut waits = Waits { task, ended };
    match (&mut waits.task).await {
        Ok(result) => result,
        Err(error) => Err(file_error("work on", Path::new("the image"))(error.into())),
    }
}

/// Passes on what a long stage does, but not every line of it.
struct Teller<'a> {
    progress: &'a (dyn Fn(Progress) + Send + Sync),
    told: Option<Instant>,
}

impl<'a> Teller<'a> {
    fn new(progress: &'a (dyn Fn(Progress) + Send + Sync)) -> Teller<'a> {
        Teller { progress, told: None }
    }

    fn tell(&mut self, line: String) {
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            self.told = Some(Instant::now());
            (self.progress)(Progress::Line(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_no_home() {
        let dir = tempfile::tempdir().unwrap();
        let (home, link) = (dir.path().join("home"), dir.path().join("link"));
        std::fs::create_dir(&home).unwrap();
        std::os::unix::fs::symlink(&home, &link).unwrap();
        assert!(only_directory(&home).is_ok());
        assert!(matches!(only_directory(&link), Err(ImageError::File { .. })));
        assert!(matches!(only_directory(&dir.path().join("none")), Err(ImageError::File { .. })));
    }
}
