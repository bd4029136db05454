//! A guest's changes as a commit on a new branch. Only objects and one reference are written: the checkout's files, its
//! index and its current branch stay as they are, and no hook is run.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::sent::{Change, Sent};
use super::{PullError, TRIES, numbered};
use crate::checkout::Checkout;
use crate::git::Git;

/// Who commits where git does not know the user's name.
const STAND_IN: (&str, &str) = ("banger", "banger@localhost");

/// What the commit will stand on.
#[derive(Debug)]
pub struct Branch {
    /// The checkout's git, with an index aside that holds what was sent.
    git: Git,
    /// The commit that the guest's changes are made to; one of its own where the checkout had changes already.
    base: String,
    /// The tree of what was sent.
    tree: String,
}

impl Branch {
    /// Remembers the whole checkout with the files that are sent, by the rules of its own repository.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn begin(sent: &Sent, checkout: &Checkout) -> Result<Branch, PullError> {
        let own = sent.own();
        let git = own.clone().with("GIT_INDEX_FILE", sent.aside().join("branch"));
        if let Some(head) = sent.head() {
            git.say(&["read-tree", head], b"").await?;
        }
        let old = git.say(&["ls-files", "-z"], b"").await?;
        git.say(&["update-index", "-z", "--force-remove", "--stdin"], &old).await?;
        git.say(&["update-index", "--add", "--remove", "-z", "--stdin"], &list(sent, checkout)).await?;
        git.say(&["update-index", "-z", "--index-info"], &submodules(own).await?).await?;
        let tree = git.line(&["write-tree"]).await?;
        let git = named(git).await?;
        let base = match sent.head() {
            Some(head) if own.line(&["rev-parse", &format!("{head}^{{tree}}")]).await? == tree => head.to_owned(),
            head => commit(&git, &tree, head, "The work tree as a virtual machine got it\n").await?,
        };
        Ok(Branch { git, base, tree })
    }

    /// Commits changes to what was sent; the branch's name.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn commit(&self, changes: &[Change], vm: &str, command: &[String]) -> Result<String, PullError> {
        let lines: Vec<u8> = changes.iter().flat_map(|change| change.line.iter().copied()).collect();
        self.git.say(&["read-tree", &self.tree], b"").await?;
        self.git.say(&["update-index", "--replace", "-z", "--index-info"], &lines).await?;
        let tree = self.git.line(&["write-tree"]).await?;
        let ran = match command {
            [] => "By hand, in a shell.".to_owned(),
            command => format!("By: {}", crate::output::printable(&command.join(" "))),
        };
        let words = format!("Changes made in the virtual machine {vm}\n\n{ran}\n");
        let commit = commit(&self.git, &tree, Some(&self.base), &words).await?;
        let first = format!("banger/{vm}");
        for number in 1..=TRIES {
            let name = numbered(&first, number);
            let reference = format!("refs/heads/{name}");
            if self.git.line_if_any(&["rev-parse", "--quiet", "--verify", &reference]).await?.is_none() {
                // The empty old value: it must not exist.
                self.git.say(&["update-ref", &reference, &commit, ""], b"").await?;
                return Ok(name);
            }
        }
        Err(PullError::Branch { name: first })
    }
}

async fn commit(git: &Git, tree: &str, parent: Option<&str>, words: &str) -> Result<String, PullError> {
    let mut args = vec!["commit-tree", "--no-gpg-sign", tree];
    if let Some(parent) = parent {
        args.extend(["-p", parent]);
    }
    let said = git.say(&args, words.as_bytes()).await?;
    Ok(String::from_utf8_lossy(&said).trim_end().to_owned())
}

/// git with a name to commit under.
async fn named(git: Git) -> Result<Git, PullError> {
    if git.line_if_any(&["var", "GIT_COMMITTER_IDENT"]).await?.is_some() {
        return Ok(git);
    }
    let (name, address) = STAND_IN;
    let git = git.with("GIT_AUTHOR_NAME", name).with("GIT_AUTHOR_EMAIL", address);
    Ok(git.with("GIT_COMMITTER_NAME", name).with("GIT_COMMITTER_EMAIL", address))
}

/// The files that are sent, relative to the directory, each ended by a zero byte.
fn list(sent: &Sent, checkout: &Checkout) -> Vec<u8> {
    let files = checkout.files.iter().filter(|file| sent.files().contains(*file));
    files.flat_map(|file: &PathBuf| file.as_os_str().as_bytes().iter().copied().chain([0])).collect()
}

/// The submodules in the directory, which are no files, as they stand in the checkout's index.
async fn submodules(git: &Git) -> Result<Vec<u8>, PullError> {
    let staged = git.say(&["ls-files", "--stage", "--full-name", "-z"], b"").await?;
    let entries = staged.split_inclusive(|&byte| byte == 0);
    Ok(entries.filter(|entry| entry.starts_with(b"160000 ")).flatten().copied().collect())
}
