//! A kernel as distributions ship it, unpacked to what a VMM starts fastest: an uncompressed ELF file with a PVH entry.
//! Pure: bytes in, bytes out.
//!
//! A bzImage says where its compressed payload lies (Documentation/arch/x86/boot.rst, `payload_offset` and `payload_length`).
//! The payload is the ELF file in one of several formats, with its length appended by the kernel's build.

use std::io::Read;

/// No kernel is larger than this when unpacked; Debian's has about 60 MiB.
const LIMIT: usize = 512 << 20;

/// The note by which a kernel says that it can be entered in 32-bit protected mode as a PVH guest
/// (include/xen/interface/elfnote.h).
const PHYS32_ENTRY: u32 = 18;

/// Why a kernel was not unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// It has no bzImage header of protocol 2.08 or later.
    #[error("it is no bzImage that says where its payload is")]
    NoHeader,
    /// The header points outside of the file.
    #[error("its payload lies outside of the file")]
    OutOfFile,
    /// The payload's format is none of those known here.
    #[error("its payload is compressed in a way that is not known here: it begins with {0:02x?}")]
    Compression(Vec<u8>),
    /// The payload does not unpack.
    #[error("its {format} payload does not unpack: {problem}")]
    Unpack {
        /// The format.
        format: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// What came out is no 64-bit ELF file.
    #[error("its payload is no 64-bit ELF file")]
    NoElf,
    /// The ELF file has no PVH entry, so that no VMM could start it uncompressed.
    #[error("it has no PVH entry (CONFIG_PVH)")]
    NoPvhEntry,
}

/// Unpacks a bzImage. An ELF file is taken as it is. What comes out has a PVH entry.
///
/// # Errors
/// [`KernelError`].
pub fn unpack(image: &[u8]) -> Result<Vec<u8>, KernelError> {
    let elf = if image.starts_with(b"\x7fELF") { image.to_vec() } else { decompress(payload(image)?)? };
    if has_pvh_entry(&elf)? { Ok(elf) } else { Err(KernelError::NoPvhEntry) }
}

fn payload(image: &[u8]) -> Result<&[u8], KernelError> {
    let version = u16_at(image, 0x206).ok_or(KernelError::NoHeader)?;
    if image.get(0x202..0x206) != Some(b"HdrS") || version < 0x208 {
        return Err(KernelError::NoHeader);
    }
    // Zero stands for four, for the oldest loaders' sake.
    let setup_sectors = match image[0x1f1] {
        0 => 4,
        count => usize::from(count),
    };
    let protected_mode = (setup_sectors + 1) * 512;
    let field = |at| u32_at(image, at).map(|value| value as usize).ok_or(KernelError::NoHeader);
    let start = protected_mode.checked_add(field(0x248)?).ok_or(KernelError::OutOfFile)?;
    let end = start.checked_add(field(0x24c)?).ok_or(KernelError::OutOfFile)?;
    image.get(start..end).ok_or(KernelError::OutOfFile)
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, KernelError> {
    let failed = |format| move |problem: std::io::Error| KernelError::Unpack { format, problem: problem.to_string() };
    match payload {
        [0x7f, b'E', b'L', b'F', ..] => Ok(payload.to_vec()),
        [0x02, 0x21, 0x4c, 0x18, ..] => unpack_lz4(payload),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            // The kernel's length follows the frame, and would be taken for the head of another.
            let decoder = zstd::stream::read::Decoder::new(payload).map_err(failed("zstd"))?;
            read_limited(decoder.single_frame()).map_err(failed("zstd"))
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            // Newer kernels append their length here too; a stream ends in "YZ" (xz-file-format, 2.1.2.4).
            let end = if payload.ends_with(b"YZ") { payload.len() } else { payload.len().saturating_sub(4) };
            read_limited(xz2::read::XzDecoder::new(&payload[..end])).map_err(failed("xz"))
        }
        [0x5d, 0, 0, ..] => {
            let stream =
                xz2::stream::Stream::new_lzma_decoder(u64::MAX).map_err(|error| failed("lzma")(error.into()))?;
            read_limited(xz2::read::XzDecoder::new_stream(payload, stream)).map_err(failed("lzma"))
        }
        _ => Err(KernelError::Compression(payload.iter().take(6).copied().collect())),
    }
}

