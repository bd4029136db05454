//! `run DIR --pull`: what a command changed in the guest's copy of a checkout, as a patch or on a branch.
//!
//! What was sent is kept as a tree of a private repository ([`sent`]); what comes back goes through a [`sieve`] into a
//! directory aside, and the two are compared by git. The checkout's files, index and current branch are only read. Nothing
//! that the guest says is believed: neither its git, if it has one, nor a path, nor a link.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::PathBuf;

use banger_api::vm::Vm;

use crate::app::App;
use crate::attach::interrupts::Interrupts;
use crate::checkout::Checkout;
use crate::copy::{self, Destination, Owners, Root};
use crate::failure::Failure;
use crate::git::GitError;
use crate::output::complain;

mod branch;
mod sent;
mod sieve;

use branch::Branch;
use sent::Sent;
use sieve::Sieve;

/// How many names are tried where one is taken.
const TRIES: u32 = 99;

/// What to make of the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// A patch for `git apply`, NAME.patch in the working directory
    Patch,
    /// A commit on a new branch banger/NAME of the checkout's repository
    Branch,
}

/// Why changes could not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// git failed.
    #[error(transparent)]
    Git(#[from] GitError),
    /// git said something else than expected.
    #[error("git describes {} in a way that is not understood", directory.display())]
    Description {
        /// The checkout.
        directory: PathBuf,
    },
    /// The private repository, or what comes back, has no place.
    #[error("cannot {attempted} in {}", path.display())]
    Aside {
        /// What was attempted.
        attempted: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The patch could not be written.
    #[error("cannot write the patch {}", path.display())]
    Patch {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Every name for the branch is taken.
    #[error("the branch {name} and {TRIES} others named after it exist")]
    Branch {
        /// The first name.
        name: String,
    },
}

impl PullError {
    /// What to do.
    pub fn help(&self) -> Option<String> {
        match self {
            PullError::Git(GitError::Process { .. }) => Some("install git: apt install git".to_owned()),
            PullError::Patch { .. } => Some("go to a directory that can be written to".to_owned()),
            PullError::Branch { .. } => Some("remove some: `git branch -D`".to_owned()),
            PullError::Git(_) | PullError::Description { .. } | PullError::Aside { .. } => None,
        }
    }
}

/// What is remembered of a checkout that a guest has a copy of.
#[derive(Debug)]
pub struct Pull {
    sent: Sent,
    branch: Option<Branch>,
    how: How,
}

impl Pull {
    /// Remembers the files as they are now. To be called right before they are sent.
    ///
    /// # Errors
    /// [`Failure::Pull`].
    pub async fn begin(app: &App, checkout: &Checkout, how: How) -> Result<Pull, Failure> {
        let sent = Sent::remember(&app.environment, checkout).await?;
        let branch = match how {
            How::Patch => None,
            How::Branch => Some(Branch::begin(&sent, checkout).await?),
        };
        Ok(Pull { sent, branch, how })
    }

    /// Brings the changes in `place` of the guest back. What has come but cannot be made use of stays aside where the VM goes.
    ///
    /// # Errors
    /// Every [`Failure`]; the checkout is as it was.
    pub async fn finish(
        self,
        app: &App,
        vm: &Vm,
        place: &str,
        command: &[String],
        interrupts: &mut Interrupts,
    ) -> Result<(), Failure> {
        self.fetch(app, vm, place, interrupts).await?;
        let made = self.make(app, vm, command).await;
        if made.is_err() && vm.ephemeral {
            complain(&format!("also: the files of {}'s copy are in {}", vm.name, self.sent.keep().display()));
        }
        made
    }

    /// Makes of what came back what is wanted, and says where it is.
    async fn make(&self, app: &App, vm: &Vm, command: &[String]) -> Result<(), Failure> {
        let tree = self.sent.tree_of_fetched().await?;
        if let Some(moved) = self.sent.moved_on(&app.environment).await {
            complain(&format!("warning: {moved} since {} got its copy; its changes are those to the copy", vm.name));
        }
        let changes = self.sent.changes(&tree).await?;
        if changes.is_empty() {
            app.screen.say(&format!("nothing changed in {}'s copy", vm.name));
            return Ok(());
        }
        let files = if changes.len() == 1 { "1 file has".to_owned() } else { format!("{} files have", changes.len()) };
        let result = match (&self.branch, self.how) {
            (Some(branch), How::Branch) => {
                let name = branch.commit(&changes, &vm.name, command).await?;
                format!("they are on the branch {name}: see `git show {name}`")
            }
            _ => {
                let path = self.write_patch(&tree, &vm.name).await?;
                format!("take them over with `git apply {}`", path.display())
            }
        };
        app.screen.say(&format!("{files} changed in {}'s copy; {result}", vm.name));
        Ok(())
    }

    async fn fetch(&self, app: &App, vm: &Vm, place: &str, interrupts: &mut Interrupts) -> Result<(), Failure> {
        let directory = self.sent.make_room()?;
        let (mut sieve, rules) = Sieve::new(&self.sent)?;
        let to = Destination { directory, root: Root::Destination, only_directory: true };
        let fetched = copy::get(app, &vm.name, place.as_bytes(), interrupts, move |tar| {
            copy::unpack_wanted(tar, &to, Owners::Root, &mut |found| sieve.wants(found))
        });
        let transfer = fetched.await?;
        crate::commands::report_skipped(app, &transfer);
        // With the sieve its input has ended. How it ends says nothing that is not known.
        drop(rules.ended().await);
        Ok(())
    }

    /// Writes the patch under a name that nothing has yet.
    async fn write_patch(&self, tree: &str, vm: &str) -> Result<PathBuf, PullError> {
        let (path, file) = new_file(vm)?;
        let written = self.sent.patch(tree, &file).await;
        if written.is_err() {
            // Half a patch is worse than none; the error to report is the first.
            drop(std::fs::remove_file(&path));
        }
        written.map(|()| path)
    }
}

fn new_file(vm: &str) -> Result<(PathBuf, File), PullError> {
    let mut taken = io::Error::from(io::ErrorKind::AlreadyExists);
    for number in 1..=TRIES {
        let path = PathBuf::from(numbered(vm, number) + ".patch");
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => taken = error,
            Err(source) => return Err(PullError::Patch { path, source }),
        }
    }
    Err(PullError::Patch { path: PathBuf::from(format!("{vm}.patch")), source: taken })
}

/// A name, or the same name with a number.
fn numbered(name: &str, number: u32) -> String {
    if number == 1 { name.to_owned() } else { format!("{name}-{number}") }
}
