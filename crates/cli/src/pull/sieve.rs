//! What of a guest's files comes back: neither what is ignored, which may be most of it, nor anything that git keeps for
//! itself, nor more than a limit.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use banger_linux::process::Process;
use rustix::pipe::{PipeFlags, pipe_with};

use super::PullError;
use super::sent::Sent;
use crate::copy::{CopyError, Found};
use crate::git::GitError;

/// The most bytes that are taken, holes included: git reads each of them.
const MAX_BYTES: u64 = 2 << 30;

/// The most files and directories that are taken.
const MAX_FILES: usize = 500_000;

/// Decides entry by entry, with the help of a git that knows the rules as they were when the files were sent.
#[derive(Debug)]
pub struct Sieve {
    questions: File,
    answers: BufReader<File>,
    prefix: Vec<u8>,
    /// What was sent, and the directories that it is in: it is wanted whatever the rules say.
    sent: HashSet<PathBuf>,
    /// Directories that are ignored, with all that is in them.
    ignored: HashSet<PathBuf>,
    files: usize,
    bytes: u64,
}

impl Sieve {
    /// A sieve, and the process that helps it until it is dropped.
    ///
    /// # Errors
    /// [`PullError::Git`].
    pub fn new(sent: &Sent) -> Result<(Sieve, Process), PullError> {
        let streams = |errno: rustix::io::Errno| GitError::Streams(errno.into());
        let (stdin, questions) = pipe_with(PipeFlags::CLOEXEC).map_err(streams)?;
        let (answers, stdout) = pipe_with(PipeFlags::CLOEXEC).map_err(streams)?;
        let complaints = crate::git::memory().map_err(GitError::Streams)?;
        let args = ["check-ignore", "-z", "--stdin", "--verbose", "--non-matching"];
        let process = sent.rules().start(&args, stdin, stdout, complaints.into())?;
        let known = sent.files().iter().flat_map(|file| file.ancestors().map(PathBuf::from)).collect();
        let sieve = Sieve {
            questions: File::from(questions),
            answers: BufReader::new(File::from(answers)),
            prefix: sent.prefix().to_vec(),
            sent: known,
            ignored: HashSet::new(),
            files: 0,
            bytes: 0,
        };
        Ok((sieve, process))
    }

    /// Whether an entry is taken.
    ///
    /// # Errors
    /// [`CopyError::TooMuch`]; [`CopyError::Rules`] where git does not answer.
    pub fn wants(&mut self, found: &Found<'_>) -> Result<bool, CopyError> {
        // A repository in the guest's copy is the guest's; written here, git would take its configuration for its own.
        if found.path.iter().any(|component| is_gits(component.as_bytes())) {
            return Ok(false);
        }
        let path: PathBuf = found.path.iter().collect();
        if path.ancestors().skip(1).any(|parent| self.ignored.contains(parent)) && !self.sent.contains(&path) {
            return Ok(false);
        }
        if !self.sent.contains(&path) && self.is_ignored(found.path, found.is_directory)? {
            if found.is_directory {
                self.ignored.insert(path);
            }
            return Ok(false);
        }
        self.files += 1;
        self.bytes = self.bytes.saturating_add(found.size);
        if self.files > MAX_FILES {
            return Err(CopyError::TooMuch { limit: format!("{MAX_FILES} files") });
        }
        if self.bytes > MAX_BYTES {
            return Err(CopyError::TooMuch { limit: crate::size::Size(MAX_BYTES).to_string() });
        }
        Ok(true)
    }

    fn is_ignored(&mut self, path: &[OsString], is_directory: bool) -> Result<bool, CopyError> {
        // A name that begins as git's patterns do would be one.
        let mut question = b"./".to_vec();
        question.extend_from_slice(&self.prefix);
        let names: Vec<&[u8]> = path.iter().map(|name| name.as_bytes()).collect();
        question.extend(names.join(&b'/'));
        if is_directory {
            question.push(b'/');
        }
        question.push(0);
        self.ask(&question).map_err(CopyError::Rules)
    }

    /// The answer is where the rule is, its line, the rule, and the path, or empty fields where there is none
    /// (git-check-ignore(1)); a rule that begins with `!` is one against ignoring.
    fn ask(&mut self, question: &[u8]) -> io::Result<bool> {
        self.questions.write_all(question)?;
        let mut rule = Vec::new();
        for field in 0..4 {
            let mut text = Vec::new();
            if self.answers.read_until(0, &mut text)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            text.pop();
            if field == 2 {
                rule = text;
            }
        }
        Ok(!rule.is_empty() && !rule.starts_with(b"!"))
    }
}

/// Whether git keeps a name for itself, on this or another system, and so refuses a file of that name: `.git` in any case, and
/// what other file systems take for it.
fn is_gits(component: &[u8]) -> bool {
    let name = component.to_ascii_lowercase();
    let Some(rest) = name.strip_prefix(b".git").or_else(|| name.strip_prefix(b"git~1")) else { return false };
    let rest = &rest[rest.iter().take_while(|byte| b" .".contains(byte)).count()..];
    matches!(rest.first(), None | Some(b':' | b'\\'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_git_keeps_for_itself_is_known() {
        for name in [".git", ".GIT", ".git.", ".git . ", "git~1", "Git~1", ".git::$INDEX_ALLOCATION", ".git\\x"] {
            assert!(is_gits(name.as_bytes()), "{name}");
        }
        for name in [".gitignore", ".github", "git", ".git-x", "git~10", "x.git", ".gi"] {
            assert!(!is_gits(name.as_bytes()), "{name}");
        }
    }
}