fn read_limited(reader: impl Read) -> std::io::Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    reader.take(LIMIT as u64 + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() > LIMIT {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is far too large"));
    }
    Ok(unpacked)
}

/// The legacy frame format, which the kernel's build uses (`lz4 -l`): a magic number, then blocks of at most 8 MiB unpacked,
/// each behind its compressed length. Nothing marks the end: there the kernel's build has put the unpacked length instead.
fn unpack_lz4(payload: &[u8]) -> Result<Vec<u8>, KernelError> {
    const BLOCK: usize = 8 << 20;
    let failed = |problem: String| KernelError::Unpack { format: "lz4", problem };
    let mut unpacked = Vec::new();
    let mut rest = &payload[4..];
    while rest.len() > 4 {
        let length = u32_at(rest, 0).unwrap_or_default() as usize;
        let block = rest.get(4..4 + length).ok_or_else(|| failed("a block is cut short".into()))?;
        let filled = unpacked.len();
        if filled + BLOCK > LIMIT {
            return Err(failed("it is far too large".into()));
        }
        unpacked.resize(filled + BLOCK, 0);
        let count = lz4_flex::block::decompress_into(block, &mut unpacked[filled..]);
        unpacked.truncate(filled + count.map_err(|error| failed(error.to_string()))?);
        rest = &rest[4 + length..];
    }
    match u32_at(rest, 0) {
        Some(length) if length as usize == unpacked.len() => Ok(unpacked),
        _ => Err(failed("its length is another than it says".into())),
    }
}

/// Whether any note segment of the ELF file holds Xen's note for a 32-bit entry.
fn has_pvh_entry(elf: &[u8]) -> Result<bool, KernelError> {
    const NOTE_SEGMENT: u32 = 4;
    // 64 bits, little-endian.
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        return Err(KernelError::NoElf);
    }
    let headers = u64_at(elf, 0x20).and_then(|value| usize::try_from(value).ok()).ok_or(KernelError::NoElf)?;
    let size = usize::from(u16_at(elf, 0x36).ok_or(KernelError::NoElf)?);
    let count = usize::from(u16_at(elf, 0x38).ok_or(KernelError::NoElf)?);
    let segments = (0..count).filter_map(|index| elf.get(headers.checked_add(index * size)?..));
    Ok(segments.filter(|header| u32_at(header, 0) == Some(NOTE_SEGMENT)).any(|header| {
        let word = |at| u64_at(header, at).and_then(|value| usize::try_from(value).ok());
        let range = word(8).and_then(|start| Some(start..start.checked_add(word(0x20)?)?));
        range.and_then(|range| elf.get(range)).is_some_and(notes_have_entry)
    }))
}

