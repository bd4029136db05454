//! A writer of cpio archives in the "newc" format, as far as the kernel's initramfs needs it
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Pure: bytes in memory.
//!
//! Archives that are laid one behind the other are unpacked in that order, a later file over an earlier one; each must begin
//! on a multiple of four bytes, which [`Archive::finish`] sees to.

/// An archive that grows.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const TRAILER: &str = "TRAILER!!!";

impl Archive {
    /// An empty one.
    pub fn new() -> Archive {
        Archive::default()
    }

    /// Adds a directory. Names are relative; a directory comes before what is in it.
    pub fn directory(&mut self, name: &str, mode: u32) {
        self.entry(name, DIRECTORY | mode, (0, 0), &[]);
    }

    /// Adds a file of less than 4 GiB.
    pub fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, FILE | mode, (0, 0), content);
    }

    /// Adds a character device.
    pub fn character_device(&mut self, name: &str, mode: u32, major: u32, minor: u32) {
        self.entry(name, CHARACTER_DEVICE | mode, (major, minor), &[]);
    }

    /// The archive, with its end mark.
    pub fn finish(mut self) -> Vec<u8> {
        self.entries = 0;
        self.entry(TRAILER, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        // Everything belongs to root and dates from 1970: the same content makes the same archive. Inode numbers matter
        // to hard links only, of which there are none, so each is its own.
        let size = u32::try_from(content.len()).expect("files of an initramfs are far smaller than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("names are short");
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0]
            .map(|field| format!("{field:08X}"));
        self.bytes.extend_from_slice(b"070701");
        self.bytes.extend_from_slice(fields.concat().as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        self.entries += 1;
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::new();
        archive.file("init", 0o755, b"abcde");
        let bytes = archive.finish();
        let head = "070701\
                    00000000\
                    000081ED\
                    00000000\
                    00000000\
                    00000001\
                    00000000\
                    00000005\
                    00000000\
                    00000000\
                    00000000\
                    00000000\
                    00000005\
                    00000000";
        assert_eq!(&bytes[..110], head.as_bytes());
        // 110 + 5 is padded to 116, the five bytes of content to 124.
        assert_eq!(&bytes[110..116], &b"init\0\0"[..]);
        assert_eq!(&bytes[116..124], b"abcde\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert_eq!(&bytes[124 + 110..124 + 121], b"TRAILER!!!\0");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn archives_lie_one_behind_the_other() {
        for length in 0..9 {
            let mut archive = Archive::new();
            archive.directory("d", 0o755);
            archive.character_device("d/console", 0o600, 5, 1);
            archive.file("d/f", 0o600, &vec![7; length]);
            assert_eq!(archive.finish().len() % 4, 0);
        }
    }
}
