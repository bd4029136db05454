//! What a guest was sent, as a tree in a private repository, and what came back as another.
//!
//! The private repository reads nobody's configuration: attributes that a guest changes can name no program of the host's.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::PullError;
use crate::checkout::Checkout;
use crate::environment::Environment;
use crate::git::Git;

/// What was sent. Its directory aside goes with it.
#[derive(Debug)]
pub struct Sent {
    aside: TempDir,
    /// The checkout's own git, in the directory that was sent.
    own: Git,
    /// The private one.
    private: Git,
    directory: PathBuf,
    top: PathBuf,
    /// Where the checkout's repository keeps its objects.
    objects: PathBuf,
    /// The directory's path below the top of its checkout; empty, or with a slash at its end.
    prefix: Vec<u8>,
    /// The commit that the checkout was at.
    head: Option<String>,
    tree: String,
    /// The files, relative to the directory.
    files: HashSet<PathBuf>,
}

/// A file that the guest has changed, as a line of `git update-index --index-info`.
#[derive(Debug)]
pub struct Change {
    /// Whether it was removed.
    pub removed: bool,
    /// Mode, id and path.
    pub line: Vec<u8>,
}

impl Sent {
    /// Remembers a checkout's files. Nothing is put into its own repository, of which the private one uses what is there.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn remember(environment: &Environment, checkout: &Checkout) -> Result<Sent, PullError> {
        let base = environment.var("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        let aside = tempfile::Builder::new().prefix("banger-pull-").tempdir_in(&base);
        let aside = aside.map_err(|source| PullError::Aside { attempted: "make a directory", path: base, source })?;
        let own = Git::of(&checkout.directory, environment);
        let place = Place::of(&own, &checkout.directory).await?;
        let excluded = match own.line_if_any(&["config", "--type=path", "--get", "core.excludesFile"]).await? {
            Some(path) => PathBuf::from(path),
            None => usual_excludes(environment),
        };
        let private = Git::private(&place.top, environment)
            .with("GIT_DIR", aside.path().join("git"))
            .with("GIT_INDEX_FILE", aside.path().join("index"))
            .with("GIT_WORK_TREE", &place.top)
            // A file may be named as git's patterns for files are written.
            .with("GIT_LITERAL_PATHSPECS", "1")
            .with("GIT_CONFIG_COUNT", "2")
            .with("GIT_CONFIG_KEY_0", "core.excludesFile")
            .with("GIT_CONFIG_VALUE_0", excluded)
            .with("GIT_CONFIG_KEY_1", "core.looseCompression")
            .with("GIT_CONFIG_VALUE_1", "0");
        private
            .in_directory(aside.path())
            .with("GIT_WORK_TREE", aside.path())
            .say(&["init", "--quiet", "--template=", &format!("--object-format={}", place.format)], b"")
            .await?;
        let alternates = aside.path().join("git/objects/info/alternates");
        let used = fs::write(&alternates, [place.objects.as_os_str().as_bytes(), b"\n"].concat());
        used.map_err(|source| PullError::Aside { attempted: "name a repository", path: alternates, source })?;
        let head = head(&own).await?;
        let mut sent = Sent {
            aside,
            own,
            private,
            directory: checkout.directory.clone(),
            top: place.top,
            objects: place.objects,
            prefix: place.prefix,
            head,
            tree: String::new(),
            files: present(checkout),
        };
        sent.keep_rules(&place.exclude)?;
        sent.tree = sent.tree_with(&sent.private, &sent.files).await?;
        Ok(sent)
    }

    /// The checkout's own git. What it makes goes into the private repository.
    pub fn own(&self) -> Git {
        self.own.clone().with("GIT_OBJECT_DIRECTORY", self.aside.path().join("git/objects"))
    }

    /// A git that writes into the checkout's own repository, as its owner.
    ///
    /// # Errors
    /// [`PullError::Git`].
    pub fn writer(&self) -> Result<Git, PullError> {
        Ok(self.own.clone().by_owner_of(&self.objects)?)
    }

    /// The private git, in a directory of its own that holds the rules on what is ignored.
    pub fn rules(&self) -> Git {
        let rules = self.aside.path().join("rules");
        // git-check-ignore(1) refuses to be told that its paths are no patterns.
        self.private.in_directory(&rules).with("GIT_WORK_TREE", &rules).with("GIT_LITERAL_PATHSPECS", "0")
    }

    /// Where more can be put aside.
    pub fn aside(&self) -> &Path {
        self.aside.path()
    }

    /// The commit that the checkout was at.
    pub fn head(&self) -> Option<&str> {
        self.head.as_deref()
    }

    /// The directory's path below the top of its checkout, with a slash at its end where it is not the top.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The files that were sent, relative to the directory.
    pub fn files(&self) -> &HashSet<PathBuf> {
        &self.files
    }

