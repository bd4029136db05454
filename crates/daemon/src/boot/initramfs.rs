//! The two archives of an initramfs. Reads an image directory's `modules/` and `modules.list`, keeps the base there.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use banger_linux::file;
use banger_protocol::boot::{self, Boot};
use sha2::{Digest, Sha256};

use super::cpio::Archive;

/// Where the modules are, in the initramfs.
const MODULES: &str = "banger/modules";

/// Counts what the base holds besides agent and modules: a base of another layout is another base.
const LAYOUT: [u8; 1] = [1];

const PAGE: u64 = 4096;

/// Why an initramfs could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Something that goes into it could not be read.
    #[error("cannot read {} for the initramfs", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line in the image's list of modules is no file name.
    #[error("{} names a module {name:?}, which is no file name", path.display())]
    ModuleName {
        /// The list.
        path: PathBuf,
        /// The line.
        name: String,
    },
    /// It could not be written.
    #[error("cannot write the initramfs {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What the guest is told could not be encoded.
    #[error("cannot encode the boot description")]
    Encode(#[source] serde_json::Error),
}

/// The image's kernel modules in load order, as paths in the initramfs.
///
/// # Errors
/// [`BootError::Read`], [`BootError::ModuleName`].
pub fn modules(image_dir: &Path) -> Result<Vec<String>, BootError> {
    Ok(module_files(image_dir)?.iter().map(|name| format!("/{MODULES}/{name}")).collect())
}

/// The base archive of an image and an agent; made where it is not there yet, then kept in the image's directory. Bases for
/// other agents are removed: VMs that run have their own copy.
///
/// # Errors
/// [`BootError`].
pub fn base_initramfs(image_dir: &Path, agent: &Path) -> Result<PathBuf, BootError> {
    let names = module_files(image_dir)?;
    let path = image_dir.join(base_name(agent, &names)?);
    if path.exists() {
        return Ok(path);
    }
    let mut archive = Archive::new();
    for name in ["proc", "sys", "dev", "run", "newroot", "banger", MODULES] {
        archive.directory(name, 0o755);
    }
    // The kernel opens it as the first process's standard streams before that process can mount anything.
    archive.character_device("dev/console", 0o600, 5, 1);
    // Where the console's driver is a module that opening fails. Rust's runtime then opens this in its place, before `main`,
    // and aborts where there is none.
    archive.character_device("dev/null", 0o666, 1, 3);
    archive.file("init", 0o755, &read(agent)?);
    for name in &names {
        archive.file(&format!("{MODULES}/{name}"), 0o644, &read(&image_dir.join("modules").join(name))?);
    }
    let failed = |source| BootError::Write { path: path.clone(), source };
    file::write_atomic(&path, &archive.finish(), 0o644).map_err(failed)?;
    remove_other_bases(image_dir, &path).map_err(failed)?;
    Ok(path)
}

/// The initramfs of one boot at `to`: the base and what the guest is told. Replaces an earlier one. Not synced: it serves one
/// boot. Only its owner may read it, as it holds the guest's private host key.
///
/// It fills whole pages. QEMU's `microvm` puts it as high in memory as it goes, page by page, and its firmware has put the
/// ACPI tables into the last kilobyte: an initramfs that ends in there overwrites them, and the kernel waits for ever for a
/// checksum. One of whole pages is put a page lower (QEMU 10.0, `x86_load_linux`, where `initrd_max` is an odd number).
///
/// # Errors
/// [`BootError`].
pub fn initramfs(base: &Path, boot: &Boot, to: &Path) -> Result<(), BootError> {
    let failed = |source| BootError::Write { path: to.to_owned(), source };
    let mut archive = Archive::new();
    archive.file(boot::PATH.trim_start_matches('/'), 0o600, &serde_json::to_vec(boot).map_err(BootError::Encode)?);
    file::remove_tree(to).map_err(failed)?;
    file::clone_file(base, to).map_err(failed)?;
    let appended = append(to, &archive.finish());
    if appended.is_err() {
        // Half an initramfs must not be booted; the error to report is the first.
        drop(std::fs::remove_file(to));
    }
    appended.map_err(failed)
}

fn append(path: &Path, archive: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(archive)?;
    let length = file.metadata()?.len();
    // The kernel passes over zeros behind an archive.
    file.set_len(length.next_multiple_of(PAGE))
}

