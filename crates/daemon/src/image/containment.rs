//! Whether packages' scripts run in a user namespace while an image is built. It is tried, not guessed: kernels, their settings
//! and file systems forbid it in many ways.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use banger_linux::process::{Container, ContainerError, Program};

use super::apt::Mirrors;
use super::private;
use super::tool::{Tool, ToolError};
use crate::config::Namespace;
use crate::context::blocking;

/// Where a build's scratch directory is seen in its namespace: every machine has this directory, and those of the host's
/// users are covered by it.
pub const AT: &str = "/tmp";

/// What keeps a build from the host.
#[derive(Debug)]
pub enum Containment {
    /// A user namespace.
    User(Container),
    /// Nothing, because that was asked for.
    Unwanted,
    /// Nothing, because there can be no namespace.
    Impossible(Obstacle),
}

/// Why there can be no user namespace.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// The kernel or the file system does not allow it.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// It does, but programs cannot do in there what they have to.
    #[error("cannot mount in a user namespace")]
    Useless(#[from] ToolError),
    /// The attempt could not be made.
    #[error("cannot try out a user namespace")]
    Untried(#[source] io::Error),
    /// Packages come from a directory that only some of the host's users may read.
    #[error("not everybody may read the packages in {}", path.display())]
    Packages {
        /// The directory.
        path: PathBuf,
    },
}

impl Containment {
    /// What there is for a build in `scratch`, in a namespace whose ids begin with `first` on the host.
    pub(super) async fn of(wanted: Namespace, first: u32, scratch: &Path, mirrors: &Mirrors) -> Containment {
        let attempt = async {
            private::packages(mirrors)?;
            // One to be tried, one for the build: a container is entered once.
            attempt(first, scratch).await?;
            container(first, scratch).await
        };
        match wanted {
            Namespace::None => Containment::Unwanted,
            Namespace::Auto | Namespace::User => attempt.await.map_or_else(Containment::Impossible, Containment::User),
        }
    }
}

/// Whether a build in `scratch` can be contained.
///
/// # Errors
/// [`Obstacle`].
pub async fn attempt(first: u32, scratch: &Path) -> Result<(), Obstacle> {
    // /proc is mounted on the way, then a part of the host's tree: what an installation does in its chroot.
    let mount = ["--rbind", "/sys", AT].map(str::to_owned).into();
    let tool = Tool::contained(Program::Mount, mount, Path::new(AT)).within(Some(container(first, scratch).await?));
    // What it says is in the error.
    Ok(tool.run(&File::create("/dev/null").map_err(Obstacle::Untried)?, |_| {}).await?)
}

/// A path below the scratch directory as the namespace sees it.
pub fn inside(path: &Path, scratch: &Path) -> PathBuf {
    path.strip_prefix(scratch).map_or_else(|_| path.to_owned(), |rest| Path::new(AT).join(rest))
}

async fn container(first: u32, scratch: &Path) -> Result<Container, Obstacle> {
    let scratch = scratch.to_owned();
    Ok(blocking(move || Container::new(first, &scratch, Path::new(AT))).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::apt;

    #[tokio::test]
    async fn what_cannot_be_is_said_and_what_is_not_wanted_is_not_tried() {
        let mirrors = |uri: &str| apt::mirrors(&apt::parse_list(&format!("deb {uri} bookworm main"))).unwrap();
        let (proc, near) = (Path::new("/proc"), mirrors("http://mirror.example.org/debian"));
        // /proc cannot be mounted with other ids; who is not root cannot even give ids.
        let found = Containment::of(Namespace::Auto, 1_900_000_000, proc, &near).await;
        assert!(matches!(found, Containment::Impossible(Obstacle::Container(_))), "{found:?}");
        let found = Containment::of(Namespace::User, 1_900_000_000, proc, &mirrors("file:/root/no/debian")).await;
        assert!(matches!(found, Containment::Impossible(Obstacle::Packages { .. })), "{found:?}");
        assert!(matches!(Containment::of(Namespace::None, 1, proc, &near).await, Containment::Unwanted));
    }

    #[test]
    fn paths_inside() {
        assert_eq!(inside(Path::new("/a/b/root/etc"), Path::new("/a/b")), Path::new("/tmp/root/etc"));
        assert_eq!(inside(Path::new("/usr/share"), Path::new("/a/b")), Path::new("/usr/share"));
    }
}