fn notes_have_entry(mut notes: &[u8]) -> bool {
    while let (Some(name_size), Some(size), Some(kind)) = (u32_at(notes, 0), u32_at(notes, 4), u32_at(notes, 8)) {
        let (name_size, size) = (name_size as usize, size as usize);
        if kind == PHYS32_ENTRY && notes[12..].starts_with(b"Xen\0") && name_size == 4 {
            return true;
        }
        let next = 12usize.saturating_add(name_size.next_multiple_of(4)).saturating_add(size.next_multiple_of(4));
        match notes.get(next..) {
            Some(rest) => notes = rest,
            None => return false,
        }
    }
    false
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An ELF file of one note segment with two notes, the second of the kind given.
    fn elf(kind: u32) -> Vec<u8> {
        let mut notes = Vec::new();
        for (kind, name, content) in [(3u32, &b"GNU\0"[..], &[7u8; 20][..]), (kind, b"Xen\0", &[0, 0, 0, 1])] {
            for field in [4, u32::try_from(content.len()).unwrap(), kind] {
                notes.extend_from_slice(&field.to_le_bytes());
            }
            notes.extend_from_slice(name);
            notes.extend_from_slice(content);
        }
        let mut bytes = vec![0; 0x40 + 0x38];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[0x20] = 0x40;
        bytes[0x36] = 0x38;
        bytes[0x38] = 1;
        bytes[0x40] = 4;
        bytes[0x48] = 0x78;
        bytes[0x60] = u8::try_from(notes.len()).unwrap();
        bytes.extend_from_slice(&notes);
        // Something to compress.
        bytes.resize(1 << 16, 0x90);
        bytes
    }

    fn bzimage(payload: &[u8], unpacked: usize) -> Vec<u8> {
        let mut image = vec![0; 5 * 512];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&100u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len() + 4).unwrap().to_le_bytes());
        image.resize(5 * 512 + 100, 0xcc);
        image.extend_from_slice(payload);
        image.extend_from_slice(&u32::try_from(unpacked).unwrap().to_le_bytes());
        image.extend_from_slice(b"what follows the payload");
        image
    }

    fn lz4_legacy(content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x02, 0x21, 0x4c, 0x18];
        for block in content.chunks(8 << 20) {
            let block = lz4_flex::block::compress(block);
            bytes.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&block);
        }
        bytes
    }

    #[test]
    fn every_format_unpacks_to_the_same() {
        let elf = elf(PHYS32_ENTRY);
        let mut xz = Vec::new();
        xz2::read::XzEncoder::new(&elf[..], 1).read_to_end(&mut xz).unwrap();
        let zstd = zstd::encode_all(&elf[..], 1).unwrap();
        for payload in [lz4_legacy(&elf), xz, zstd, elf.clone()] {
            let unpacked = unpack(&bzimage(&payload, elf.len())).unwrap();
            assert!(unpacked[..elf.len()] == elf[..]);
        }
        assert!(unpack(&elf).unwrap() == elf);
    }

    #[test]
    fn a_kernel_of_many_lz4_blocks() {
        let mut elf = elf(PHYS32_ENTRY);
        elf.resize((20 << 20) + 5, 3);
        assert!(unpack(&bzimage(&lz4_legacy(&elf), elf.len())).unwrap() == elf);
    }

    #[test]
    fn what_no_vmm_could_start_is_refused() {
        let other = elf(17);
        assert_eq!(unpack(&bzimage(&lz4_legacy(&other), other.len())), Err(KernelError::NoPvhEntry));
        let text = b"no kernel at all".repeat(100);
        assert_eq!(unpack(&text), Err(KernelError::NoHeader));
        assert_eq!(unpack(&bzimage(&lz4_legacy(&text), text.len())), Err(KernelError::NoElf));
        assert!(matches!(unpack(&bzimage(b"BZh91AY", 0)), Err(KernelError::Compression(_))));
        let mut outside = bzimage(b"", 0);
        outside[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(unpack(&outside), Err(KernelError::OutOfFile));
    }

    proptest! {
        #[test]
        fn damage_is_an_error_or_harmless(at in 0usize..70_000, byte: u8, cut in 0usize..70_000) {
            let elf = elf(PHYS32_ENTRY);
            let mut image = bzimage(&lz4_legacy(&elf), elf.len());
            let at = at % image.len();
            image[at] = byte;
            image.truncate(image.len() - cut % image.len());
            let kept = unpack(&image).is_ok();
            prop_assert!(!kept || image.len() > 5 * 512);
        }

        #[test]
        fn no_elf_makes_it_panic(mut bytes: Vec<u8>, at in 0usize..200, byte: u8) {
            let mut damaged = elf(PHYS32_ENTRY);
            damaged[at] = byte;
            // Only the magic number and the segment table's place and size can make it no ELF file.
            prop_assert!(has_pvh_entry(&damaged).is_ok() || at < 0x40);
            prop_assert!(!notes_have_entry(&bytes) || bytes.len() >= 16);
            bytes.splice(0..0, *b"\x7fELF\x02\x01");
            prop_assert!(has_pvh_entry(&bytes) != Ok(true) || bytes.len() >= 0x40);
        }
    }
}