    /// Makes the directory for what comes back.
    ///
    /// # Errors
    /// [`PullError::Aside`].
    pub fn make_room(&self) -> Result<PathBuf, PullError> {
        let path = self.fetched();
        match fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(PullError::Aside { attempted: "make a directory", path, source }),
        }
    }

    /// Leaves the directory for what came back where it is; its path.
    pub fn keep(self) -> PathBuf {
        let path = self.fetched();
        // It goes with nobody any more.
        drop(self.aside.keep());
        path
    }

    /// The tree of what came back, without what is ignored.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn tree_of_fetched(&self) -> Result<String, PullError> {
        let index = self.copy_of_index("fetched")?;
        let git = self.private.in_directory(&self.fetched()).with("GIT_INDEX_FILE", index);
        let git = git.with("GIT_WORK_TREE", self.aside.path().join("tree"));
        git.say(&["add", "--all", "--", "."], b"").await?;
        Ok(git.line(&["write-tree"]).await?)
    }

    /// Every file that differs between what was sent and another tree, what was removed first.
    ///
    /// # Errors
    /// [`PullError`].
    pub async fn changes(&self, tree: &str) -> Result<Vec<Change>, PullError> {
        let raw = self.private.say(&["diff-tree", "-r", "-z", "--raw", "--no-abbrev", &self.tree, tree], b"").await?;
        let mut changes = Vec::new();
        let mut fields = raw.split(|&byte| byte == 0);
        while let (Some(what), Some(path)) = (fields.next(), fields.next()) {
            changes.push(change(what, path).ok_or_else(|| self.unclear())?);
        }
        changes.sort_by_key(|change| !change.removed);
        Ok(changes)
    }

    /// Writes what leads from what was sent to another tree, for `git apply`.
    ///
    /// # Errors
    /// [`PullError::Git`].
    pub async fn patch(&self, tree: &str, to: &File) -> Result<(), PullError> {
        let args = ["diff-tree", "-r", "-p", "--binary", "--full-index", "--no-color", &self.tree, tree];
        Ok(self.private.run(&args, b"", to).await?)
    }

    /// How the checkout differs from what was sent, if it does.
    pub async fn moved_on(&self, environment: &Environment) -> Option<String> {
        let compare = async {
            let now = Checkout::list(&self.directory, environment).await.ok()?;
            let head = head(&self.own).await.ok()?;
            // The index knows the files: those that are as they were are not read again.
            let git = self.private.clone().with("GIT_INDEX_FILE", self.copy_of_index("now").ok()?);
            let files = present(&now).union(&self.files).cloned().collect();
            let tree = self.tree_with(&git, &files).await.ok()?;
            Some((head, tree))
        };
        match compare.await {
            None => Some("the checkout cannot be compared, as it may have changed".to_owned()),
            Some((head, _)) if head != self.head => Some("the checkout has got another HEAD".to_owned()),
            Some((_, tree)) if tree != self.tree => Some("the checkout's files have changed".to_owned()),
            Some(_) => None,
        }
    }

    /// A copy of the index of what was sent, which itself stays as it is. It has the index's time: by it git knows which files
    /// may have changed within the instant that it was written in.
    fn copy_of_index(&self, name: &str) -> Result<PathBuf, PullError> {
        let (index, copy) = (self.aside.path().join("index"), self.aside.path().join(name));
        let copied = fs::copy(&index, &copy)
            .and_then(|_| fs::metadata(&index)?.modified())
            .and_then(|time| File::options().write(true).open(&copy)?.set_modified(time));
        match copied {
            Ok(()) => Ok(copy),
            Err(source) => Err(PullError::Aside { attempted: "copy an index", path: copy, source }),
        }
    }

    async fn tree_with(&self, git: &Git, files: &HashSet<PathBuf>) -> Result<String, PullError> {
        let mut list = Vec::new();
        for file in files {
            list.extend_from_slice(&self.prefix);
            list.extend_from_slice(file.as_os_str().as_bytes());
            list.push(0);
        }
        git.say(&["update-index", "--add", "--remove", "-z", "--stdin"], &list).await?;
        Ok(git.line(&["write-tree"]).await?)
    }

    /// Keeps the rules on what is ignored as they are now, in the files in which git looks for them.
    fn keep_rules(&self, exclude: &Path) -> Result<(), PullError> {
        let rules = self.aside.path().join("rules");
        let prefix = Path::new(OsStr::from_bytes(&self.prefix));
        let above = prefix.ancestors().skip(1).map(|directory| directory.join(".gitignore"));
        let within = self.files.iter().filter(|file| file.file_name() == Some(OsStr::new(".gitignore")));
        let copies =
            above.chain(within.map(|file| prefix.join(file))).map(|file| (self.top.join(&file), rules.join(file)));
        let info = (exclude.to_owned(), self.aside.path().join("git/info/exclude"));
        let made = fs::create_dir_all(rules.join(prefix));
        made.map_err(|source| PullError::Aside { attempted: "make a directory", path: rules.clone(), source })?;
        for (from, to) in copies.chain([info]) {
            // git does not follow a link here either.
            if !fs::symlink_metadata(&from).is_ok_and(|found| found.is_file()) {
                continue;
            }
            let copied = fs::create_dir_all(to.parent().unwrap_or(&rules)).and_then(|()| fs::copy(&from, &to));
            copied.map_err(|source| PullError::Aside { attempted: "keep a .gitignore", path: to, source })?;
        }
        Ok(())
    }

    fn fetched(&self) -> PathBuf {
        self.aside.path().join("tree").join(OsStr::from_bytes(&self.prefix))
    }

    fn unclear(&self) -> PullError {
        PullError::Description { directory: self.directory.clone() }
    }
}

