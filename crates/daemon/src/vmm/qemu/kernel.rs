//! A kernel of a few bytes for tests: it says `hi` on the serial port and halts.

/// 32-bit code: `cli; mov dx, 0x3f8; mov al, 'h'; out dx, al; mov al, 'i'; out dx, al; halt: hlt; jmp halt`.
const CODE: [u8; 15] = [0xfa, 0x66, 0xba, 0xf8, 0x03, 0xb0, b'h', 0xee, 0xb0, b'i', 0xee, 0xf4, 0xeb, 0xfd, 0x90];

/// Where it is loaded and entered.
const ADDRESS: u32 = 0x10_0000;

const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const NOTE: u64 = HEADER + 2 * PROGRAM_HEADER;
const NOTE_LENGTH: u64 = 20;
const TEXT: u64 = NOTE + NOTE_LENGTH;

/// The ELF file: a header, two program headers, the note that makes it a PVH kernel, the code.
pub fn elf() -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |numbers: &[(u64, usize)]| {
        for (number, width) in numbers {
            bytes.extend_from_slice(&number.to_le_bytes()[..*width]);
        }
    };
    let (address, length) = (u64::from(ADDRESS), CODE.len() as u64);
    // An executable for x86-64, its entry, where its program headers are, flags and sizes, two program headers, no sections.
    put(&[(2, 2), (62, 2), (1, 4), (address, 8), (HEADER, 8), (0, 8), (0, 4)]);
    put(&[(HEADER, 2), (PROGRAM_HEADER, 2), (2, 2), (0, 2), (0, 2), (0, 2)]);
    // PT_LOAD, readable and executable; PT_NOTE.
    put(&[(1, 4), (5, 4), (TEXT, 8), (address, 8), (address, 8), (length, 8), (length, 8), (1, 8)]);
    put(&[(4, 4), (4, 4), (NOTE, 8), (0, 8), (0, 8), (NOTE_LENGTH, 8), (NOTE_LENGTH, 8), (4, 8)]);
    // XEN_ELFNOTE_PHYS32_ENTRY.
    put(&[(4, 4), (4, 4), (18, 4)]);
    bytes.extend_from_slice(b"Xen\0");
    bytes.extend_from_slice(&ADDRESS.to_le_bytes());
    bytes.extend_from_slice(&CODE);
    bytes
}
