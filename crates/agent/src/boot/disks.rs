//! The guest's disks: found by serial number, mounted, and grown to the size that their devices have.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Instant;

use banger_linux::uevent::Uevents;
use rustix::mount::{MountFlags, mount};

use super::BootError;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    serial: &'static str,
    /// `vda`, say.
    name: String,
}

/// A file system that is smaller than its device.
#[derive(Debug)]
pub struct Growth {
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// How many blocks of its own size it can have.
    pub blocks: u64,
}

/// Finds the disk with this serial number, waiting for it to be announced.
pub fn find(devices: &Uevents, serial: &'static str, deadline: Instant) -> Result<Disk, BootError> {
    loop {
        if let Some(name) = look(serial) {
            return Ok(Disk { serial, name });
        }
        if !devices.wait("block", deadline).map_err(BootError::Listen)? {
            return Err(BootError::NoDisk { serial });
        }
    }
}

/// Whether there is a disk with this serial number now.
pub fn is_there(serial: &str) -> bool {
    look(serial).is_some()
}

fn look(serial: &str) -> Option<String> {
    fs::read_dir("/sys/block").ok()?.flatten().find_map(|entry| {
        let found = fs::read(entry.path().join("serial")).ok()?;
        let found = found.trim_ascii();
        (found == serial.as_bytes()).then(|| entry.file_name().into_string().ok())?
    })
}

impl Disk {
    /// Mounts it for reading and writing.
    pub fn mount(&self, on: &Path) -> Result<(), BootError> {
        let failed = |source| BootError::MountDisk {
            serial: self.serial,
            device: self.device().display().to_string(),
            on: on.display().to_string(),
            source,
        };
        super::mounts::make_directory(on).map_err(failed)?;
        // Space that files leave goes back to the host at once; a weekly fstrim comes too late for most VMs.
        let can_discard = self.attribute("queue/discard_max_bytes").is_some_and(|bytes| bytes > 0);
        let options = if can_discard { c"discard" } else { c"" };
        mount(self.device(), on, "ext4", MountFlags::empty(), options).map_err(|error| failed(error.into()))
    }

    /// How its file system, mounted on `mount_point`, is to grow; nothing where it fills its device.
    pub fn growth(&self, mount_point: &Path) -> Option<Growth> {
        let bytes = self.attribute("size")? * 512;
        let (block_size, has) = read_superblock(&self.device()).ok()?;
        let blocks = bytes / block_size;
        (has < blocks).then(|| Growth { mount_point: mount_point.to_owned(), blocks })
    }

    fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    fn attribute(&self, name: &str) -> Option<u64> {
        fs::read_to_string(Path::new("/sys/block").join(&self.name).join(name)).ok()?.trim().parse().ok()
    }
}

impl Growth {
    /// Grows the file system while it is mounted.
    pub fn apply(&self) -> io::Result<()> {
        Ok(rustix::fs::ext4_ioc_resize_fs(fs::File::open(&self.mount_point)?, self.blocks)?)
    }

    /// As [`Growth::apply`]. Where that fails, the guest goes on with the size that it had, and the kernel's log says why.
    pub fn apply_or_log(&self) {
        if let Err(error) = self.apply() {
            let on = self.mount_point.display();
            drop(fs::write("/dev/kmsg", format!("<3>banger-agent: cannot grow the file system on {on}: {error}\n")));
        }
    }
}

/// Waits until the disk with this serial number has so many bytes, then grows its file system, mounted on `mount_point`.
pub fn grow(serial: &str, bytes: u64, mount_point: &Path, deadline: Instant) -> io::Result<()> {
    let devices = Uevents::open()?;
    loop {
        let name = look(serial).ok_or(io::ErrorKind::NotFound)?;
        let disk = Disk { serial: "", name };
        if disk.attribute("size").is_some_and(|sectors| sectors * 512 >= bytes) {
            return disk.growth(mount_point).map_or(Ok(()), |growth| growth.apply());
        }
        if !devices.wait("block", deadline)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "the disk has not become larger"));
        }
    }
}

/// Block size and number of blocks of an ext4 file system (`struct ext4_super_block`, 1024 bytes into the device).
fn read_superblock(device: &Path) -> io::Result<(u64, u64)> {
    let mut superblock = [0u8; 1024];
    let mut file = fs::File::open(device)?;
    file.seek(SeekFrom::Start(1024))?;
    file.read_exact(&mut superblock)?;
    parse_superblock(&superblock).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_superblock(superblock: &[u8; 1024]) -> Option<(u64, u64)> {
    let word = |at: usize| Some(u32::from_le_bytes(superblock.get(at..at + 4)?.try_into().ok()?));
    let magic = u16::from_le_bytes([superblock[0x38], superblock[0x39]]);
    let has_64bit = word(0x60)? & 0x80 != 0;
    let high = if has_64bit { word(0x150)? } else { 0 };
    let shift = word(0x18)?;
    (magic == 0xef53 && shift <= 6).then_some((1024 << shift, u64::from(high) << 32 | u64::from(word(0x4)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_superblock_tells_the_size() {
        let mut superblock = [0u8; 1024];
        superblock[0x38..0x3a].copy_from_slice(&0xef53u16.to_le_bytes());
        superblock[0x18] = 2;
        superblock[0x4..0x8].copy_from_slice(&262_144u32.to_le_bytes());
        superblock[0x150] = 1;
        assert_eq!(parse_superblock(&superblock), Some((4096, 262_144)));
        superblock[0x60] = 0x80;
        assert_eq!(parse_superblock(&superblock), Some((4096, (1 << 32) + 262_144)));
        superblock[0x38] = 0;
        assert_eq!(parse_superblock(&superblock), None);
    }
}
