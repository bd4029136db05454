//! The files of a git checkout that a VM is to have: tracked ones, and untracked ones that are not ignored.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use banger_linux::process::ProcessError;

use crate::environment::Environment;
use crate::git::{Git, GitError};

/// A checkout and its files.
#[derive(Debug)]
pub struct Checkout {
    /// Where it is.
    pub directory: PathBuf,
    /// The directory's own name, which it also has in the guest.
    pub name: String,
    /// Its files, relative to the directory; some may have been deleted since.
    pub files: Vec<PathBuf>,
}

/// Why a directory's files could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum CheckoutError {
    /// There is no such directory.
    #[error("cannot use {} as a project", directory.display())]
    Directory {
        /// As it was typed.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It has no name that a guest could give it.
    #[error("{} has no name to use in the guest", directory.display())]
    Nameless {
        /// The directory.
        directory: PathBuf,
    },
    /// git could not be started or watched.
    #[error("cannot ask git for the files of {}", directory.display())]
    Git {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: ProcessError,
    },
    /// git's answer could not be read.
    #[error("cannot read what git says about {}", directory.display())]
    Read {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no checkout.
    #[error("{} is not in a git checkout", directory.display())]
    NoCheckout {
        /// The directory.
        directory: PathBuf,
    },
    /// git refuses.
    #[error("git does not list the files of {}: {message}", directory.display())]
    Refused {
        /// The directory.
        directory: PathBuf,
        /// In its own words.
        message: String,
    },
}

impl CheckoutError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            CheckoutError::Directory { directory, source } if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("if it is meant as a command, write it after '--': banger run -- {}", directory.display()))
            }
            CheckoutError::Git { source: ProcessError::Start { .. }, .. } => {
                Some("install git: apt install git".to_owned())
            }
            CheckoutError::NoCheckout { .. } => {
                Some("run `git init` there, or create a VM without it and copy with `banger cp`".to_owned())
            }
            _ => None,
        }
    }
}

impl Checkout {
    /// Asks git for the files of a directory in a checkout.
    ///
    /// # Errors
    /// [`CheckoutError`].
    pub async fn list(directory: &Path, environment: &Environment) -> Result<Checkout, CheckoutError> {
        let found = directory.canonicalize().and_then(|found| match found.is_dir() {
            true => Ok(found),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        let typed = directory.to_owned();
        let directory = found.map_err(|source| CheckoutError::Directory { directory: typed, source })?;
        let Some(name) = directory.file_name().and_then(OsStr::to_str).map(str::to_owned) else {
            return Err(CheckoutError::Nameless { directory });
        };
        let files = ask_git(&directory, environment).await?;
        Ok(Checkout { directory, name, files })
    }
}

async fn ask_git(directory: &Path, environment: &Environment) -> Result<Vec<PathBuf>, CheckoutError> {
    let args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"];
    let listed = match Git::of(directory, environment).say(&args, b"").await {
        Ok(listed) => listed,
        Err(GitError::Process { source, .. }) => {
            return Err(CheckoutError::Git { directory: directory.to_owned(), source });
        }
        Err(GitError::Streams(source)) => return Err(CheckoutError::Read { directory: directory.to_owned(), source }),
        Err(GitError::Refused { message, .. }) => return Err(refusal(directory, message)),
    };
    let names = listed.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    // A checkout within this one, neither tracked nor ignored, is listed as a directory.
    let names = names.map(|name| name.strip_suffix(b"/").unwrap_or(name));
    Ok(names.map(|name| PathBuf::from(OsStr::from_bytes(name))).collect())
}

fn refusal(directory: &Path, message: String) -> CheckoutError {
    let directory = directory.to_owned();
    if message.contains("not a git repository") || message.contains("must be run in a work tree") {
        return CheckoutError::NoCheckout { directory };
    }
    CheckoutError::Refused { directory, message }
}
