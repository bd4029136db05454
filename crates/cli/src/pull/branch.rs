//! A guest's changes as a commit on a new branch. It is made aside; then its objects and one reference are written into the
//! checkout's repository, as its owner. Files, index and current branch stay as they are, and no hook is run.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::sent::{Change, Sent};
use super::{PullError, TRIES, numbered};
use crate::checkout::Checkout;
use crate::git::{Git, GitError, memory};

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
    /// What the repository has already, by its newest commit.
    head: Option<String>,
    /// Who writes into the repository.
    writer: Git,
}

impl Branch {
    /// Remembers the whole checkout with the files that are sent, by the rules of its own repository.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn begin(sent: &Sent, checkout: &Checkout) -> Result<Branch, PullError> {
        let own = &sent.own();
        let git = own.clone().with("GIT_INDEX_FILE", sent.aside().join("branch"));
        if let Some(head) = sent.head() {
            git.say(&["read-tree", head], b"").await?;
        }
        let old = git.say(&["ls-files", "-z"], b"").await?;
        git.say(&["update-index", "-z", "--force-remove", "--stdin"], &old).await?;
        git.say(&["update-index", "--add", "--remove", "-z", "--stdin"], &list(sent, checkout)).await?;
        git.say(&["update-index", "-z", "--index-info"], &submodules(own).await?).await?;
        let tree = git.line(&["write-tree"]).await?;
        let name = Name::of(&git).await?;
        let (git, writer) = (name.given_to(git), name.given_to(sent.writer()?));
        let base = match sent.head() {
            Some(head) if own.line(&["rev-parse", &format!("{head}^{{tree}}")]).await? == tree => head.to_owned(),
            head => commit(&git, &tree, head, "The work tree as a virtual machine got it\n").await?,
        };
        Ok(Branch { git, base, tree, head: sent.head().map(str::to_owned), writer })
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
        self.hand_over(&commit).await?;
        let first = format!("banger/{vm}");
        for number in 1..=TRIES {
            let name = numbered(&first, number);
            let reference = format!("refs/heads/{name}");
            if self.writer.line_if_any(&["rev-parse", "--quiet", "--verify", &reference]).await?.is_none() {
                // The empty old value: it must not exist.
                self.writer.say(&["update-ref", &reference, &commit, ""], b"").await?;
                return Ok(name);
            }
        }
        Err(PullError::Branch { name: first })
    }

    /// Puts a commit, and what the repository lacks of it, from the private repository into the checkout's.
    async fn hand_over(&self, commit: &str) -> Result<(), PullError> {
        let known = self.head.as_ref().map(|head| format!("^{head}\n")).unwrap_or_default();
        let wanted = format!("{commit}\n{known}");
        let pack = memory().map_err(GitError::Streams)?;
        self.git.run(&["pack-objects", "--revs", "--stdout", "--quiet"], wanted.as_bytes(), &pack).await?;
        let said = memory().map_err(GitError::Streams)?;
        Ok(self.writer.run_with(&["unpack-objects", "-q"], pack, &said).await?)
    }
}

/// Who commits: a name and an address.
struct Name(String, String);

impl Name {
    /// As git knows the user.
    async fn of(git: &Git) -> Result<Name, PullError> {
        // `Name <address> seconds zone`
        let known = git.line_if_any(&["var", "GIT_COMMITTER_IDENT"]).await?;
        let parts = known.as_deref().and_then(|known| known.split_once(" <")).and_then(|(name, rest)| {
            let (address, _) = rest.split_once('>')?;
            Some(Name(name.to_owned(), address.to_owned()))
        });
        Ok(parts.unwrap_or_else(|| Name(STAND_IN.0.to_owned(), STAND_IN.1.to_owned())))
    }

    fn given_to(&self, git: Git) -> Git {
        let git = git.with("GIT_AUTHOR_NAME", &self.0).with("GIT_AUTHOR_EMAIL", &self.1);
        git.with("GIT_COMMITTER_NAME", &self.0).with("GIT_COMMITTER_EMAIL", &self.1)
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
