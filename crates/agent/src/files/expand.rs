//! The files that a pattern names, as a shell in the guest would find them.

use std::collections::HashMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use banger_protocol::pattern;

use super::FilesError;

/// The most files that a pattern may name.
const MAX_MATCHES: usize = 10_000;

/// The most names that are looked at on the way.
const MAX_LOOKS: usize = 1_000_000;

/// The most components with a pattern in them.
const MAX_PATTERNS: usize = 32;

/// The paths that an absolute one stands for, sorted. One that exists as it is written stands for itself. A pattern is looked
/// up component by component, so that a link that leads back to where it is costs no more than its name.
///
/// # Errors
/// [`FilesError::NoMatch`], [`FilesError::ManyMatches`], [`FilesError::SameName`].
pub fn expand(path: &Path) -> Result<Vec<PathBuf>, FilesError> {
    if fs::symlink_metadata(path).is_ok() {
        return Ok(vec![path.to_owned()]);
    }
    let typed = || path.display().to_string();
    let components: Vec<&[u8]> = path.as_os_str().as_bytes().split(|&byte| byte == b'/').collect();
    let components: Vec<&[u8]> = components.into_iter().filter(|component| !component.is_empty()).collect();
    if components.iter().filter(|component| pattern::is_pattern(component)).count() > MAX_PATTERNS {
        return Err(FilesError::ManyMatches { pattern: typed() });
    }
    let mut found = vec![PathBuf::from("/")];
    let mut looks = 0;
    for component in components {
        let mut next = Vec::new();
        for directory in &found {
            if !pattern::is_pattern(component) {
                next.push(directory.join(std::ffi::OsStr::from_bytes(component)));
                continue;
            }
            for name in matching(directory, component, &mut looks) {
                next.push(directory.join(name));
            }
            if next.len() > MAX_MATCHES || looks > MAX_LOOKS {
                return Err(FilesError::ManyMatches { pattern: typed() });
            }
        }
        found = next;
    }
    found.retain(|path| fs::symlink_metadata(path).is_ok());
    if found.is_empty() {
        return Err(FilesError::NoMatch { pattern: typed() });
    }
    differ(&found)?;
    Ok(found)
}

/// The names in a directory that fit. One that cannot be read, or is none, has none, as in a shell.
fn matching(directory: &Path, component: &[u8], looks: &mut usize) -> Vec<std::ffi::OsString> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names = Vec::new();
    for entry in entries.flatten() {
        *looks += 1;
        if *looks > MAX_LOOKS {
            break;
        }
        let name = entry.file_name();
        if pattern::matches(component, name.as_bytes()) {
            names.push(name);
        }
    }
    names.sort();
    names
}

/// All go into one directory, by their last component: two of one name would be one file.
fn differ(found: &[PathBuf]) -> Result<(), FilesError> {
    let mut names = HashMap::new();
    for path in found {
        if let Some(one) = names.insert(path.file_name(), path) {
            return Err(FilesError::SameName { one: one.display().to_string(), other: path.display().to_string() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn guest() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "b.log",
            "a.log",
            "a.txt",
            ".hidden.log",
            "one/x",
            "two/y",
            "two/deep/z",
            "lit[1]",
            "lit1",
            "one/same",
            "two/same",
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        symlink(".", dir.path().join("again")).unwrap();
        symlink("loop", dir.path().join("loop")).unwrap();
        dir
    }

    fn found(dir: &Path, pattern: &str) -> Result<Vec<String>, FilesError> {
        let paths = expand(&dir.join(pattern))?;
        Ok(paths.iter().map(|path| path.strip_prefix(dir).unwrap().display().to_string()).collect())
    }

    #[test]
    fn a_pattern_finds_what_a_shell_finds() {
        let dir = guest();
        let found = |pattern: &str| found(dir.path(), pattern).unwrap();
        assert_eq!(found("*.log"), ["a.log", "b.log"]);
        assert_eq!(found(".*.log"), [".hidden.log"]);
        assert_eq!(found("?.t[xy]t"), ["a.txt"]);
        assert_eq!(found("*/deep/*"), ["again/two/deep/z", "two/deep/z"][1..]);
        assert_eq!(found("t*/../*.txt"), ["two/../a.txt"]);
        assert_eq!(found("l*p"), ["loop"]);
        assert_eq!(found("*/[xy]"), ["one/x", "two/y"]);
    }

    #[test]
    fn a_name_that_is_there_is_no_pattern() {
        let dir = guest();
        assert_eq!(found(dir.path(), "lit[1]").unwrap(), ["lit[1]"]);
        fs::remove_file(dir.path().join("lit[1]")).unwrap();
        assert_eq!(found(dir.path(), "lit[1]").unwrap(), ["lit1"]);
    }

    #[test]
    fn nothing_too_much_and_two_of_a_name_are_errors() {
        let dir = guest();
        assert!(matches!(found(dir.path(), "*.none"), Err(FilesError::NoMatch { .. })));
        assert!(matches!(found(dir.path(), "*/no/*"), Err(FilesError::NoMatch { .. })));
        assert!(matches!(found(dir.path(), "*/same"), Err(FilesError::SameName { .. })));
        assert!(matches!(found(dir.path(), &"*/".repeat(40)), Err(FilesError::ManyMatches { .. })));
        // Every level doubles by the link.
        fs::create_dir(dir.path().join("two/deep/self")).unwrap();
        symlink("..", dir.path().join("one/up")).unwrap();
        assert!(matches!(found(dir.path(), &("*/".repeat(30) + "x")), Err(FilesError::ManyMatches { .. })));
    }
}
