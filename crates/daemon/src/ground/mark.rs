//! The note that a ground leaves on its bridge (`ifalias`): it names the owner to every program that lists links. Pure.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use banger_linux::netlink::MAX_ALIAS;

use super::GroundId;

/// How the note begins.
const BEGIN: &str = "banger ground ";

/// The text between the id and the state directory.
const OF: &str = " of ";

/// The owner of a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The ground's id.
    pub id: GroundId,
    /// Its state directory, as far as it fits.
    pub state: PathBuf,
}

impl Mark {
    /// The note's text, cut to the length that a link allows. Replaces what is not UTF-8 or would break the line.
    pub fn text(&self) -> String {
        let state = String::from_utf8_lossy(self.state.as_os_str().as_bytes());
        let state = state.replace(char::is_control, "?");
        let mut text = format!("{BEGIN}{}{OF}{state}", self.id);
        let end = (0..=MAX_ALIAS.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text
    }

    /// Reads a note; `None` if no ground wrote it.
    pub fn read(text: &str) -> Option<Mark> {
        let (id, state) = text.strip_prefix(BEGIN)?.split_once(OF)?;
        Some(Mark { id: id.parse().ok()?, state: PathBuf::from(state) })
    }

    /// Whether the note has the whole path, with nothing cut or replaced.
    pub fn is_whole(&self) -> bool {
        // A cut before a character of several bytes leaves up to three bytes free.
        self.text().len() < MAX_ALIAS - 3 && !self.state.to_string_lossy().contains(['?', char::REPLACEMENT_CHARACTER])
    }

    /// Whether its state directory may exist: the note may have only a part of its path, or this daemon may not look at it.
    pub fn may_exist(&self) -> bool {
        !self.is_whole() || self.state.try_exists().unwrap_or(true)
    }

    /// Whether this is the state directory, as far as the note says.
    pub fn is_of(&self, state: &Path) -> bool {
        Mark { id: self.id, state: state.to_owned() }.text() == self.text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn mark(state: impl Into<PathBuf>) -> Mark {
        Mark { id: GroundId::from_random([7; 8]), state: state.into() }
    }

    #[test]
    fn a_note_is_read_as_it_is_written() {
        let mark = mark("/var/lib/banger of mine");
        assert_eq!(mark.text(), "banger ground 0707070707070707 of /var/lib/banger of mine");
        assert_eq!(Mark::read(&mark.text()), Some(mark.clone()));
        assert!(mark.is_of(Path::new("/var/lib/banger of mine")) && !mark.is_of(Path::new("/var/lib/banger")));
        for other in ["", "eth0 of the lab", "banger ground 07 of /x", "banger ground 0707070707070707"] {
            assert_eq!(Mark::read(other), None, "{other}");
        }
    }

    #[test]
    fn whatever_the_directory_is_called_the_note_fits_and_has_one_line() {
        for state in
            [OsStr::from_bytes(&[b'/'; 4096]), OsStr::from_bytes(b"/\xff\n\x1b[m"), OsStr::new(&"/ü".repeat(500))]
        {
            let mark = mark(state);
            let text = mark.text();
            assert!(text.len() <= MAX_ALIAS && !text.contains(char::is_control), "{text}");
            assert!(mark.is_of(Path::new(state)));
            assert_eq!(Mark::read(&text).map(|read| read.id), Some(mark.id));
        }
    }
}
