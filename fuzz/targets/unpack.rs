//! A guest's tar stream, unpacked by the command line: nothing is ever made, changed or removed outside of the destination.
//!
//! The destination is a directory beside two that tell on whoever leaves it, in a file system in memory. The input is a
//! header that is made valid, so that the checksum hides nothing, or a stream as it is.

#![no_main]

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use banger_cli::fuzzing::{Destination, Owners, Root, unpack};
use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 512;

thread_local! {
    static PLACE: RefCell<Place> = RefCell::new(Place::new());
}

fuzz_target!(|input: (u8, &[u8])| PLACE.with_borrow_mut(|place| place.take(input.0, input.1)));

struct Place {
    directory: tempfile::TempDir,
    outside: Vec<(PathBuf, u64, u64, i64, i64)>,
}

impl Place {
    fn new() -> Place {
        // scripts/fuzz names one in memory, and removes it: nothing is dropped when libFuzzer ends.
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("outside")).expect("a directory");
        fs::write(directory.path().join("outside/file"), "mine").expect("a file");
        fs::create_dir(directory.path().join("in")).expect("a directory");
        let outside = seen(directory.path());
        Place { directory, outside }
    }

    fn take(&mut self, flags: u8, stream: &[u8]) {
        let inside = self.directory.path().join("in");
        // Links that lead out are there already, too: nothing may be written through them.
        std::os::unix::fs::symlink("../outside", inside.join("link")).expect("a link");
        std::os::unix::fs::symlink("../outside/file", inside.join("file")).expect("a link");
        let destination = Destination {
            directory: inside.clone(),
            root: match flags & 17 {
                0 => Root::Named(OsString::from("a")),
                1 => Root::Destination,
                _ => Root::Matching(b"[a-m]*".to_vec()),
            },
            only_directory: flags & 2 != 0,
        };
        let owners = if flags & 4 == 0 { Owners::Root } else { Owners::Kept };
        let stream = if flags & 8 == 0 { valid(stream) } else { stream.to_vec() };
        drop(unpack(&mut stream.as_slice(), &destination, owners));
        assert_eq!(seen(self.directory.path()), self.outside, "something outside of the destination has changed");
        clear(&inside);
    }
}

/// What is outside, with what would tell of a change. The destination itself changes with every entry.
fn seen(place: &Path) -> Vec<(PathBuf, u64, u64, i64, i64)> {
    let mut seen = Vec::new();
    for path in [place.to_owned(), place.join("outside"), place.join("outside/file")] {
        let is = fs::symlink_metadata(&path).expect("it is there");
        seen.push((path, u64::from(is.mode()), is.nlink(), is.mtime(), is.ctime_nsec()));
    }
    seen.push((place.join("in"), fs::read_dir(place).expect("it can be read").count() as u64, 0, 0, 0));
    seen
}

fn clear(directory: &Path) {
    for entry in fs::read_dir(directory).expect("it can be read") {
        let entry = entry.expect("it can be read");
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(entry.path()).expect("it can be removed");
        } else {
            fs::remove_file(entry.path()).expect("it can be removed");
        }
    }
}

/// The stream with every header's checksum made right (tar(5)): a step over what each says is its content.
fn valid(stream: &[u8]) -> Vec<u8> {
    let mut bytes = stream.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    let mut at = 0;
    while at + BLOCK <= bytes.len() {
        let header = &mut bytes[at..at + BLOCK];
        if header.iter().any(|&byte| byte != 0) {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let digits = header[124..136].iter().take_while(|byte| byte.is_ascii_digit());
        let size = digits.fold(0usize, |size, digit| (size << 3) + usize::from(digit & 7));
        at += BLOCK + size.min(bytes.len()).next_multiple_of(BLOCK);
    }
    bytes.extend([0; 2 * BLOCK]);
    bytes
}
