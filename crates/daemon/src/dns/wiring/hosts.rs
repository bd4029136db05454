//! The names of VMs in `/etc/hosts`: a block between two marks for each slot. The block's first line names its ground.
//! The rest of the file stays unchanged, byte for byte.
//!
//! The file knows no wildcards: `devbox.vm` is found by it, `www.devbox.vm` is not.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use banger_linux::file;

use crate::ground::{DirectoryError, Mark, Slot, lock_directory};

/// What precedes the note in a block that names its ground.
const OWNER: &[u8] = b"# ";

/// Why the block is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One mark without the other, or several.
    #[error("{} has not exactly one `# {name}: begin` with one `# {name}: end` after it", path.display())]
    Torn {
        /// The file.
        path: PathBuf,
        /// The name in the marks.
        name: String,
    },
    /// The block belongs to another ground.
    #[error("{} has the names of {owner} already", path.display())]
    Others {
        /// The file.
        path: PathBuf,
        /// The ground of the names.
        owner: String,
    },
    /// Other daemons cannot be kept from changing the file at the same time.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl HostsError {
    /// What to do.
    pub fn help(&self) -> String {
        let help = match self {
            HostsError::Read { .. } => "see that the file is there and can be read",
            HostsError::Write { .. } => {
                "see that the file can be written; where the system makes it, as NixOS does, names belong into its configuration"
            }
            HostsError::Others { .. } => {
                "take them out with `banger dns uninstall` of that daemon, or use `banger ssh` for this one"
            }
            HostsError::Torn { .. } => "remove both marks from the file, with what is banger's between them",
            HostsError::Directory(error) => return error.help(),
        };
        help.to_owned()
    }
}

/// Gives the ground's block these names, or removes it. Removes blocks that the ground has from another slot. Writes
/// nothing if the file is right already. All daemons of the host lock the directory `claims` to change the file.
pub(super) fn write(
    path: &Path,
    claims: &Path,
    slot: Slot,
    mark: &Mark,
    names: Option<&[(Ipv4Addr, String)]>,
) -> Result<(), HostsError> {
    if changed(path, slot, mark, names)?.is_none() {
        return Ok(());
    }
    let _guard = lock_directory(claims)?;
    // Again: until now, another daemon may have changed the file.
    let Some(text) = changed(path, slot, mark, names)? else { return Ok(()) };
    file::replace(path, &text).map_err(|source| HostsError::Write { path: path.to_owned(), source })
}

/// The text that the file should have, unless it has that text already.
fn changed(
    path: &Path,
    slot: Slot,
    mark: &Mark,
    names: Option<&[(Ipv4Addr, String)]>,
) -> Result<Option<Vec<u8>>, HostsError> {
    let before = match std::fs::read(path) {
        Ok(text) => text,
        // Without the file there is no block in it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && names.is_none() => return Ok(None),
        Err(source) => return Err(HostsError::Read { path: path.to_owned(), source }),
    };
    let after = with(&before, slot, mark, names).map_err(|error| error.of(path))?;
    Ok((after != before).then_some(after))
}

/// The owner of the block in this ground's place, in words.
pub(super) fn others(path: &Path, slot: Slot, mark: &Mark) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    let place = blocks(&text).get(&slot)?.place().filter(|place| is_others(&text[place.clone()], mark))?;
    owner(&text[place]).map(|mark| told(&mark))
}

/// Why a text cannot be changed.
#[derive(Debug)]
enum Unfit {
    Torn(String),
    Others(String),
}

impl Unfit {
    fn of(self, path: &Path) -> HostsError {
        let path = path.to_owned();
        match self {
            Unfit::Torn(name) => HostsError::Torn { path, name },
            Unfit::Others(owner) => HostsError::Others { path, owner },
        }
    }
}

/// The text with the block of these names, or without one.
fn with(text: &[u8], slot: Slot, mark: &Mark, names: Option<&[(Ipv4Addr, String)]>) -> Result<Vec<u8>, Unfit> {
    let blocks = blocks(text);
    let block = names.map(|names| block(slot, mark, names)).unwrap_or_default();
    let mut edits: Vec<(Range<usize>, &[u8])> = Vec::new();
    for place in blocks.iter().filter(|(other, _)| **other != slot).filter_map(|(_, marks)| marks.place()) {
        if owner(&text[place.clone()]).is_some_and(|owner| owner.id == mark.id) {
            edits.push((place, &[]));
        }
    }
    match blocks.get(&slot) {
        Some(marks) => {
            let place = marks.place().ok_or_else(|| Unfit::Torn(slot.table()))?;
            match owner(&text[place.clone()]).filter(|_| is_others(&text[place.clone()], mark)) {
                Some(owner) if names.is_some() => return Err(Unfit::Others(told(&owner))),
                Some(_) => {}
                None => edits.push((place, &block)),
            }
        }
        // A last line without a line break would run into the block, so the block goes to the beginning of the file.
        None if text.last().is_none_or(|last| *last == b'\n') => edits.push((text.len()..text.len(), &block)),
        None => edits.push((0..0, &block)),
    }
    edits.sort_by_key(|(place, _)| place.start);
    let (mut edited, mut at) = (Vec::new(), 0);
    for (place, new) in edits {
        // Nothing of the text if somebody has put one block into another.
        edited.extend_from_slice(text.get(at..place.start).unwrap_or_default());
        edited.extend_from_slice(new);
        at = at.max(place.end);
    }
    edited.extend_from_slice(&text[at..]);
    Ok(edited)
}

