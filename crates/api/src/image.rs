//! Images.

use serde::{Deserialize, Serialize};

/// An image, as `banger image ls -o json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Image {
    /// Short, random, never reused.
    pub id: String,
    /// Unique.
    pub name: String,
    /// Whether `banger create` takes it when no image is named.
    pub default: bool,
    /// `PRETTY_NAME` of its os-release.
    pub system: String,
    /// Its kernel's release, as `uname -r` will say.
    pub kernel: String,
    /// Size of the root disk that its VMs see, in bytes.
    pub size: u64,
    /// Bytes that the image takes on the host.
    pub allocated: u64,
    /// How many packages are installed.
    pub packages: u32,
    /// SHA-256 of the package manifest.
    pub manifest: String,
    /// Whether it has a work seed. Without one a new VM's `/root` is filled in the guest, slower.
    pub work_seed: bool,
    /// The Debian release that it was built from: `bookworm`.
    #[serde(default)]
    pub suite: String,
    /// Packages that its builder asked for beside banger's own choice.
    #[serde(default)]
    pub added: Vec<String>,
    /// When it was built, in seconds since 1970-01-01 UTC.
    pub created: u64,
    /// VMs made from it.
    pub vms: Vec<String>,
}

/// The least root disk, in bytes: a Debian with some room fits on it.
pub const MIN_SIZE: u64 = 1 << 30;

/// What to build. Absent fields take the daemon's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ImageBuild {
    /// A name; `debian` if absent.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = crate::name::IMAGE_PATTERN)))]
    #[serde(default)]
    pub name: Option<String>,
    /// Size of the root disk, in bytes.
    #[cfg_attr(feature = "schema", schemars(range(min = MIN_SIZE, max = crate::vm::MAX_DISK)))]
    #[serde(default)]
    pub size: Option<u64>,
    /// Debian's name of the release, as `trixie`; that of the host if absent.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^[a-z][a-z0-9-]{0,31}$")))]
    #[serde(default)]
    pub suite: Option<String>,
    /// Debian packages beside banger's own choice.
    #[cfg_attr(feature = "schema", schemars(inner(regex(pattern = r"^[a-z0-9][a-z0-9+.-]{1,127}$"))))]
    #[serde(default)]
    pub packages: Vec<String>,
}
