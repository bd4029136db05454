//! File systems out of directories, by mke2fs. They are made so that a clone has little to copy and much room to grow.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use banger_linux::process::Program;

use super::tool::{Tool, ToolError};

/// What is switched on, whatever the host's mke2fs.conf says: any kernel since 4.4 mounts it. A checksum seed of its own
/// lets the file system's id be changed while it is mounted.
const FEATURES: &str = "none,sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr,has_journal,extent,huge_file,\
                        flex_bg,metadata_csum,metadata_csum_seed,64bit,dir_nlink,extra_isize";

const BLOCK: u64 = 4096;

/// A file system to make.
#[derive(Debug, Clone, Copy)]
pub struct FileSystem<'a> {
    /// The directory whose content it gets.
    pub content: &'a Path,
    /// The file that it is made in; there is none yet.
    pub file: &'a Path,
    /// Its size in bytes.
    pub size: u64,
    /// Its label.
    pub label: &'a str,
    /// Percents that only root may fill.
    pub reserved: u32,
}

/// Why a file system could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FileSystemError {
    /// Its file could not be made.
    #[error("cannot make {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tool could not do it.
    #[error("cannot make the file system in {}", path.display())]
    Tool {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ToolError,
    },
}

/// Makes one. The file is sparse.
///
/// # Errors
/// [`FileSystemError`].
pub async fn make(wanted: FileSystem<'_>, log: &File) -> Result<(), FileSystemError> {
    let unmade = |source| FileSystemError::File { path: wanted.file.to_owned(), source };
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(wanted.file).map_err(unmade)?;
    file.set_len(wanted.size).map_err(unmade)?;
    let failed = |source| FileSystemError::Tool { path: wanted.file.to_owned(), source };
    Tool::new(Program::Mke2fs, arguments(wanted)).run(log, |_| {}).await.map_err(failed)
}

/// Makes one that is somebody's home: with the directory's own mode, and without `lost+found`, which fsck makes again when it
/// has something to put there. mke2fs can do neither.
///
/// # Errors
/// [`FileSystemError`].
pub async fn make_home(wanted: FileSystem<'_>, log: &File) -> Result<(), FileSystemError> {
    make(wanted, log).await?;
    let unmade = |source| FileSystemError::File { path: wanted.content.to_owned(), source };
    let mode = std::fs::metadata(wanted.content).map_err(unmade)?.permissions().mode();
    let failed = |source| FileSystemError::Tool { path: wanted.file.to_owned(), source };
    for request in ["rmdir lost+found".to_owned(), format!("set_inode_field <2> mode 0{mode:o}")] {
        let args = vec!["-w".into(), "-R".into(), request, wanted.file.display().to_string()];
        Tool::new(Program::Debugfs, args).run(log, |_| {}).await.map_err(failed)?;
    }
    Ok(())
}

fn arguments(wanted: FileSystem<'_>) -> Vec<String> {
    let features = format!("-O{FEATURES}");
    let extended = [
        // The file reads as zeros already: inode tables and journal need not be written, here or, later, by the guest's
        // kernel in the background. Without this a clone has 70 MiB more to copy, or each guest has it to write.
        "assume_storage_prezeroed=1".to_owned(),
        "nodiscard".to_owned(),
        "root_owner=0:0".to_owned(),
        // Room in the group descriptors to grow while mounted; what goes beyond is laid out anew by the kernel (meta_bg).
        // mke2fs' own choice, a thousand times the size, makes 4 MiB of them.
        format!("resize={}", growth_limit(wanted.size) / BLOCK),
    ];
    let number = |option: &str, value: u64| [option.to_owned(), value.to_string()];
    let mut arguments: Vec<String> = ["-q", "-F", "-t", "ext4"].map(str::to_owned).into();
    arguments.extend(number("-b", BLOCK));
    arguments.extend(number("-I", 256));
    arguments.extend(number("-i", 16384));
    arguments.extend(number("-m", u64::from(wanted.reserved)));
    // A journal takes no space before it is used; one that fits today's size would be too small after growing.
    arguments.extend(["-J".to_owned(), "size=64".to_owned(), features]);
    arguments.extend(["-e".to_owned(), "remount-ro".to_owned(), "-E".to_owned(), extended.join(",")]);
    arguments.extend(["-L".to_owned(), wanted.label.to_owned()]);
    arguments.extend(["-d".to_owned(), wanted.content.display().to_string(), wanted.file.display().to_string()]);
    arguments
}

/// 256 GiB, or twice what a larger file system has.
fn growth_limit(size: u64) -> u64 {
    (256 << 30).max(size.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use banger_linux::file;

    use super::*;

    #[tokio::test]
    async fn an_empty_home_is_nearly_nothing_to_copy() {
        if !Program::Mke2fs.path().exists() || !rustix::process::geteuid().is_root() {
            banger_skip::skipped!("needs root and mke2fs");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (content, path) = (dir.path().join("home"), dir.path().join("home.ext4"));
        std::fs::create_dir(&content).unwrap();
        std::fs::write(content.join(".profile"), "a line").unwrap();
        std::fs::set_permissions(&content, std::fs::Permissions::from_mode(0o700)).unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let wanted = FileSystem { content: &content, file: &path, size: 1 << 30, label: "work", reserved: 0 };
        make_home(wanted, &log).await.unwrap();
        File::open(&path).unwrap().sync_all().unwrap();
        let taken = file::allocated(&path).unwrap();
        assert!(taken < 512 << 10, "{taken} bytes to copy for an empty file system");
        let listing = dir.path().join("listing");
        let args = vec!["-R".into(), "ls -l /".into(), path.display().to_string()];
        Tool::new(Program::Debugfs, args).run(&File::create(&listing).unwrap(), |_| {}).await.unwrap();
        let listing = std::fs::read_to_string(listing).unwrap();
        assert!(
            listing.contains("40700") && listing.contains(".profile") && !listing.contains("lost+found"),
            "{listing}"
        );
        // Making it twice would write over a file that somebody may be using.
        assert!(matches!(make(wanted, &log).await, Err(FileSystemError::File { .. })));
    }

    #[test]
    fn room_to_grow() {
        assert_eq!(growth_limit(1 << 30), 256 << 30);
        assert_eq!(growth_limit(1 << 40), 2 << 40);
    }
}