fn block(slot: Slot, mark: &Mark, names: &[(Ipv4Addr, String)]) -> Vec<u8> {
    let lines: String = names.iter().map(|(address, name)| format!("{address} {name}\n")).collect();
    let (begin, end) = marks(slot);
    [begin.as_bytes(), b"\n", OWNER, mark.text().as_bytes(), b"\n", lines.as_bytes(), end.as_bytes(), b"\n"].concat()
}

fn marks(slot: Slot) -> (String, String) {
    let name = slot.table();
    (format!("# {name}: begin"), format!("# {name}: end"))
}

/// The owner of a block. A banger without grounds names none.
fn owner(block: &[u8]) -> Option<Mark> {
    let line = block.split(|byte| *byte == b'\n').nth(1)?.strip_prefix(OWNER)?;
    Mark::read(std::str::from_utf8(line).ok()?)
}

/// Whether a block belongs to another ground whose state directory still exists.
fn is_others(block: &[u8], mark: &Mark) -> bool {
    owner(block).is_some_and(|owner| owner.id != mark.id && !owner.is_of(&mark.state) && owner.may_exist())
}

fn told(owner: &Mark) -> String {
    format!("the daemon of {}", owner.state.display())
}

/// The marks of a slot's block: where each begin begins, and where each end ends.
#[derive(Debug, Default)]
struct Marks {
    begins: Vec<usize>,
    ends: Vec<usize>,
}

impl Marks {
    /// Where the block is, with its marks; `None` if the marks make no sense.
    fn place(&self) -> Option<Range<usize>> {
        match (&self.begins[..], &self.ends[..]) {
            ([begin], [end]) if begin < end => Some(*begin..*end),
            _ => None,
        }
    }
}

