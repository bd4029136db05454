//! Images: what VMs are made from. Builds a Debian in a scratch directory, with the mirror that this machine's apt uses,
//! and reads what an image's directory says of itself. Knows nothing of the records that name images; [`builds`] does.
//!
//! An image's directory holds `root.ext4`, `work-seed.ext4`, `vmlinux`, `modules/` with `modules.list`, `packages.tsv` and
//! `image.json`. All of it is made under the request's scratch directory and comes to its place by one rename.

mod apt;
mod build;
pub mod builds;
pub mod containment;
mod debian;
mod file_system;
mod host;
pub mod install;
mod kernel;
mod manifest;
mod modules;
mod private;
pub mod record;
pub mod request;
pub(crate) mod tool;
mod tree;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::Namespace;
use crate::operation::fault::Injected;

pub use build::build;
pub use containment::Obstacle;
pub use file_system::FileSystemError;
pub use host::HostError;
pub use kernel::KernelError;
pub use modules::ModuleError;
pub use tool::ToolError;
pub use tree::TreeError;

/// The files of an image's directory.
pub mod names {
    /// The root disk.
    pub const ROOT: &str = "root.ext4";
    /// What new work disks are clones of. Images from before work seeds have none.
    pub const WORK_SEED: &str = "work-seed.ext4";
    /// The kernel, an ELF file.
    pub const KERNEL: &str = "vmlinux";
    /// The directory of the modules that the initramfs needs.
    pub const MODULES: &str = "modules";
    /// Their file names in load order, one a line.
    pub const MODULE_LIST: &str = "modules.list";
    /// The installed packages.
    pub const PACKAGES: &str = "packages.tsv";
    /// What the image says of itself.
    pub const DESCRIPTION: &str = "image.json";
}

/// An image to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRequest {
    /// Its name, for the log.
    pub name: String,
    /// The size of its root disk, in bytes.
    pub size: u64,
    /// The size of its work seed, in bytes.
    pub seed_size: u64,
    /// A directory for everything on the way, on the same file system as `dir`. It need not exist, and is gone when the
    /// build has ended, however it did; only a kill of the daemon leaves it.
    pub scratch: PathBuf,
    /// Where the image goes. There is nothing yet, or an empty directory.
    pub dir: PathBuf,
    /// A file that gets the tools' raw output. It stays.
    pub log: PathBuf,
    /// Debian's name of the release.
    pub suite: String,
    /// Packages beside our own choice.
    pub added: Vec<String>,
    /// What keeps packages' scripts from the host.
    pub namespace: Namespace,
    /// The first of the host's user ids that a namespace takes.
    pub first_uid: u32,
}

/// How far a build is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A stage begins, and with it the one before ends.
    Stage(&'static str),
    /// What is being done, in a person's words.
    Line(String),
}

/// What an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// `PRETTY_NAME` of its os-release.
    pub system: String,
    /// Its kernel's release, as `uname -r` says.
    pub kernel: String,
    /// How many packages are installed.
    pub packages: u32,
    /// SHA-256 of the package manifest, in hexadecimal.
    pub manifest_sha256: String,
    /// The size of its root disk, in bytes.
    pub size: u64,
    /// Whether it has a work seed.
    pub work_seed: bool,
}

/// Why an image could not be built or read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Building needs rights that this daemon does not have.
    #[error("building an image needs root: it makes files of other users, and file systems of them")]
    NotRoot,
    /// What the host says could not be used.
    #[error("cannot find out where this machine gets Debian from")]
    Host(#[from] HostError),
    /// There can be no user namespace, and nothing else was asked for.
    #[error("cannot build in a user namespace, without which the configuration allows no build")]
    Uncontained(#[source] Obstacle),
    /// A file that apt needs could not be copied to where a user namespace can read it.
    #[error("cannot copy {}, which apt needs", path.display())]
    Private {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A tool failed while installing packages.
    #[error("cannot install the packages")]
    Install(#[source] ToolError),
    /// The installed files could not be set up.
    #[error("cannot set up the installed system")]
    Prepare(#[from] TreeError),
    /// The installed system has not exactly one kernel.
    #[error("the installed system has {found} kernels instead of one")]
    Kernels {
        /// How many.
        found: usize,
    },
    /// The kernel cannot be used.
    #[error("the kernel {release} cannot be used")]
    Kernel {
        /// Its release.
        release: String,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// Its modules cannot be used.
    #[error("the modules of the kernel {release} cannot be used")]
    Modules {
        /// Its release.
        release: String,
        /// Why.
        #[source]
        source: ModuleError,
    },
    /// A file system could not be made.
    #[error(transparent)]
    FileSystem(#[from] FileSystemError),
    /// A file of the image or of the build could not be handled.
    #[error("cannot {attempted} {}", path.display())]
    File {
        /// What was attempted.
        attempted: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A fault that a test planned.
    #[error(transparent)]
    Injected(#[from] Injected),
    /// What an image says of itself cannot be understood.
    #[error("{} is no description of an image", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// What the image in `dir` says of itself. Blocks.
///
/// # Errors
/// [`ImageError::File`], [`ImageError::Description`].
pub fn read(dir: &Path) -> Result<Built, ImageError> {
    let path = dir.join(names::DESCRIPTION);
    let text =
        std::fs::read(&path).map_err(|source| ImageError::File { attempted: "read", path: path.clone(), source })?;
    serde_json::from_slice(&text).map_err(|source| ImageError::Description { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_read_as_it_was_described() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(ImageError::File { .. })));
        let built = Built {
            system: "Debian GNU/Linux 12 (bookworm)".into(),
            kernel: "6.1.0-50-cloud-amd64".into(),
            packages: 200,
            manifest_sha256: "ab".repeat(32),
            size: 8 << 30,
            work_seed: true,
        };
        std::fs::write(dir.path().join(names::DESCRIPTION), serde_json::to_vec(&built).unwrap()).unwrap();
        assert_eq!(read(dir.path()).unwrap(), built);
        std::fs::write(dir.path().join(names::DESCRIPTION), "{}").unwrap();
        assert!(matches!(read(dir.path()), Err(ImageError::Description { .. })));
    }
}
