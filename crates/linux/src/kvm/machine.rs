//! A guest of one page and one processor that counts down and halts, by KVM's ioctls (Documentation/virt/kvm/api.rst).

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags};

use super::{ioctl, ioctl_fd};

const PAGE: usize = 4096;

/// Where the guest sees its page.
const ADDRESS: u64 = 0x1000;

/// `loop: dec ecx; jnz loop; hlt`, in 32-bit code.
const CODE: [u8; 4] = [0x49, 0x75, 0xfd, 0xf4];

const GET_API_VERSION: libc::c_ulong = 0xae00;
const CREATE_VM: libc::c_ulong = 0xae01;
const GET_VCPU_MMAP_SIZE: libc::c_ulong = 0xae04;
const CREATE_VCPU: libc::c_ulong = 0xae41;
const SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_ae46;
const SET_TSS_ADDR: libc::c_ulong = 0xae47;
const RUN: libc::c_ulong = 0xae80;
const GET_REGS: libc::c_ulong = 0x8090_ae81;
const SET_REGS: libc::c_ulong = 0x4090_ae82;
const GET_SREGS: libc::c_ulong = 0x8138_ae83;
const SET_SREGS: libc::c_ulong = 0x4138_ae84;
const SET_SIGNAL_MASK: libc::c_ulong = 0x4004_ae8b;

/// The only version that there is.
const API_VERSION: libc::c_int = 12;

/// The reason of an exit by `hlt`.
const EXIT_HLT: u32 = 5;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The guest halted.
    Halted,
    /// A signal came first.
    ByAlarm,
}

/// A guest. It goes when it is dropped.
pub struct Guest {
    // In this order: the processor goes before its VM, and both before the memory.
    run: Mapping,
    processor: OwnedFd,
    _vm: OwnedFd,
    _memory: Mapping,
}

#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_address: u64,
    size: u64,
    host_address: u64,
}

#[repr(C)]
#[derive(Default)]
struct Registers {
    before_rcx: [u64; 2],
    rcx: u64,
    between: [u64; 13],
    rip: u64,
    rflags: u64,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Segment {
    base: u64,
    limit: u32,
    selector: u16,
    kind: u8,
    present: u8,
    privilege: u8,
    wide: u8,
    code_or_data: u8,
    long: u8,
    in_pages: u8,
    available: u8,
    unusable: u8,
    padding: u8,
}

#[repr(C)]
#[derive(Default)]
struct SpecialRegisters {
    cs: Segment,
    data: [Segment; 5],
    tr_and_ldt: [Segment; 2],
    gdt_and_idt: [u64; 4],
    cr0: u64,
    rest: [u64; 10],
}

#[repr(C)]
struct SignalMask {
    length: u32,
    set: [u8; 8],
}

impl Guest {
    /// Makes a guest that is ready to run, in 32-bit mode without paging: that is run by the processor itself even where
    /// real mode would not be.
    pub fn new(kvm: &File) -> io::Result<Guest> {
        if ioctl(kvm, GET_API_VERSION, 0)? != API_VERSION {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let vm = ioctl_fd(kvm, CREATE_VM)?;
        // Older Intel processors need three pages for themselves; where, is up to us.
        ioctl(&vm, SET_TSS_ADDR, 0xfffb_d000)?;
        let memory = Mapping::anonymous(PAGE)?;
        memory.write(&CODE);
        let region = MemoryRegion {
            slot: 0,
            flags: 0,
            guest_address: ADDRESS,
            size: PAGE as u64,
            host_address: memory.address.as_ptr() as u64,
        };
        ioctl(&vm, SET_USER_MEMORY_REGION, &raw const region as usize)?;
        let processor = ioctl_fd(&vm, CREATE_VCPU)?;
        let size = usize::try_from(ioctl(kvm, GET_VCPU_MMAP_SIZE, 0)?).unwrap_or_default();
        let run = Mapping::shared(size, &processor)?;

        let mut special = SpecialRegisters::default();
        ioctl(&processor, GET_SREGS, &raw mut special as usize)?;
        let flat = Segment { limit: u32::MAX, present: 1, wide: 1, code_or_data: 1, in_pages: 1, ..Segment::default() };
        special.cs = Segment { selector: 8, kind: 11, ..flat };
        special.data = [Segment { selector: 16, kind: 3, ..flat }; 5];
        special.cr0 |= 1;
        ioctl(&processor, SET_SREGS, &raw const special as usize)?;
        Ok(Guest { run, processor, _vm: vm, _memory: memory })
    }

    /// Lets every signal end a run, also those that the thread has blocked.
    pub fn interrupted_by_any_signal(&self) -> io::Result<()> {
        let nothing_blocked = SignalMask { length: 8, set: [0; 8] };
        ioctl(&self.processor, SET_SIGNAL_MASK, &raw const nothing_blocked as usize).map(drop)
    }

    /// Executes this many instructions, or as many as a signal leaves time for. How it ended, and how many they were.
    pub fn count_down(&mut self, instructions: u32) -> io::Result<(Ended, u32)> {
        let rounds = instructions / 2;
        let mut registers = Registers { rcx: u64::from(rounds), rip: ADDRESS, rflags: 2, ..Registers::default() };
        ioctl(&self.processor, SET_REGS, &raw const registers as usize)?;
        let ended = match ioctl(&self.processor, RUN, 0) {
            Ok(_) if self.exit_reason() == EXIT_HLT => Ended::Halted,
            Ok(_) => return Err(io::Error::other(format!("the guest ended by exit {}", self.exit_reason()))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ended::ByAlarm,
            Err(error) => return Err(error),
        };
        ioctl(&self.processor, GET_REGS, &raw mut registers as usize)?;
        let left = u32::try_from(registers.rcx).unwrap_or(rounds);
        Ok((ended, rounds.saturating_sub(left) * 2))
    }

    fn exit_reason(&self) -> u32 {
        // SAFETY: the kernel's structure is longer than this, has this field at byte 8, and is written only during a run.
        unsafe { self.run.address.as_ptr().cast::<u32>().add(2).read_volatile() }
    }
}

/// Memory that is unmapped when this is dropped.
struct Mapping {
    address: NonNull<libc::c_void>,
    size: usize,
}

impl Mapping {
    fn anonymous(size: usize) -> io::Result<Mapping> {
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let address = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        Mapping::owned(address, size)
    }

    fn shared(size: usize, fd: &OwnedFd) -> io::Result<Mapping> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let address = unsafe { rustix::mm::mmap(std::ptr::null_mut(), size, protection, MapFlags::SHARED, fd, 0) }?;
        Mapping::owned(address, size)
    }

    fn owned(address: *mut libc::c_void, size: usize) -> io::Result<Mapping> {
        let address = NonNull::new(address).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Mapping { address, size })
    }

    fn write(&self, bytes: &[u8; 4]) {
        // SAFETY: the mapping is at least a page long and nobody else has it yet.
        unsafe { self.address.as_ptr().cast::<[u8; 4]>().write(*bytes) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping's only owner. An error could only mean that it is gone already.
        unsafe { libc::munmap(self.address.as_ptr(), self.size) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_are_as_long_as_the_kernels() {
        assert_eq!(size_of::<MemoryRegion>(), 32);
        assert_eq!(size_of::<Registers>(), 144);
        assert_eq!(size_of::<Segment>(), 24);
        assert_eq!(size_of::<SpecialRegisters>(), 312);
    }
}