fn module_files(image_dir: &Path) -> Result<Vec<String>, BootError> {
    let path = image_dir.join("modules.list");
    let text = std::fs::read_to_string(&path).map_err(|source| BootError::Read { path: path.clone(), source })?;
    let mut names = Vec::new();
    for name in text.lines().filter(|line| !line.is_empty()) {
        if name.contains('/') || name.starts_with('.') {
            return Err(BootError::ModuleName { path, name: name.to_owned() });
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// The base's file name says what it was made of. An image's modules never change, so their names stand for them. The agent
/// is known by its file's identity, size and time of change: its content is not hashed, as that takes longer (1.4 MiB: 1 to
/// 5 ms) than all else that is done here for a boot. The time of *change* is taken because nobody can set it back.
fn base_name(agent: &Path, modules: &[String]) -> Result<String, BootError> {
    let found = std::fs::metadata(agent).map_err(|source| BootError::Read { path: agent.to_owned(), source })?;
    let mut hash = Sha256::new();
    for number in [found.dev(), found.ino(), found.size()] {
        hash.update(number.to_le_bytes());
    }
    for number in [found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()] {
        hash.update(number.to_le_bytes());
    }
    hash.update(LAYOUT);
    for name in modules {
        hash.update(name);
        hash.update([0]);
    }
    let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("initramfs-{digest}.cpio"))
}

fn remove_other_bases(image_dir: &Path, keep: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(image_dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path != keep && name.starts_with("initramfs-") && name.ends_with(".cpio") {
            file::remove_tree(&path)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, BootError> {
    std::fs::read(path).map_err(|source| BootError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use banger_linux::process::{Launch, Leash, Program, Stream};

    use super::*;

    fn image() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("modules")).unwrap();
        for name in ["virtio.ko", "virtio_blk.ko"] {
            std::fs::write(dir.path().join("modules").join(name), name).unwrap();
        }
        std::fs::write(dir.path().join("modules.list"), "virtio.ko\nvirtio_blk.ko\n").unwrap();
        std::fs::write(dir.path().join("agent"), "the agent").unwrap();
        dir
    }

    fn bases(dir: &Path) -> usize {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_str().unwrap().starts_with("initramfs-")).count()
    }

    fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
        bytes.windows(part.len()).position(|window| window == part)
    }

    #[test]
    fn the_base_is_made_once_and_anew_for_another_agent() {
        let image = image();
        let agent = image.path().join("agent");
        let first = base_initramfs(image.path(), &agent).unwrap();
        let made = std::fs::metadata(&first).unwrap().ino();
        assert_eq!(base_initramfs(image.path(), &agent).unwrap(), first);
        assert_eq!(std::fs::metadata(&first).unwrap().ino(), made);
        std::fs::remove_file(&agent).unwrap();
        std::fs::write(&agent, "another").unwrap();
        let second = base_initramfs(image.path(), &agent).unwrap();
        assert_ne!(first, second);
        assert_eq!(bases(image.path()), 1);
        let bytes = std::fs::read(second).unwrap();
        assert!(find(&bytes, b"another").is_some() && find(&bytes, b"the agent").is_none());
    }

    #[test]
    fn a_boot_adds_its_description_behind_the_base() {
        let image = image();
        let base = base_initramfs(image.path(), &image.path().join("agent")).unwrap();
        let to = image.path().join("boot");
        let mut boot = Boot { modules: modules(image.path()).unwrap(), ..Boot::default() };
        assert_eq!(boot.modules, ["/banger/modules/virtio.ko", "/banger/modules/virtio_blk.ko"]);
        boot.identity.hostname = "first".into();
        initramfs(&base, &boot, &to).unwrap();
        boot.identity.hostname = "second".into();
        initramfs(&base, &boot, &to).unwrap();
        let (base, whole) = (std::fs::read(&base).unwrap(), std::fs::read(&to).unwrap());
        assert_eq!(&whole[..base.len()], &base[..]);
        assert_eq!(&whole[base.len()..base.len() + 6], b"070701");
        assert_eq!(whole.len() % 4096, 0);
        assert!(find(&whole, br#""hostname":"second""#).is_some() && find(&whole, b"first").is_none());
    }

    #[test]
    fn a_list_that_points_elsewhere_is_refused() {
        let image = image();
        std::fs::write(image.path().join("modules.list"), "../../etc/shadow\n").unwrap();
        assert!(matches!(modules(image.path()), Err(BootError::ModuleName { .. })));
    }

    #[tokio::test]
    async fn cpio_reads_what_we_write() {
        let image = image();
        let base = base_initramfs(image.path(), &image.path().join("agent")).unwrap();
        if !Path::new("/usr/bin/cpio").exists() {
            banger_skip::skipped!("no /usr/bin/cpio to read the archive with");
            return;
        }
        let listing = image.path().join("listing");
        let mut launch = Launch::new(Program::Command("/usr/bin/cpio".into()), ["-t", "--quiet"]);
        launch.stdin = Stream::Fd(File::open(&base).unwrap().into());
        launch.stdout = Stream::Fd(File::create(&listing).unwrap().into());
        let status = Leash::start(launch).unwrap().ended().await.unwrap();
        assert!(status.success());
        let listing = std::fs::read_to_string(listing).unwrap();
        let names: Vec<&str> = listing.lines().collect();
        for name in ["init", "dev/console", "dev/null", "newroot", "banger/modules/virtio.ko"] {
            assert!(names.contains(&name), "{name} is not in {listing}");
        }
    }
}