/// The marks of all slots in a text.
fn blocks(text: &[u8]) -> BTreeMap<Slot, Marks> {
    let mut blocks: BTreeMap<Slot, Marks> = BTreeMap::new();
    let mut at = 0;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let words = std::str::from_utf8(line.trim_ascii_end()).ok().and_then(|line| line.strip_prefix("# "));
        if let Some((name, mark)) = words.and_then(|words| words.split_once(": "))
            && let Some(slot) = Slot::of_table(name)
        {
            match mark {
                "begin" => blocks.entry(slot).or_default().begins.push(at),
                "end" => blocks.entry(slot).or_default().ends.push(at + line.len()),
                _ => {}
            }
        }
        at += line.len();
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ground::GroundId;

    fn names() -> Vec<(Ipv4Addr, String)> {
        vec![([10, 9, 0, 1].into(), "host.vm".into()), ([10, 9, 0, 2].into(), "a.vm".into())]
    }

    const BLOCK: &str =
        "# banger: begin\n# banger ground 0101010101010101 of /\n10.9.0.1 host.vm\n10.9.0.2 a.vm\n# banger: end\n";

    fn mark(number: u8, state: &str) -> Mark {
        Mark { id: GroundId::from_random([number; 8]), state: state.into() }
    }

    fn with(text: &[u8], names: Option<&[(Ipv4Addr, String)]>) -> Vec<u8> {
        super::with(text, Slot::FIRST, &mark(1, "/"), names).unwrap()
    }

    #[test]
    fn the_rest_stays_byte_for_byte() {
        let others: [&[u8]; 5] =
            [b"", b"127.0.0.1 localhost\n", b"no end", b"\xff\xfe\r\n\n\n", b"# banger: beginning\n"];
        for other in others {
            let with_block = with(other, Some(&names()));
            assert_eq!(with_block.len(), other.len() + BLOCK.len());
            assert!(with_block.starts_with(other) || with_block.ends_with(other));
            assert!(String::from_utf8_lossy(&with_block).contains(BLOCK));
            assert_eq!(with(&with_block, Some(&names())), with_block, "twice is once");
            assert_eq!(with(&with_block, None), other);
            assert_eq!(with(other, None), other);
        }
    }

    #[test]
    fn a_block_is_written_anew_where_it_stands() {
        let text = format!("first\n{BLOCK}last");
        let fewer = with(text.as_bytes(), Some(&names()[..1]));
        let expected = format!("first\n{}last", BLOCK.replace("10.9.0.2 a.vm\n", ""));
        assert_eq!(String::from_utf8(fewer.clone()).unwrap(), expected);
        assert_eq!(with(&fewer, None), b"first\nlast");
        // A block without an owner is from a banger without grounds.
        let old = "# banger: begin\n10.9.0.1 host.vm\n# banger: end\n";
        assert_eq!(with(old.as_bytes(), Some(&names())), BLOCK.as_bytes());
    }

    #[test]
    fn the_block_of_another_ground_stays_until_that_is_gone() {
        let names = names();
        let other = |text: &[u8], names| super::with(text, Slot::FIRST, &mark(2, "/tmp"), names);
        assert!(
            matches!(other(BLOCK.as_bytes(), Some(&names[..])), Err(Unfit::Others(owner)) if owner == "the daemon of /")
        );
        assert_eq!(other(BLOCK.as_bytes(), None).unwrap(), BLOCK.as_bytes());
        let gone = BLOCK.replace("of /\n", "of /no/such/directory\n");
        let taken = String::from_utf8(other(gone.as_bytes(), Some(&names[..])).unwrap()).unwrap();
        assert_eq!(taken, BLOCK.replace("01010101", "02020202").replace("of /\n", "of /tmp\n"));
        // Another slot has its own block next to it, and one ground has one block.
        let second = Slot::new(1).unwrap();
        let both = super::with(BLOCK.as_bytes(), second, &mark(2, "/tmp"), Some(&names[..])).unwrap();
        assert!(both.starts_with(BLOCK.as_bytes()) && String::from_utf8_lossy(&both).contains("# banger1: begin"));
        let moved = super::with(&both, Slot::new(2).unwrap(), &mark(2, "/tmp"), Some(&names[..])).unwrap();
        assert_eq!(String::from_utf8(moved).unwrap(), String::from_utf8(both).unwrap().replace("banger1", "banger2"));
    }

    #[test]
    fn a_block_whose_directory_cannot_be_read_from_it_belongs_to_its_ground() {
        let names = names();
        for state in [format!("/{}", "d".repeat(300)), "/no\nsuch".to_owned(), "/no?such".to_owned()] {
            let text = super::with(b"", Slot::FIRST, &mark(1, &state), Some(&names[..])).unwrap();
            let taken = super::with(&text, Slot::FIRST, &mark(2, "/tmp"), Some(&names[..]));
            assert!(matches!(taken, Err(Unfit::Others(_))), "{state}");
            assert_eq!(super::with(&text, Slot::FIRST, &mark(1, &state), None).unwrap(), b"", "{state}");
        }
    }

    #[test]
    fn blocks_within_blocks_and_between_other_lines_go_alone() {
        let of = |slot: i64, within: &str| {
            let name = Slot::new(slot).unwrap().table();
            format!("# {name}: begin\n# banger ground 0101010101010101 of /\n{within}# {name}: end\n")
        };
        let text = format!("a\n{}b\n{}c\n{}d\n", of(1, ""), of(2, &of(3, "")), of(4, ""));
        assert_eq!(String::from_utf8(with(text.as_bytes(), None)).unwrap(), "a\nb\nc\nd\n");
        let named = String::from_utf8(with(text.as_bytes(), Some(&names()))).unwrap();
        assert_eq!(named, format!("a\nb\nc\nd\n{BLOCK}"));
    }

    #[test]
    fn daemons_that_write_at_once_lose_no_block() {
        const DAEMONS: u8 = 8;
        const LAST: u8 = 20;
        let dir = crate::ground::private_directory();
        let (path, claims) = (dir.path().join("hosts"), dir.path().join("claims"));
        std::fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        std::thread::scope(|scope| {
            for number in 0..DAEMONS {
                let (path, claims) = (&path, &claims);
                scope.spawn(move || {
                    let slot = Slot::new(number.into()).unwrap();
                    for last in 2..=LAST {
                        let names = [(Ipv4Addr::new(10, 9, number, last), "a.vm".to_owned())];
                        write(path, claims, slot, &mark(number, "/"), Some(&names[..])).unwrap();
                    }
                });
            }
        });
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("127.0.0.1 localhost\n"));
        for number in 0..DAEMONS {
            assert_eq!(text.matches(&format!("\n10.9.{number}.{LAST} a.vm\n")).count(), 1, "{number}: {text}");
        }
    }

    #[test]
    fn marks_that_make_no_sense_are_left_alone() {
        for text in ["# banger: begin\n", "# banger: end\n", "# banger: end\n# banger: begin\n", &BLOCK.repeat(2)] {
            let dir = crate::ground::private_directory();
            let path = dir.path().join("hosts");
            std::fs::write(&path, text).unwrap();
            for names in [Some(&names()[..]), None] {
                assert!(
                    matches!(write(&path, dir.path(), Slot::FIRST, &mark(1, "/"), names), Err(HostsError::Torn { .. })),
                    "{text}"
                );
                assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
            }
        }
    }

    #[test]
    fn what_is_so_already_is_not_written() {
        let dir = crate::ground::private_directory();
        let path = dir.path().join("hosts");
        let write = |names: Option<&[_]>| write(&path, dir.path(), Slot::FIRST, &mark(1, "/"), names);
        assert!(write(None).is_ok());
        assert!(matches!(write(Some(&names())), Err(HostsError::Read { .. })));
        std::fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        write(Some(&names())).unwrap();
        let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
        let before = inode(&path);
        write(Some(&names())).unwrap();
        assert_eq!(inode(&path), before);
        write(None).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "127.0.0.1 localhost\n");
    }
}
