//! Which kernel modules an initramfs needs, out of a kernel's `modules.dep` and `modules.builtin` (depmod(8)), and how to
//! read one. Pure.

use std::collections::HashMap;
use std::io::Read;

/// What a guest needs before it sees its root disk and its channel, and what its first process may want at once. Names that
/// a kernel has built in, or does not have, are passed over: the kernel knows which.
pub const WANTED: [&str; 8] =
    ["virtio_mmio", "virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "virtio_rng", "virtio_balloon", "ext4"];

/// No module is larger than this when unpacked.
const LIMIT: u64 = 64 << 20;

/// Why the modules could not be chosen or read.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The kernel has neither built in nor as a module what a guest cannot do without.
    #[error("the kernel has no {0}")]
    Missing(String),
    /// A module that another needs is not listed itself.
    #[error("modules.dep names {0} but does not list it")]
    Unlisted(String),
    /// A compressed module does not unpack.
    #[error("the module {name} does not unpack")]
    Unpack {
        /// Its file.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// The wanted modules and those they need, as paths below the kernel's directory of modules, each after those it needs.
///
/// # Errors
/// [`ModuleError::Missing`], [`ModuleError::Unlisted`].
pub fn select(wanted: &[&str], dependencies: &str, builtin: &str) -> Result<Vec<String>, ModuleError> {
    let built_in: Vec<String> = builtin.lines().map(module_name).collect();
    let lines: Vec<(&str, Vec<&str>)> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(path, needs)| (path, needs.split_ascii_whitespace().collect()))
        .collect();
    let by_name: HashMap<String, usize> =
        lines.iter().enumerate().map(|(index, (path, _))| (module_name(path), index)).collect();
    let mut chosen: Vec<&str> = Vec::new();
    for name in wanted {
        let Some(&index) = by_name.get(*name) else {
            if built_in.iter().any(|built_in| built_in == name) {
                continue;
            }
            return Err(ModuleError::Missing((*name).to_owned()));
        };
        let (path, needs) = &lines[index];
        // depmod writes all that a module needs, directly or not, the one to be loaded first at the end of the line.
        for needed in needs.iter().rev().chain([path]) {
            if !by_name.contains_key(&module_name(needed)) {
                return Err(ModuleError::Unlisted((*needed).to_owned()));
            }
            if !chosen.contains(needed) {
                chosen.push(needed);
            }
        }
    }
    Ok(chosen.into_iter().map(str::to_owned).collect())
}

/// A module's file name without compression: what it is called in the initramfs.
pub fn plain_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.strip_suffix(".xz").or_else(|| file.strip_suffix(".zst")).or_else(|| file.strip_suffix(".gz")).unwrap_or(file)
}

/// A module's content, uncompressed: the first process hands it to the kernel, which may not know the compression.
///
/// # Errors
/// [`ModuleError::Unpack`].
pub fn unpack(path: &str, content: Vec<u8>) -> Result<Vec<u8>, ModuleError> {
    let failed = |source| ModuleError::Unpack { name: path.to_owned(), source };
    let mut unpacked = Vec::new();
    match content.as_slice() {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            xz2::read::XzDecoder::new(&content[..]).take(LIMIT).read_to_end(&mut unpacked).map_err(failed)?;
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = zstd::stream::read::Decoder::new(&content[..]).map_err(failed)?;
            decoder.take(LIMIT).read_to_end(&mut unpacked).map_err(failed)?;
        }
        [0x7f, b'E', b'L', b'F', ..] => return Ok(content),
        _ => return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidData, "it is no module"))),
    }
    Ok(unpacked)
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko.xz` is `virtio_rng`: the kernel does not tell `-` from `_`.
fn module_name(path: &str) -> String {
    plain_name(path.trim()).trim_end_matches(".ko").replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/drivers/virtio/virtio.ko:\n\
        kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n\
        kernel/drivers/block/virtio_blk.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n\
        kernel/drivers/char/hw_random/virtio-rng.ko: kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n\
        kernel/broken.ko: kernel/nowhere.ko\n";
    const BUILTIN: &str = "kernel/fs/ext4/ext4.ko\nkernel/drivers/char/hw_random/rng-core.ko\n";

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let found = select(&["virtio_blk", "ext4", "rng_core", "virtio_rng"], DEPENDENCIES, BUILTIN).unwrap();
        assert_eq!(
            found.iter().map(|path| plain_name(path)).collect::<Vec<_>>(),
            ["virtio.ko", "virtio_ring.ko", "virtio_blk.ko", "virtio-rng.ko"]
        );
    }

    #[test]
    fn a_kernel_that_cannot_do_it_is_refused() {
        assert!(matches!(select(&["virtio_console"], DEPENDENCIES, BUILTIN), Err(ModuleError::Missing(_))));
        assert!(matches!(select(&["broken"], DEPENDENCIES, BUILTIN), Err(ModuleError::Unlisted(_))));
    }

    #[test]
    fn modules_come_out_uncompressed() {
        let plain = [&b"\x7fELF"[..], &[9; 1000]].concat();
        let mut xz = Vec::new();
        xz2::read::XzEncoder::new(&plain[..], 1).read_to_end(&mut xz).unwrap();
        let zst = zstd::encode_all(&plain[..], 1).unwrap();
        for (path, content) in [("a.ko.xz", xz), ("a.ko.zst", zst), ("a.ko", plain.clone())] {
            assert_eq!(unpack(path, content).unwrap(), plain);
            assert_eq!(plain_name(path), "a.ko");
        }
        assert!(unpack("a.ko", b"text".to_vec()).is_err());
    }
}