/// Where a directory is in its checkout, and where that keeps its things.
struct Place {
    top: PathBuf,
    objects: PathBuf,
    exclude: PathBuf,
    prefix: Vec<u8>,
    format: String,
}

impl Place {
    async fn of(git: &Git, directory: &Path) -> Result<Place, PullError> {
        let args = ["--path-format=absolute", "--show-toplevel", "--git-path", "objects", "--git-path", "info/exclude"];
        let said =
            git.say(&[&["rev-parse"], &args[..], &["--show-prefix", "--show-object-format"]].concat(), b"").await?;
        let lines: Vec<&[u8]> = said.split(|&byte| byte == b'\n').collect();
        let [top, objects, exclude, prefix, format, b""] = lines[..] else {
            return Err(PullError::Description { directory: directory.to_owned() });
        };
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        Ok(Place {
            top: path(top),
            objects: path(objects),
            exclude: path(exclude),
            prefix: prefix.to_vec(),
            format: String::from_utf8_lossy(format).into_owned(),
        })
    }
}

async fn head(git: &Git) -> Result<Option<String>, PullError> {
    Ok(git.line_if_any(&["rev-parse", "--quiet", "--verify", "HEAD^{commit}"]).await?)
}

/// Where git looks for rules on what is ignored everywhere (gitignore(5)).
fn usual_excludes(environment: &Environment) -> PathBuf {
    let below = |name: &str, rest: &str| environment.var(name).map(|base| Path::new(base).join(rest));
    let path = below("XDG_CONFIG_HOME", "git/ignore").or_else(|| below("HOME", ".config/git/ignore"));
    path.unwrap_or_else(|| PathBuf::from("/dev/null"))
}

/// The files and links of a checkout that are there, by the same rule as for those that are sent: not through a link.
fn present(checkout: &Checkout) -> HashSet<PathBuf> {
    let mut known = HashSet::new();
    let mut is_directory = |path: &Path| {
        if known.contains(path) {
            return true;
        }
        let found = fs::symlink_metadata(checkout.directory.join(path)).is_ok_and(|found| found.is_dir());
        found && known.insert(path.to_owned())
    };
    let mut within = |file: &Path| {
        let mut parents: Vec<&Path> = file.ancestors().skip(1).collect();
        parents.reverse();
        parents.into_iter().all(&mut is_directory)
    };
    let is_file = |file: &Path| {
        fs::symlink_metadata(checkout.directory.join(file)).is_ok_and(|found| found.is_file() || found.is_symlink())
    };
    checkout.files.iter().filter(|file| within(file) && is_file(file)).cloned().collect()
}

/// A change from a line of `git diff-tree --raw -z`: `:mode mode id id letter`, and its path.
fn change(what: &[u8], path: &[u8]) -> Option<Change> {
    let mut words = std::str::from_utf8(what).ok()?.strip_prefix(':')?.split(' ').skip(1);
    let (mode, id) = (words.next()?, words.nth(1)?);
    let removed = words.next()?.starts_with('D');
    let mode = if removed { "0" } else { mode };
    let mut line = format!("{mode} {id}\t").into_bytes();
    line.extend_from_slice(path);
    line.push(0);
    Some(Change { removed, line })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read_as_git_writes_them() {
        let id = ["1".repeat(40), "2".repeat(40), "0".repeat(40)];
        let changed = change(format!(":100644 100755 {} {} M", id[0], id[1]).as_bytes(), b"a\tb\xff").unwrap();
        assert!(!changed.removed);
        assert_eq!(changed.line, [format!("100755 {}\ta\tb", id[1]).as_bytes(), b"\xff\0"].concat());
        let removed = change(format!(":100644 000000 {} {} D", id[0], id[2]).as_bytes(), b"gone").unwrap();
        assert!(removed.removed);
        assert_eq!(removed.line, format!("0 {}\tgone\0", id[2]).as_bytes());
        assert!(change(b"100644 nonsense", b"x").is_none());
    }
}
