//! A tree that is enough of a Debian to make an image of, in no time.

use std::path::Path;

use async_trait::async_trait;
use bangerd::image::ImageError;
use bangerd::image::install::{Installation, Installer};

/// Fills a tree with a few small files.
#[derive(Debug)]
pub struct TinyTree;

#[async_trait]
impl Installer for TinyTree {
    async fn install(
        &self,
        installation: Installation<'_>,
        tell: &mut (dyn FnMut(String) + Send),
    ) -> Result<(), ImageError> {
        tell("unpacking next to nothing".to_owned());
        let built_in = [
            "virtio_mmio",
            "virtio_pci",
            "virtio_blk",
            "virtio_console",
            "virtio_net",
            "virtio_rng",
            "virtio_balloon",
            "ext4",
        ];
        let built_in: String = built_in.iter().map(|name| format!("kernel/{name}.ko\n")).collect();
        let files: [(&str, &[u8]); 7] = [
            ("etc/os-release", b"PRETTY_NAME=\"Tiny\"\n"),
            (
                "var/lib/dpkg/status",
                b"Package: tiny\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n\n",
            ),
            ("boot/vmlinuz-1-tiny", &kernel()),
            ("lib/modules/1-tiny/modules.dep", b""),
            ("lib/modules/1-tiny/modules.builtin", built_in.as_bytes()),
            ("root/.profile", b"# of the image\n"),
            ("usr/share/doc/tiny/copyright", b"nobody's\n"),
        ];
        for (path, content) in files {
            write(&installation.root.join(path), content);
        }
        Ok(())
    }
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// An ELF file of nothing but the note that makes it a PVH kernel.
fn kernel() -> Vec<u8> {
    const HEADER: u8 = 0x40;
    const PROGRAM_HEADER: u8 = 0x38;
    let mut bytes = vec![0; usize::from(HEADER + PROGRAM_HEADER)];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (bytes[0x20], bytes[0x36], bytes[0x38]) = (HEADER, PROGRAM_HEADER, 1);
    // A note segment, right behind, of twenty bytes.
    (bytes[0x40], bytes[0x48], bytes[0x60]) = (4, HEADER + PROGRAM_HEADER, 20);
    for field in [4u32, 4, 18] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(b"Xen\0\0\0\0\x01");
    bytes
}
