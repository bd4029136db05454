//! What is recorded of an image.

/// An image, as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRecord {
    /// Short, random, never reused; names its directory.
    pub id: String,
    /// Unique.
    pub name: String,
    /// Whether it can be used.
    pub state: ImageState,
    /// `PRETTY_NAME` of its os-release.
    pub system: String,
    /// Its kernel's release.
    pub kernel: String,
    /// Size of the root disk, in bytes.
    pub size: u64,
    /// How many packages are installed.
    pub packages: u32,
    /// SHA-256 of the package manifest.
    pub manifest: String,
    /// Whether it has a work seed.
    pub work_seed: bool,
    /// The Debian release that it is built from.
    pub suite: String,
    /// Packages that were asked for beside our own choice.
    pub added: Vec<String>,
    /// When its build began, in seconds since 1970-01-01 UTC.
    pub created: u64,
}

/// Whether an image can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageState {
    /// It is being built; a daemon that finds it so at its start removes it.
    Building,
    /// It can be used.
    Ready,
    /// It is being removed, likewise.
    Removing,
}

impl ImageState {
    /// The word in the records.
    pub fn as_str(self) -> &'static str {
        match self {
            ImageState::Building => "building",
            ImageState::Ready => "ready",
            ImageState::Removing => "removing",
        }
    }

    /// The state that a word stands for.
    pub fn parse(word: &str) -> Option<ImageState> {
        [ImageState::Building, ImageState::Ready, ImageState::Removing].into_iter().find(|state| state.as_str() == word)
    }
}
