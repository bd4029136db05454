//! What fills the empty tree of a new image: Debian's packages, by mmdebstrap.

use std::fs::File;
use std::path::Path;

use async_trait::async_trait;
use banger_linux::process::Program;

use super::apt::Mirrors;
use super::containment::{self, Containment};
use super::tool::Tool;
use super::{ImageError, debian, private};
use crate::api::error::chain;
use crate::config::Namespace;

/// A tree to fill.
#[derive(Debug)]
pub struct Installation<'a> {
    /// The tree, which is not there yet.
    pub root: &'a Path,
    /// The directory around it, for whatever else it takes.
    pub scratch: &'a Path,
    /// The directory around that, which is the build's, too, but nothing to be installed into.
    pub enclosure: &'a Path,
    /// Debian's name of the release.
    pub suite: &'a str,
    /// Packages beside our own choice.
    pub added: &'a [String],
    /// Where packages come from.
    pub mirrors: &'a Mirrors,
    /// apt's options for getting them, as this machine has them.
    pub acquire: &'a [String],
    /// What keeps packages' scripts from the host.
    pub namespace: Namespace,
    /// The first of the host's user ids that a namespace takes.
    pub first_uid: u32,
    /// Where the tools' raw output goes.
    pub log: &'a File,
}

/// Something that fills a tree. When the future is dropped nothing of it goes on.
#[async_trait]
pub trait Installer: std::fmt::Debug + Send + Sync {
    /// Fills a tree, and tells what it is doing in a person's words.
    ///
    /// # Errors
    /// [`ImageError`].
    async fn install(
        &self,
        installation: Installation<'_>,
        tell: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), ImageError>;
}

/// mmdebstrap.
#[derive(Debug, Clone, Copy)]
pub struct Mmdebstrap;

#[async_trait]
impl Installer for Mmdebstrap {
    async fn install(
        &self,
        installation: Installation<'_>,
        tell: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), ImageError> {
        let Installation { root, scratch, enclosure, suite, added, mirrors, acquire, namespace, first_uid, log } =
            installation;
        let tool = match Containment::of(namespace, first_uid, scratch, mirrors).await {
            Containment::User(container) => {
                // A script can make programs there that are root's and set-user-id: no user of the host gets to them.
                private::close(enclosure)?;
                let (mirrors, acquire) = private::copies(mirrors, acquire, scratch)?;
                let root = containment::inside(root, scratch);
                let arguments = debian::install_arguments((suite, added), &root, &mirrors, &acquire);
                Tool::contained(Program::Mmdebstrap, arguments, Path::new(containment::AT)).within(Some(container))
            }
            Containment::Impossible(obstacle) if namespace == Namespace::User => {
                return Err(ImageError::Uncontained(obstacle));
            }
            without => {
                if let Containment::Impossible(obstacle) = without {
                    tell(format!("packages' scripts run as root: {}", chain(&obstacle)));
                }
                let arguments = debian::install_arguments((suite, added), root, mirrors, acquire);
                Tool::contained(Program::Mmdebstrap, arguments, scratch)
            }
        };
        let told = |line: &str| debian::progress(line).into_iter().for_each(&mut *tell);
        tool.run(log, told).await.map_err(ImageError::Install)
    }
}
